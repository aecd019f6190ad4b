// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"os"
	"sync"
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
	handle *os.File // nil for the vDSO
	object *objfile.Object
	binary *symbolize.Binary
	// table is nil when the file has no unwind information, or no room was left.
	table    *unwinder.InstalledTable
	tableErr error
	notELF   bool // memory shared through a file: code made at run time

	path    string
	buildID string

	mu     sync.Mutex // guards frames
	frames map[stack.LinkAddr]*pprofexport.Frame
}

// files knows every object file seen, by what the kernel calls it and by build
// ID. Methods are safe for concurrent use; opening is serialized.
type files struct {
	unwinder *unwinder.Unwinder
	table    *process.Table
	logger   log.Logger

	mu      sync.Mutex // guards what follows
	byID    map[process.FileID]*file
	byBuild map[objfile.BuildID]*file
	open    int
	vdso    *file
}

func newFiles(u *unwinder.Unwinder, t *process.Table, logger log.Logger) *files {
	return &files{
		unwinder: u, table: t, logger: logger,
		byID:    make(map[process.FileID]*file),
		byBuild: make(map[objfile.BuildID]*file),
	}
}

// known returns the file of a mapping if it has been opened, or nil.
func (f *files) known(m *process.Mapping) *file {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m.Kind == process.KindVDSO {
		return f.vdso
	}
	return f.byID[m.File]
}

// get returns the file of a mapping, opening it and building its unwind table
// if that has not been done. It is nil for mappings without a file.
func (f *files) get(p *process.Process, m *process.Mapping) (found *file, fresh bool) {
	if found := f.known(m); found != nil {
		return found, false
	}
	if m.Kind != process.KindFile && m.Kind != process.KindMemfd {
		return nil, false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if found := f.byID[m.File]; found != nil {
		return found, false
	}
	began := time.Now()
	found = f.load(p, m)
	level.Debug(f.logger).Log("msg", "opened file", "path", found.path, "build_id", found.buildID, "pid", p.PID,
		"took", time.Since(began), "err", errors.Join(found.err, found.tableErr))
	f.byID[m.File] = found
	return found, true
}

func (f *files) load(p *process.Process, m *process.Mapping) *file {
	fail := func(err error) *file { return &file{err: err, path: m.Path} }
	if f.open >= maxOpenFiles {
		return fail(errTooManyFiles)
	}
	handle, verified, err := f.table.Open(p, m)
	if err != nil {
		return fail(err)
	}
	info, err := handle.Stat()
	if err != nil {
		handle.Close()
		return fail(err)
	}
	object, err := objfile.Open(handle, info.Size())
	if err == nil && !verified && m.File.BuildID != "" && object.BuildID.String() != fmt.Sprintf("%x", m.File.BuildID) {
		err = fmt.Errorf("%s was replaced: build ID %s, mapped is %x", m.Path, object.BuildID, m.File.BuildID)
	}
	if err != nil {
		handle.Close()
		bad := fail(err)
		bad.notELF = errors.Is(err, objfile.ErrNotELF)
		return bad
	}
	if same := f.byBuild[object.BuildID]; same != nil {
		handle.Close()
		return same
	}
	f.open++
	loaded := f.adopt(object, m.Path)
	loaded.handle = handle
	f.byBuild[object.BuildID] = loaded
	return loaded
}

// preload builds the table of a program that is about to be started, so that
// its first samples need not wait for it. It fails silently: the program may be
// a script, and is opened again in any case.
func (f *files) preload(path string) {
	handle, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	info, err := handle.Stat()
	if err != nil || !info.Mode().IsRegular() {
		handle.Close()
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	object, err := objfile.Open(handle, info.Size())
	if err != nil || f.byBuild[object.BuildID] != nil {
		handle.Close()
		return
	}
	loaded := f.adopt(object, path)
	loaded.handle = handle
	f.byBuild[object.BuildID] = loaded
	f.open++
}

// adopt makes a file of an open object and installs its unwind table.
func (f *files) adopt(object *objfile.Object, path string) *file {
	loaded := &file{
		object:  object,
		binary:  &symbolize.Binary{ID: object.BuildID.String(), Object: object},
		path:    path,
		buildID: object.BuildID.String(),
		frames:  make(map[stack.LinkAddr]*pprofexport.Frame),
	}
	if object.BuildID.Kind == objfile.BuildIDHash {
		loaded.buildID = "" // ours alone: no other tool could use it
	}
	table, err := unwind.Build(object)
	if table != nil && len(table.Pieces) > 0 {
		loaded.table, err = f.unwinder.InstallTable(table)
	}
	loaded.tableErr = err
	return loaded
}

// addVDSO makes the vDSO, which every process shares, known.
func (f *files) addVDSO(object *objfile.Object) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.vdso = f.adopt(object, "[vdso]")
}

// close gives up every open file.
func (f *files) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for _, one := range f.byBuild {
		if one.handle != nil {
			errs = append(errs, one.handle.Close())
			one.handle = nil
		}
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
