// SPDX-License-Identifier: Apache-2.0

package index

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/stack"
)

var (
	// ErrNotBuilt says that a directory has no index of a file.
	ErrNotBuilt = errors.New("no index")
	// ErrBusy says that an index is being built, by this process or another.
	ErrBusy = errors.New("index is being built")
	// ErrBuildID says that a build ID is no file name: hexadecimal digits, lower
	// case, 2 to 128 of them.
	ErrBuildID = errors.New("not a hexadecimal build ID")
	// ErrManyOpen says that all indexes that may be open at once are in use.
	ErrManyOpen = errors.New("too many indexes in use")
)

// FailedError says why there is no index and that there is no point in trying again
// before Until.
type FailedError struct {
	Reason string
	Until  time.Time
}

func (e *FailedError) Error() string { return "index could not be built: " + e.Reason }

// Dir is a directory of indexes by build ID, bounded in bytes. Any number of
// processes may use one at once. Safe for concurrent use.
type Dir struct {
	path     string
	root     *os.Root
	maxBytes int64
	now      func() time.Time

	mu      sync.Mutex // guards what follows
	blocks  *Blocks
	handles map[string]*handle
	tick    uint64
	stats   DirStats
}

// DirStats counts what has happened to a Dir.
type DirStats struct {
	Opened  uint64 // indexes opened
	Missing uint64 // asked for and not there
	Failed  uint64 // asked for and known to fail
	Corrupt uint64 // deleted, because they are damaged
	Evicted uint64 // deleted, because there is no room
	Swept   uint64 // deleted, because they are old or nobody finished them
	Built   uint64 // committed
}

const (
	// maxHandles bounds how many indexes are open at once.
	maxHandles = 128
	// touchEvery is how exactly the time of the last use is kept.
	touchEvery = time.Minute
	// failedFor is how long a failure is remembered.
	failedFor = 24 * time.Hour
	// fileCost is what the smallest file takes of maxBytes.
	fileCost = 4096
)

// handle is an index that is open.
type handle struct {
	x       *Index
	file    *os.File
	ino     uint64
	id      string
	refs    int
	used    uint64
	dropped bool // no longer in Dir.handles
}

// OpenDir opens the directory at path, which it makes, for its owner alone, unless it
// is there. It deletes indexes of older versions and files that no living process is
// writing, and the ones used longest ago if there are more than maxBytes.
func OpenDir(path string, maxBytes int64) (*Dir, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("open index directory: %w", err)
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("open index directory: %w", err)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open index directory: %w", err)
	}
	d := &Dir{path: path, root: root, maxBytes: maxBytes, now: time.Now,
		blocks: NewBlocks(DefaultBlocks), handles: map[string]*handle{}}
	if err := d.checkOwner(); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	if err := d.sweep(); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	if err := d.evict(""); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return d, nil
}

// checkOwner refuses a directory that others may write to: they could put names into
// profiles.
func (d *Dir) checkOwner() error {
	info, err := d.root.Stat(".")
	if err != nil {
		return fmt.Errorf("open index directory: %w", err)
	}
	st, ok := info.Sys().(*unixStat)
	switch {
	case ok && int(st.Uid) != os.Geteuid():
		return fmt.Errorf("open index directory: %s belongs to user %d", d.path, st.Uid)
	case info.Mode().Perm()&0o077 == 0:
		return nil
	}
	if err := d.root.Chmod(".", 0o700); err != nil {
		return fmt.Errorf("open index directory: %w", err)
	}
	return nil
}

// checkID reports whether id may be part of a file name.
func checkID(id string) error {
	ok := len(id) >= 2 && len(id) <= 128
	for i := range len(id) {
		c := id[i]
		ok = ok && (c >= '0' && c <= '9' || c >= 'a' && c <= 'f')
	}
	if !ok {
		return fmt.Errorf("%.140q: %w", id, ErrBuildID)
	}
	return nil
}

func indexName(id string) string  { return fmt.Sprintf("%s.v%d", id, Version) }
func failedName(id string) string { return indexName(id) + failedSuffix }
func tempName(id string) string   { return id + tempSuffix }

// Handle is an index of a Dir. It stays usable until Close, whatever happens to the
// file. Safe for concurrent use.
type Handle struct {
	x    *Index
	d    *Dir
	h    *handle
	once sync.Once
}

// Lookup is Index.Lookup; if the index turns out to be damaged, it is deleted.
func (h *Handle) Lookup(addr stack.LinkAddr, lines []Line) ([]Line, error) {
	lines, err := h.x.Lookup(addr, lines)
	if errors.Is(err, ErrFormat) {
		h.d.damaged(h.h)
	}
	return lines, err
}

// damaged deletes the index of h, unless that has been done.
func (d *Dir) damaged(h *handle) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if h.dropped {
		return
	}
	d.drop(h)
	if info, err := d.root.Lstat(indexName(h.id)); err == nil && inode(info) == h.ino {
		d.discard(h.id)
	}
}

// Open returns the index of the file with buildID. The error is ErrNotBuilt if there
// is none, and a *FailedError if there is a reason; it wraps ErrManyOpen if 128 are
// in use. A damaged index is deleted, and counts as not built.
//
// Opening an index is what counts as use of it; Open it anew from time to time.
func (d *Dir) Open(buildID string) (*Handle, error) {
	if err := checkID(buildID); err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tick++
	info, err := d.root.Lstat(indexName(buildID))
	if h := d.handles[buildID]; h != nil {
		if err != nil || inode(info) == h.ino {
			return d.use(h, info), nil
		}
		d.drop(h) // it has been built anew
	}
	if err != nil {
		return nil, d.missing(buildID, err)
	}
	h, err := d.load(buildID)
	if err != nil {
		return nil, err
	}
	d.stats.Opened++
	return d.use(h, info), nil
}

// use returns a Handle of h and remembers that it is used. info is nil if the file is
// gone.
func (d *Dir) use(h *handle, info fs.FileInfo) *Handle {
	h.refs++
	h.used = d.tick
	if now := d.now(); info != nil && now.Sub(info.ModTime()) > touchEvery {
		// The time of access is not kept everywhere. A failure costs the order
		// of eviction, nothing else.
		_ = d.root.Chtimes(indexName(h.id), now, now)
	}
	return &Handle{x: h.x, d: d, h: h}
}

// missing returns why there is no index.
func (d *Dir) missing(id string, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("open index of %s: %w", id, err)
	}
	if f := d.failure(id); f != nil {
		d.stats.Failed++
		return f
	}
	d.stats.Missing++
	return fmt.Errorf("open index of %s: %w", id, ErrNotBuilt)
}

// load opens the index of id and makes room for its handle.
func (d *Dir) load(id string) (*handle, error) {
	if err := d.closeOldest(); err != nil {
		return nil, err
	}
	f, err := d.root.OpenFile(indexName(id), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, d.missing(id, err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%v: %w", info.Mode(), ErrFormat)
	}
	var x *Index
	if err == nil {
		x, err = Open(f, info.Size(), d.blocks)
	}
	if err != nil {
		f.Close()
		if errors.Is(err, ErrFormat) {
			d.discard(id)
			return nil, fmt.Errorf("open index of %s: %w: %w", id, ErrNotBuilt, err)
		}
		return nil, fmt.Errorf("open index of %s: %w", id, err)
	}
	h := &handle{x: x, file: f, ino: inode(info), id: id}
	d.handles[id] = h
	return h, nil
}

// discard deletes a damaged index.
func (d *Dir) discard(id string) {
	d.stats.Corrupt++
	_ = d.root.Remove(indexName(id))
}

// closeOldest closes the index used longest ago if as many are open as may be.
func (d *Dir) closeOldest() error {
	if len(d.handles) < maxHandles {
		return nil
	}
	var oldest *handle
	for _, h := range d.handles {
		if h.refs == 0 && (oldest == nil || h.used < oldest.used) {
			oldest = h
		}
	}
	if oldest == nil {
		return fmt.Errorf("open index: %d: %w", maxHandles, ErrManyOpen)
	}
	d.drop(oldest)
	return nil
}

// drop forgets h, and closes it unless it is in use.
func (d *Dir) drop(h *handle) {
	delete(d.handles, h.id)
	h.dropped = true
	if h.refs == 0 {
		h.close()
	}
}

func (h *handle) close() {
	h.x.forget()
	h.file.Close()
}

// Close gives the index back. The Dir keeps some open for the next use.
func (h *Handle) Close() error {
	h.once.Do(func() {
		h.d.mu.Lock()
		defer h.d.mu.Unlock()
		h.h.refs--
		if h.h.refs == 0 && h.h.dropped {
			h.h.close()
		}
	})
	return nil
}

// Stats returns what has happened so far.
func (d *Dir) Stats() DirStats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stats
}

// Close closes all indexes that are not in use. The Dir must not be used any more,
// but for closing its Handles.
func (d *Dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, h := range d.handles {
		d.drop(h)
	}
	return d.root.Close()
}
