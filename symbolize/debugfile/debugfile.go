// SPDX-License-Identifier: Apache-2.0

// Package debugfile finds the symbols and the DWARF that were taken out of a file:
// in files of their own, found by build ID or .gnu_debuglink, with the files those
// refer to in turn (dwz, split DWARF), and in the file's .gnu_debugdata.
//
// What names these files comes from programs and containers that nobody vouches for.
// Paths are resolved inside the root they belong to, only regular files are opened,
// and a file counts only if its build ID is that of the file it belongs to.
package debugfile

import (
	"cmp"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/objfile"
)

// Source is where something was found.
type Source uint8

// The sources, in the order they are tried.
const (
	SourceSelf       Source = iota // in the file that was asked about
	SourceBuildID                  // in a debug directory, by build ID
	SourceLink                     // where .gnu_debuglink or .gnu_debugaltlink says
	SourceDWZ                      // in the .dwz directory of a debug directory
	SourceDebuginfod               // in the cache of what debuginfod servers sent
	SourceMini                     // in .gnu_debugdata of the file that was asked about
	SourceBeside                   // a package of split DWARF beside the file
	numSources
)

var sourceNames = [numSources]string{"file", "build-id", "debuglink", "dwz", "debuginfod", "minidebuginfo", "beside"}

// String returns a word fit for a metric's label.
func (s Source) String() string {
	if s < numSources {
		return sourceNames[s]
	}
	return "unknown"
}

// Cache is what debuginfod servers have sent. It does not wait for a network.
type Cache interface {
	// Cached opens the file with the build ID, hexadecimal. The error wraps
	// fs.ErrNotExist if there is none.
	Cached(buildID string) (*os.File, error)
}

// Config bounds what a Finder reads. The zero value is fit for use.
type Config struct {
	// Dirs are the debug directories below each root; nil means /usr/lib/debug.
	Dirs []string
	// Extra are debug directories of this host, tried before all roots.
	Extra []string
	// Cache is tried after all roots, unless nil.
	Cache Cache
	// TempDir is where what was compressed goes, in files without a name; "" means
	// os.TempDir.
	TempDir string
	// MaxBytes is the largest file taken; 0 means 4 GiB.
	MaxBytes int64
	// MaxCRCBytes is the largest file whose checksum is computed, where there is no
	// build ID to tell that it is the right one; 0 means 256 MiB.
	MaxCRCBytes int64
	// MaxMiniBytes bounds one decompressed .gnu_debugdata, 0 meaning 64 MiB, and
	// four times as much all that are open.
	MaxMiniBytes int64
}

// Finder finds debug files. It is safe for concurrent use.
type Finder struct {
	c     Config
	mini  atomic.Int64 // bytes of .gnu_debugdata open
	found [numSources]atomic.Uint64
	miss  [numReasons]atomic.Uint64
}

// New returns a Finder.
func New(c Config) *Finder {
	if c.Dirs == nil {
		c.Dirs = []string{"/usr/lib/debug"}
	}
	c.TempDir = cmp.Or(c.TempDir, os.TempDir())
	c.MaxBytes = cmp.Or(c.MaxBytes, 4<<30)
	c.MaxCRCBytes = cmp.Or(c.MaxCRCBytes, 256<<20)
	c.MaxMiniBytes = cmp.Or(c.MaxMiniBytes, 64<<20)
	return &Finder{c: c}
}

// File is a file found.
type File struct {
	// Object is read from Handle, but for SourceSelf, where it is the object that
	// was asked about and Handle is nil.
	Object *objfile.Object
	Handle *os.File
	Source Source
	// Path is where the file is below Root; what was decompressed has the path of
	// what it came from.
	Root, Path string
	// Foreign says that others than root of this host may have written the file:
	// anyone can claim any build ID, so it counts only for those who see the same
	// files.
	Foreign bool

	finder *Finder
	stat   unix.Stat_t
	mini   int64 // bytes to give back to finder
	once   sync.Once
	err    error
}

// Close closes the file. It may be called more than once, and for nil.
func (f *File) Close() error {
	if f == nil || f.Handle == nil {
		return nil
	}
	f.once.Do(func() {
		f.err = f.Handle.Close()
		f.finder.mini.Add(-f.mini)
	})
	return f.err
}

// Changed reports, and counts, that the file was written to or truncated since it was
// found: what has been read of it is not to be kept. One that was replaced by another
// under its name has not changed. A file found in the one asked
// about never changes; that one is for its owner to check.
func (f *File) Changed() bool {
	if f == nil || f.Handle == nil || f.Source == SourceMini {
		return false
	}
	var now unix.Stat_t
	if err := unix.Fstat(int(f.Handle.Fd()), &now); err == nil &&
		now.Size == f.stat.Size && now.Mtim == f.stat.Mtim {
		return false
	}
	f.finder.miss[ReasonChanged].Add(1)
	return true
}

// Found is what was found for one file. The files are the caller's.
type Found struct {
	// Symbols has a .symtab, and Debug has .debug_info. Either may be nil, and they
	// may be the same.
	Symbols, Debug *File
	// Alt is the supplementary file Debug refers to (dwz), and Package its split
	// units (.dwp).
	Alt, Package *File
	// Wanted are the build IDs, hexadecimal, of what is missing and may be had from
	// a debuginfod server.
	Wanted []string
	// Missing says why what was tried is not among the above, in the order tried.
	Missing []Miss

	units *search // for OpenDWO
}

// Close closes all files.
func (f *Found) Close() error {
	if f.units != nil {
		f.units.close()
	}
	var first error
	for _, file := range []*File{f.Symbols, f.Debug, f.Alt, f.Package} {
		first = cmp.Or(first, file.Close())
	}
	return first
}

// Changed reports whether one of the files has changed; see File.Changed.
func (f *Found) Changed() bool {
	changed := false
	for _, file := range []*File{f.Symbols, f.Debug, f.Alt, f.Package} {
		changed = file.Changed() || changed
	}
	return changed
}

// Find finds all there is to know of the code of o. path is where o is below the
// first of roots, which are directories that stand for the root directory, such as
// /proc/PID/root; they are tried in order. It reads headers and checksums, not
// debugging information, and waits for disks but for no network.
func (f *Finder) Find(o *objfile.Object, path string, roots []string) *Found {
	s := f.search(o, path, roots)
	s.debugFiles(func() bool { return s.found.Debug != nil })
	s.miniDebugInfo()
	s.altFile()
	s.packageFile()
	s.found.units = s
	return s.found
}

// Symbols is Find for what has function names alone: only Found.Symbols is set, and
// nothing is opened if o has a .symtab itself.
func (f *Finder) Symbols(o *objfile.Object, path string, roots []string) *Found {
	s := f.search(o, path, roots)
	defer s.close()
	s.debugFiles(func() bool { return s.found.Symbols != nil })
	s.miniDebugInfo()
	if s.found.Debug != s.found.Symbols {
		s.drop(s.found.Debug)
	}
	s.found.Debug = nil
	return s.found
}
