// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/bpf/unwinder"
	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/pprofexport"
	"github.com/lowflame/lowflame/process"
	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/symbolize"
	"github.com/lowflame/lowflame/symbolize/debugfile"
	"github.com/lowflame/lowflame/unwind"
)

// errTooManyFiles is kept as the reason of a file that was not opened.
var errTooManyFiles = errors.New("too many files open already")

// file is one object file, opened when a sample first needs it and kept open:
// its process may be gone by the time names are looked up.
type file struct {
	// err says why object is nil. Such a file stays known, so that it is not
	// tried again for every sample.
	err    error
	handle *os.File        // nil for the vDSO
	debug  *debugfile.File // with the symbols of object, nil if it has its own or none
	object *objfile.Object
	binary *symbolize.Binary
	// table is nil when the file has no unwind information, or no room was left.
	// One that is partial is replaced when a walk ends for that.
	table    atomic.Pointer[unwinder.InstalledTable]
	tableErr error
	looked   bool // the table has been completed, or could not be
	notELF   bool // memory shared through a file: code made at run time

	path    string
	buildID string
	roots   []string // where what belongs to it is looked for

	mu     sync.Mutex // guards frames
	frames map[stack.LinkAddr]*pprofexport.Frame
}

// identity is what a file is, whatever name or process led to it.
type identity struct {
	dev, ino    uint64
	size, mtime int64
}

// files knows every object file seen. Methods are safe for concurrent use;
// opening is serialized.
//
// The kernel names a mapped file by inode, or by the build ID the file claims.
// Anyone can claim any build ID, so what one process maps under it counts for
// another only where nobody but root can have put the file there.
type files struct {
	unwinder *unwinder.Unwinder
	table    *process.Table
	debug    *debugfile.Finder
	logger   log.Logger
	limit    int // open files

	mu sync.Mutex // guards what follows
	// shared holds files by what the kernel calls them in any process, private
	// those that count for one image of a process only, by process.Process.ID.
	shared  map[process.FileID]*file
	private map[uint64]map[process.FileID]*file
	// familiar holds what private files that were opened are called.
	familiar map[process.FileID]struct{}
	byID     map[identity]*file
	ended    []endedImage // images in private whose process has ended, oldest first
	vdso     *file
	debugs   int // files of symbols open
}

type endedImage struct{ id, until uint64 }

func newFiles(u *unwinder.Unwinder, t *process.Table, logger log.Logger) *files {
	return &files{
		unwinder: u, table: t, debug: debugfile.New(debugfile.Config{}), logger: logger, limit: fileLimit(),
		shared:   make(map[process.FileID]*file),
		private:  make(map[uint64]map[process.FileID]*file),
		familiar: make(map[process.FileID]struct{}),
		byID:     make(map[identity]*file),
	}
}

// fileLimit leaves half of the descriptors this process may have to all else.
func fileLimit() int {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 256
	}
	return int(min(r.Cur/2, maxOpenFiles))
}

// known returns the file of a mapping if it has been opened, or nil.
func (f *files) known(p *process.Process, m *process.Mapping) *file {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lookup(p, m)
}

// expect is known for a process that is about to run: a file that one before had
// opened, and that counts for one image only, is opened for this one at once.
func (f *files) expect(p *process.Process, m *process.Mapping) *file {
	f.mu.Lock()
	found := f.lookup(p, m)
	_, again := f.familiar[m.File]
	f.mu.Unlock()
	if found == nil && again {
		found, _ = f.get(p, m)
	}
	return found
}

// inherit makes known what a process has mapped since its parent forked it: it is
// what it was there, whatever root the child has by now.
func (f *files) inherit(child, parent *process.Process) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range child.Mappings {
		m := &child.Mappings[i]
		if same := parent.Find(m.Begin); same == nil || *same != *m || f.lookup(child, m) != nil {
			continue
		}
		if one := f.lookup(parent, m); one != nil {
			f.keep(child, m, one)
		}
	}
}

// keep makes a file known for one image only. f.mu is held.
func (f *files) keep(p *process.Process, m *process.Mapping, one *file) {
	if f.private[p.ID] == nil {
		f.private[p.ID] = make(map[process.FileID]*file)
	}
	f.private[p.ID][m.File] = one
}

func (f *files) lookup(p *process.Process, m *process.Mapping) *file {
	if m.Kind == process.KindVDSO {
		return f.vdso
	}
	if one := f.private[p.ID][m.File]; one != nil {
		return one
	}
	if m.File.BuildID != "" && (p.OwnRoot || p.Inherited) {
		return nil
	}
	return f.shared[m.File]
}

// get returns the file of a mapping, opening it and building its unwind table
// if that has not been done. It is nil for mappings without a file.
func (f *files) get(p *process.Process, m *process.Mapping) (found *file, fresh bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if found := f.lookup(p, m); found != nil {
		return found, false
	}
	if m.Kind != process.KindFile && m.Kind != process.KindMemfd {
		return nil, false
	}
	began := time.Now()
	found, share := f.load(p, m)
	level.Debug(f.logger).Log("msg", "opened file", "path", found.path, "build_id", found.buildID, "pid", p.PID,
		"took", time.Since(began), "err", errors.Join(found.err, found.tableErr))
	if share {
		f.shared[m.File] = found
		return found, true
	}
	f.keep(p, m, found)
	if found.object != nil && len(f.familiar) < maxOpenFiles {
		f.familiar[m.File] = struct{}{}
	}
	return found, true
}

// load opens the file behind a mapping. share says that it is what every
// process maps under that name: the inode agrees, or only root can have put a
// file with that build ID there, and not in a root of its own.
func (f *files) load(p *process.Process, m *process.Mapping) (loaded *file, share bool) {
	if len(f.byID)+f.debugs >= f.limit {
		return &file{err: errTooManyFiles, path: m.Path}, false
	}
	handle, verified, err := f.table.Open(p, m)
	if err != nil {
		return &file{err: err, path: m.Path}, false
	}
	loaded, stat, err := f.open(handle, m.Path, debugfile.Roots("/proc", p.PID, m.Path, handle))
	if err == nil && !verified && m.File.BuildID != "" && loaded.object.BuildID.String() != fmt.Sprintf("%x", m.File.BuildID) {
		err = fmt.Errorf("%s was replaced: build ID %s, mapped is %x", m.Path, loaded.object.BuildID, m.File.BuildID)
	}
	if err != nil {
		return &file{err: err, path: m.Path, notELF: errors.Is(err, objfile.ErrNotELF)}, false
	}
	if m.File.BuildID == "" {
		return loaded, verified
	}
	// While Inherited, OwnRoot is that of the parent.
	return loaded, stat.Uid == 0 && !p.OwnRoot && !p.Inherited
}

// open returns the file that handle is open on, the same one each time. It
// takes the handle. roots is where its debug file is looked for.
func (f *files) open(handle *os.File, path string, roots []string) (*file, *unix.Stat_t, error) {
	var stat unix.Stat_t
	err := unix.Fstat(int(handle.Fd()), &stat)
	if err == nil && stat.Mode&unix.S_IFMT != unix.S_IFREG {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	id := identity{stat.Dev, stat.Ino, stat.Size, stat.Mtim.Nano()}
	if same := f.byID[id]; same != nil && err == nil {
		return same, &stat, handle.Close()
	}
	var object *objfile.Object
	if err == nil {
		object, err = objfile.Open(handle, stat.Size)
	}
	if err != nil {
		return nil, nil, errors.Join(err, handle.Close())
	}
	loaded := f.adopt(object, path, fmt.Sprint(id))
	loaded.handle = handle
	loaded.roots = roots
	f.addDebug(loaded, roots)
	f.byID[id] = loaded
	return loaded, &stat, nil
}

// preload builds the table of a program that is about to be started, so that
// its first samples need not wait for it. The program may as well be a script:
// then there is nothing to prepare.
func (f *files) preload(path string) {
	handle, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, _, err := f.open(handle, path, []string{"/"}); err != nil {
		level.Debug(f.logger).Log("msg", "not preloaded", "path", path, "err", err)
	}
}

// retire notes that an image has ended; forget drops what only it needed.
func (f *files) retire(p *process.Process) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = append(f.ended, endedImage{p.ID, p.Until})
}

// forget drops what images that ended before the given time needed,
// CLOCK_MONOTONIC ns.
func (f *files) forget(before uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for n < len(f.ended) && f.ended[n].until < before {
		delete(f.private, f.ended[n].id)
		n++
	}
	f.ended = append(f.ended[:0], f.ended[n:]...)
}

// adopt makes a file of an open object and installs its unwind table. id is
// what names of its addresses are kept under.
func (f *files) adopt(object *objfile.Object, path, id string) *file {
	loaded := &file{
		object:  object,
		binary:  &symbolize.Binary{ID: id, Object: object},
		path:    path,
		buildID: object.BuildID.String(),
		frames:  make(map[stack.LinkAddr]*pprofexport.Frame),
	}
	if object.BuildID.Kind == objfile.BuildIDHash {
		loaded.buildID = "" // ours alone: no other tool could use it
	}
	table, err := unwind.BuildFirst(object)
	if table != nil && len(table.Pieces) > 0 {
		var in *unwinder.InstalledTable
		in, err = f.unwinder.InstallTable(table)
		loaded.table.Store(in)
	}
	loaded.tableErr = err
	return loaded
}

// addVDSO makes the vDSO, which every process shares, known.
func (f *files) addVDSO(object *objfile.Object) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.vdso = f.adopt(object, "[vdso]", "[vdso]")
}

// close gives up every open file.
func (f *files) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for _, one := range f.byID {
		if one.handle != nil {
			errs = append(errs, one.handle.Close())
			one.handle = nil
		}
		errs = append(errs, one.debug.Close())
		one.debug = nil
	}
	return errors.Join(errs...)
}

// bias returns the load bias of a mapping of the file: process address minus
// link-time address.
func (f *file) bias(m *process.Mapping) (uint64, bool) {
	if f.object == nil {
		return 0, false
	}
	return f.object.Bias(m.Begin, m.End, m.Off)
}
