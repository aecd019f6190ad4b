// SPDX-License-Identifier: Apache-2.0

package debuginfod

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// cache is a directory of files by build ID:
//
//	ID.debug    what a server sent; its access time is when it was last used
//	ID.unknown  why there is no such file, as of its modification time
//	*.part      what is being received, locked by who receives it
type cache struct {
	dir     string
	limit   int64
	forget  time.Duration
	evicted atomic.Uint64

	mu sync.Mutex // held while files are removed
}

const (
	debugSuffix   = ".debug"
	unknownSuffix = ".unknown"
	partSuffix    = ".part"

	maxReason  = 1 << 10 // bytes
	maxUnknown = 1 << 16 // files
)

// open makes the directory and removes what nobody receives any more.
func (c *cache) open() error {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := filepath.Join(c.dir, e.Name())
		if !strings.HasSuffix(name, partSuffix) {
			continue
		}
		f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			continue // it is gone by now
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			err = os.Remove(name)
		}
		f.Close()
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return c.evict(0)
}

func (c *cache) path(buildID, suffix string) string { return filepath.Join(c.dir, buildID+suffix) }

// get opens a file and marks it as used.
func (c *cache) get(buildID string) (*os.File, error) {
	f, err := os.OpenFile(c.path(buildID, debugSuffix), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err == nil {
		// Mount options may keep reading from marking it. If this does not either,
		// it goes earlier than it should.
		_ = unix.UtimesNanoAt(unix.AT_FDCWD, f.Name(), []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_OMIT}}, 0)
		return f, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	reason, known := c.unknown(buildID)
	if known {
		return nil, fmt.Errorf("debug file %s: %w: %s", buildID, ErrUnknown, reason)
	}
	return nil, fmt.Errorf("debug file %s: %w", buildID, ErrNotCached)
}

// unknown returns why no server has a file, if that is not too long ago.
func (c *cache) unknown(buildID string) (reason string, known bool) {
	f, err := os.OpenFile(c.path(buildID, unknownSuffix), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", false
	}
	if age := time.Since(info.ModTime()); age > c.forget || age < -time.Minute {
		return "", false
	}
	text, err := io.ReadAll(io.LimitReader(f, maxReason))
	return string(bytes.TrimSpace(text)), err == nil
}

// putUnknown notes that no server has a file.
func (c *cache) putUnknown(buildID, reason string) error {
	p, err := c.begin()
	if err != nil {
		return err
	}
	defer p.abort()
	if _, err := p.file.WriteString(reason[:min(len(reason), maxReason)] + "\n"); err != nil {
		return err
	}
	return p.rename(c.path(buildID, unknownSuffix))
}

// part is a file being received.
type part struct {
	file *os.File
	name string // "" once it has its final one
}

func (c *cache) begin() (*part, error) {
	f, err := os.CreateTemp(c.dir, "*"+partSuffix)
	if err != nil {
		return nil, err
	}
	p := &part{f, f.Name()}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		p.abort()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return p, nil
}

func (p *part) rename(to string) error {
	if err := os.Rename(p.name, to); err != nil {
		return err
	}
	p.name = ""
	return nil
}

// abort closes the file, and removes it unless it was given a name.
func (p *part) abort() {
	if p.name != "" {
		_ = os.Remove(p.name) // or it goes when the cache is opened next
	}
	p.file.Close()
}

// commit makes a file of n bytes known, others making room for it.
func (c *cache) commit(p *part, buildID string, n int64) error {
	if n > c.limit {
		return fmt.Errorf("%d bytes are more than the cache holds: %w", n, ErrTooLarge)
	}
	if err := c.evict(n); err != nil {
		return err
	}
	if err := p.file.Sync(); err != nil {
		return err
	}
	if err := p.rename(c.path(buildID, debugSuffix)); err != nil {
		return err
	}
	err := os.Remove(c.path(buildID, unknownSuffix))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// entry is a file of the cache.
type entry struct {
	path string
	size int64
	used time.Time
}

// evict removes what was not used for longest until there is room for more bytes, and
// what is too old of the rest.
func (c *cache) evict(more int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	var files, unknown []entry
	total := more
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		path := filepath.Join(c.dir, e.Name())
		switch filepath.Ext(path) {
		case debugSuffix:
			total += info.Size()
			files = append(files, entry{path, info.Size(), accessTime(info)})
		case unknownSuffix:
			unknown = append(unknown, entry{path, info.Size(), info.ModTime()})
		}
	}
	oldest := func(a, b entry) int { return a.used.Compare(b.used) }
	slices.SortFunc(files, oldest)
	for i := 0; i < len(files) && total > c.limit; i++ {
		if err := os.Remove(files[i].path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		total -= files[i].size
		c.evicted.Add(1)
	}
	slices.SortFunc(unknown, oldest)
	for i, e := range unknown {
		if time.Since(e.used) <= c.forget && len(unknown)-i <= maxUnknown {
			break
		}
		if err := os.Remove(e.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

func accessTime(info os.FileInfo) time.Time {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return time.Unix(st.Atim.Sec, st.Atim.Nsec)
	}
	return info.ModTime()
}
