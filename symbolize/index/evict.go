// SPDX-License-Identifier: Apache-2.0

package index

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	failedSuffix = ".failed"
	tempSuffix   = ".tmp"
)

type unixStat = syscall.Stat_t

func inode(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*unixStat); ok {
		return st.Ino
	}
	return 0
}

// kindOf says what a file of a directory is by its name; other files are left alone.
type kindOf uint8

const (
	foreign kindOf = iota
	temporary
	finished // an index or a failure
	outdated // one of an older version
)

func kind(name string) kindOf {
	id, rest, _ := strings.Cut(name, ".")
	if checkID(id) != nil {
		return foreign
	}
	rest = "." + rest
	if rest == tempSuffix {
		return temporary
	}
	v, ok := strings.CutPrefix(strings.TrimSuffix(rest, failedSuffix), ".v")
	n, err := strconv.ParseUint(v, 10, 16)
	switch {
	case !ok || err != nil || v != strconv.FormatUint(n, 10):
		return foreign
	case n < Version:
		return outdated
	}
	return finished // those of later versions have a share of the room
}

// each calls f for each regular file that is an index's.
func (d *Dir) each(f func(name string, k kindOf, info fs.FileInfo)) error {
	dir, err := d.root.Open(".")
	if err != nil {
		return fmt.Errorf("read index directory: %w", err)
	}
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(256)
		for _, name := range names {
			k := kind(name)
			if k == foreign {
				continue
			}
			// A file that is gone is another process's doing.
			if info, err := d.root.Lstat(name); err == nil && info.Mode().IsRegular() {
				f(name, k, info)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read index directory: %w", err)
		}
	}
}

// sweep deletes files of older versions and temporary files that are no process's.
func (d *Dir) sweep() error {
	return d.each(func(name string, k kindOf, _ fs.FileInfo) {
		switch k {
		case temporary:
			d.sweepTemp(name)
		case outdated:
			if d.root.Remove(name) == nil {
				d.stats.Swept++
			}
		}
	})
}

func (d *Dir) sweepTemp(name string) {
	f, err := d.root.OpenFile(name, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if same, err := d.lock(f, name); err == nil && same && d.root.Remove(name) == nil {
		d.stats.Swept++
	}
}

// evict deletes the files used longest ago until what is left fits, but not keep.
func (d *Dir) evict(keep string) error {
	type file struct {
		name string
		used time.Time
		cost int64
	}
	var files []file
	total := int64(0)
	err := d.each(func(name string, k kindOf, info fs.FileInfo) {
		if k == finished {
			files = append(files, file{name, info.ModTime(), max(info.Size(), fileCost)})
			total += max(info.Size(), fileCost)
		}
	})
	if err != nil {
		return err
	}
	slices.SortFunc(files, func(a, b file) int {
		return cmp.Or(a.used.Compare(b.used), cmp.Compare(a.name, b.name))
	})
	for _, f := range files {
		if total <= d.maxBytes {
			break
		}
		if f.name == keep {
			continue
		}
		if err := d.root.Remove(f.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("make room in index directory: %w", err)
		}
		total -= f.cost
		d.stats.Evicted++
		d.release(f.name)
	}
	return nil
}

// release closes the index of a file that is gone, unless it is in use: what is open
// takes room on the disk.
func (d *Dir) release(name string) {
	id, _, _ := strings.Cut(name, ".")
	if h := d.handles[id]; h != nil && h.refs == 0 && name == indexName(id) {
		d.drop(h)
	}
}
