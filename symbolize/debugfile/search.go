// SPDX-License-Identifier: Apache-2.0

package debugfile

import (
	"debug/elf"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/internal/hostile"
	"github.com/lowflame/lowflame/objfile"
)

// search is one search for what belongs to a file.
type search struct {
	f     *Finder
	o     *objfile.Object
	path  string // of o, below a root
	roots []root
	found *Found
}

// root is a directory that stands for the root directory.
type root struct {
	fd   int
	name string
	host bool // it is the root directory of this host
}

// Roots returns where to look for what belongs to a file that process pid has mapped
// under a path: in the root directory of the process, which is below proc, the proc
// file system, and then in that of this host. A file that the host has under the same
// path is the host's, and what a container keeps beside it is not to be believed.
func Roots(proc string, pid uint32, path string, file *os.File) []string {
	const host = "/"
	own := proc + "/" + strconv.FormatUint(uint64(pid), 10) + "/root"
	var is, there unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &is); err != nil {
		return []string{host}
	}
	if err := unix.Stat(path, &there); err == nil && sameFile(&is, &there) {
		return []string{host}
	}
	return []string{own, host}
}

func (f *Finder) search(o *objfile.Object, file string, roots []string) *search {
	s := &search{f: f, o: o, path: file, found: &Found{}}
	var host unix.Stat_t
	hostErr := unix.Stat("/", &host)
	var seen []unix.Stat_t
	for _, name := range roots {
		fd, err := unix.Open(name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			s.miss(SourceBuildID, name, fmt.Errorf("open root: %w", err))
			continue
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || slices.ContainsFunc(seen, func(t unix.Stat_t) bool { return sameFile(&st, &t) }) {
			unix.Close(fd)
			continue
		}
		seen = append(seen, st)
		s.roots = append(s.roots, root{fd, name, hostErr == nil && sameFile(&st, &host)})
	}
	return s
}

func sameFile(a, b *unix.Stat_t) bool { return a.Dev == b.Dev && a.Ino == b.Ino }

func (s *search) close() {
	for _, r := range s.roots {
		unix.Close(r.fd)
	}
	s.roots = nil
}

// miss notes why a place has not what was looked for.
func (s *search) miss(source Source, place string, err error) {
	reason := reasonOf(err)
	s.f.miss[reason].Add(1)
	if len(s.found.Missing) < maxMisses {
		s.found.Missing = append(s.found.Missing, Miss{source, place, reason, err})
	}
}

// maxMisses is more than there are places, but for units of split DWARF.
const maxMisses = 64

// open opens a file below a root. What is wrong with it is noted.
func (s *search) open(source Source, r root, name string) *File {
	place := path.Join(r.name, name)
	fd, st, err := hostile.OpenRegular(r.fd, name, hostile.InRoot)
	if err != nil {
		s.miss(source, place, err)
		return nil
	}
	file := s.adopt(source, os.NewFile(uintptr(fd), place), &st)
	if file == nil {
		return nil
	}
	file.Root, file.Path = r.name, name
	file.Foreign = !r.host || st.Uid != 0 || st.Mode&0o022 != 0
	return file
}

// adopt reads the headers of an open file, which it takes.
func (s *search) adopt(source Source, handle *os.File, st *unix.Stat_t) *File {
	var o *objfile.Object
	err := error(nil)
	if st.Size > s.f.c.MaxBytes {
		err = fmt.Errorf("%d bytes: %w", st.Size, objfile.ErrTooLarge)
	} else {
		o, err = objfile.Open(handle, st.Size)
	}
	if err != nil {
		s.miss(source, handle.Name(), err)
		handle.Close()
		return nil
	}
	return &File{Object: o, Handle: handle, Source: source, Path: handle.Name(), finder: s.f, stat: *st}
}

// drop closes a file that is not kept.
func (s *search) drop(file *File) { _ = file.Close() }

// debugFiles looks for DWARF and symbols in the file itself and in separate files
// until enough says so.
func (s *search) debugFiles(enough func() bool) {
	self := &File{Object: s.o, Source: SourceSelf, Path: s.path, finder: s.f}
	if s.keep(self); enough() {
		return
	}
	for _, dir := range s.f.c.Extra {
		s.inDir(dir, func(r root) {
			if name := buildIDPath("/", s.o.BuildID); name != "" {
				s.take(SourceBuildID, r, name, link{})
			}
		})
		if enough() {
			return
		}
	}
	paths, l := s.places()
	for _, r := range s.roots {
		for _, p := range paths {
			if s.take(p.source, r, p.name, l); enough() {
				return
			}
		}
	}
	if id := s.o.BuildID; id.Kind == objfile.BuildIDGNU {
		file := s.cached(id.ID)
		if s.check(file, link{}) {
			s.keep(file)
		}
	}
	if !enough() {
		s.want(s.o.BuildID)
	}
}

// candidate is a path below a root where a debug file may be.
type candidate struct {
	source Source
	name   string
}

// places returns where a debug file may be: by build ID, then by link.
func (s *search) places() ([]candidate, link) {
	var paths []candidate
	for _, dir := range s.f.c.Dirs {
		if name := buildIDPath(dir, s.o.BuildID); name != "" {
			paths = append(paths, candidate{SourceBuildID, name})
		}
	}
	l, err := readLink(s.o)
	if err != nil {
		if !errors.Is(err, objfile.ErrNotFound) {
			s.miss(SourceLink, s.path, fmt.Errorf("read .gnu_debuglink: %w", err))
		}
		return paths, link{}
	}
	for _, name := range s.linkPaths(l.name) {
		paths = append(paths, candidate{SourceLink, name})
	}
	return paths, l
}

// inDir lets try look below a debug directory of this host.
func (s *search) inDir(dir string, try func(root)) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		s.miss(SourceBuildID, dir, err)
		return
	}
	defer unix.Close(fd)
	try(root{fd, dir, true})
}

// buildIDPath returns the path of the debug file with a build ID, or "".
func buildIDPath(dir string, id objfile.BuildID) string {
	if id.Kind != objfile.BuildIDGNU || len(id.ID) <= 2*(minBuildID-1) {
		return ""
	}
	return path.Join(dir, ".build-id", id.ID[:2], id.ID[2:]+".debug")
}

// linkPaths returns where a file that .gnu_debuglink names may be, in the order GDB
// looks. The name may be a relative or an absolute path.
func (s *search) linkPaths(name string) []string {
	dir := path.Dir(path.Join("/", s.path))
	var paths []string
	if path.IsAbs(name) {
		paths, dir = []string{name}, "/"
	} else {
		paths = []string{joinRaw(dir, name), joinRaw(path.Join(dir, ".debug"), name)}
	}
	for _, d := range s.f.c.Dirs {
		paths = append(paths, joinRaw(path.Join(d, dir), name))
	}
	return paths
}

// joinRaw leaves ".." in name for the kernel to resolve: what it follows may be a
// symbolic link.
func joinRaw(dir, name string) string { return strings.TrimSuffix(dir, "/") + "/" + name }

// take keeps the file at a place if it is the right one and of use.
func (s *search) take(source Source, r root, name string, l link) {
	if file := s.open(source, r, name); s.check(file, l) {
		s.keep(file)
	}
}

// keep makes file what is found, as far as something is missing that it has, and
// closes it otherwise.
func (s *search) keep(file *File) {
	used := false
	if s.found.Debug == nil && hasSection(file.Object, "debug_info") {
		s.found.Debug, used = file, true
	}
	if s.found.Symbols == nil {
		if _, err := file.Object.Symbols(objfile.SymTab); err == nil {
			s.found.Symbols, used = file, true
		}
	}
	switch {
	case used:
		s.f.found[file.Source].Add(1)
	case file.Source != SourceSelf:
		s.miss(file.Source, path.Join(file.Root, file.Path), errEmpty)
		s.drop(file)
	}
}

// hasSection reports whether o has the bytes of a DWARF section, compressed or not.
func hasSection(o *objfile.Object, name string) bool {
	for _, prefix := range []string{".", ".z"} {
		if sec, ok := o.Section(prefix + name); ok && sec.Type != elf.SHT_NOBITS && sec.Size > 0 {
			return true
		}
	}
	return false
}

// check reports whether file is what was taken out of s.o: by build ID or, if s.o
// has none, by the checksum of l. If not, it closes file.
func (s *search) check(file *File, l link) bool {
	if file == nil {
		return false
	}
	err := error(nil)
	switch want, got := s.o.BuildID, file.Object.BuildID; {
	case file.Object.Machine != s.o.Machine:
		err = fmt.Errorf("for machine %v, not %v: %w", file.Object.Machine, s.o.Machine, errOther)
	case want.Kind != objfile.BuildIDHash && got != want:
		err = fmt.Errorf("build ID %s, not %s: %w", got, want, errOther)
	case want.Kind == objfile.BuildIDHash:
		err = s.checksum(file, l)
	}
	if err != nil {
		s.miss(file.Source, path.Join(file.Root, file.Path), err)
		s.drop(file)
		return false
	}
	return true
}

// maxCRCTime bounds how long a checksum may take on a slow disk.
const maxCRCTime = 5 * time.Second

// checksum compares the checksum of the whole file with that in l.
func (s *search) checksum(file *File, l link) error {
	if l.name == "" {
		return fmt.Errorf("no build ID to go by: %w", errOther)
	}
	r := file.Object.File()
	if r.Size() > s.f.c.MaxCRCBytes {
		return fmt.Errorf("checksum of %d bytes: %w", r.Size(), objfile.ErrTooLarge)
	}
	end := time.Now().Add(maxCRCTime)
	buf := make([]byte, 256<<10)
	var sum uint32
	for read := int64(0); read < r.Size(); {
		n, err := r.Read(buf)
		sum = crc32.Update(sum, crc32.IEEETable, buf[:n])
		read += int64(n)
		switch {
		case err == io.EOF && read < r.Size():
			return io.ErrUnexpectedEOF
		case err != nil && err != io.EOF:
			return err
		case time.Now().After(end):
			return fmt.Errorf("checksum takes too long: %w", objfile.ErrTooLarge)
		}
	}
	if sum != l.crc {
		return fmt.Errorf("checksum %#08x, not %#08x: %w", sum, l.crc, errOther)
	}
	return nil
}

// cached returns what a debuginfod server once sent.
func (s *search) cached(id string) *File {
	if s.f.c.Cache == nil {
		return nil
	}
	handle, err := s.f.c.Cache.Cached(id)
	if err != nil {
		s.miss(SourceDebuginfod, id, err)
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(handle.Fd()), &st); err != nil {
		s.miss(SourceDebuginfod, id, err)
		handle.Close()
		return nil
	}
	return s.adopt(SourceDebuginfod, handle, &st)
}

// want notes that a server may have what was not found.
func (s *search) want(id objfile.BuildID) {
	if id.Kind == objfile.BuildIDGNU && len(id.ID) >= 2*minBuildID {
		s.found.Wanted = append(s.found.Wanted, id.ID)
	}
}
