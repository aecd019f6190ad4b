// SPDX-License-Identifier: Apache-2.0

package debugfile

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/lowflame/lowflame/objfile"
)

// altFile finds the supplementary file that found.Debug refers to.
func (s *search) altFile() {
	debug := s.found.Debug
	if debug == nil {
		return
	}
	alt, err := readAltLink(debug.Object)
	if errors.Is(err, objfile.ErrNotFound) {
		return
	}
	if err != nil {
		s.miss(SourceLink, path.Join(debug.Root, debug.Path), fmt.Errorf("read .gnu_debugaltlink: %w", err))
		return
	}
	id := objfile.BuildID{Kind: objfile.BuildIDGNU, ID: alt.buildID}
	if s.altIn(alt, id) {
		return
	}
	if file := s.cached(id.ID); s.checkAlt(file, id) {
		s.found.Alt = file
		return
	}
	s.want(id)
}

// altIn looks on disks.
func (s *search) altIn(alt altLink, id objfile.BuildID) bool {
	try := func(source Source, r root, name string) bool {
		file := s.open(source, r, name)
		if s.checkAlt(file, id) {
			s.found.Alt = file
		}
		return s.found.Alt != nil
	}
	for _, dir := range s.f.c.Extra {
		s.inDir(dir, func(r root) {
			if !try(SourceBuildID, r, buildIDPath("/", id)) {
				try(SourceDWZ, r, path.Join("/.dwz", path.Base(alt.path)))
			}
		})
		if s.found.Alt != nil {
			return true
		}
	}
	for _, r := range s.roots {
		for _, name := range s.altPaths(alt.path, r) {
			if try(SourceLink, r, name) {
				return true
			}
		}
		for _, dir := range s.f.c.Dirs {
			if try(SourceBuildID, r, buildIDPath(dir, id)) || try(SourceDWZ, r, path.Join(dir, ".dwz", path.Base(alt.path))) {
				return true
			}
		}
	}
	return false
}

// altPaths returns where a supplementary file may be below r. A relative path counts
// from the directory of the file that has it.
func (s *search) altPaths(name string, r root) []string {
	if path.IsAbs(name) {
		return []string{name}
	}
	debug := s.found.Debug
	from := s.path
	if debug.Source == SourceBuildID || debug.Source == SourceLink {
		if debug.Root != r.name {
			return nil
		}
		from = debug.Path
	}
	return []string{joinRaw(path.Dir(path.Join("/", from)), name)}
}

func (s *search) checkAlt(file *File, id objfile.BuildID) bool {
	if file == nil {
		return false
	}
	if file.Object.BuildID != id {
		s.miss(file.Source, path.Join(file.Root, file.Path), fmt.Errorf("build ID %s, not %s: %w", file.Object.BuildID, id, errOther))
		s.drop(file)
		return false
	}
	s.f.found[file.Source].Add(1)
	return true
}

// packageFile finds split units packed in one file: beside the program, or beside its
// debug file. What is in it is told by the identifiers of its units.
func (s *search) packageFile() {
	debug := s.found.Debug
	if debug == nil {
		return
	}
	for _, r := range s.roots {
		names := []string{s.path + ".dwp"}
		if debug.Root == r.name && debug.Source != SourceSelf {
			names = append(names, debug.Path+".dwp", strings.TrimSuffix(debug.Path, ".debug")+".dwp")
		}
		for _, name := range names {
			if s.found.Package = s.openSplit(SourceBeside, r, name, "debug_cu_index"); s.found.Package != nil {
				return
			}
		}
	}
}

// openSplit opens a file if it has a section; most programs have none, so that no
// such file is nothing to note.
func (s *search) openSplit(source Source, r root, name, section string) *File {
	before := len(s.found.Missing)
	file := s.open(source, r, name)
	if file == nil {
		if m := s.found.Missing; len(m) > before && m[before].Reason == ReasonAbsent {
			s.found.Missing = m[:before]
			s.f.miss[ReasonAbsent].Add(^uint64(0))
		}
		return nil
	}
	if file.Object.Machine != s.o.Machine || !hasSection(file.Object, section) {
		s.miss(source, path.Join(file.Root, file.Path), errEmpty)
		s.drop(file)
		return nil
	}
	s.f.found[source].Add(1)
	return file
}

// OpenDWO is OpenUnit in the form that package dwarf asks for. The caller calls done
// when it has read the unit.
func (f *Found) OpenDWO(name, compDir string) (o *objfile.Object, done func(), err error) {
	file, err := f.OpenUnit(name, compDir)
	if err != nil {
		return nil, nil, err
	}
	return file.Object, func() { _ = file.Close() }, nil
}

// OpenUnit opens the file of a split unit, as DW_AT_dwo_name and DW_AT_comp_dir give
// them, in the roots of the search, and beside the program. The file is the caller's;
// whether it is the right unit is told by its identifier. The error wraps
// fs.ErrNotExist if there is no such file.
//
// Not safe for concurrent use, and not after Close.
func (f *Found) OpenUnit(name, compDir string) (*File, error) {
	if err := checkName(name); err != nil {
		return nil, fmt.Errorf("open split unit %.64q: %w", name, err)
	}
	if s := f.units; s != nil {
		paths := s.unitPaths(name, compDir)
		for _, r := range s.roots {
			for _, p := range paths {
				if file := s.openSplit(SourceLink, r, p, "debug_info.dwo"); file != nil {
					return file, nil
				}
			}
		}
	}
	return nil, fmt.Errorf("open split unit %.64q: %w", name, fs.ErrNotExist)
}

func (s *search) unitPaths(name, compDir string) []string {
	if path.IsAbs(name) {
		return []string{name}
	}
	var paths []string
	if path.IsAbs(compDir) && checkName(compDir) == nil {
		paths = append(paths, joinRaw(compDir, name))
	}
	dir := path.Dir(path.Join("/", s.path))
	return append(paths, joinRaw(dir, name), joinRaw(dir, path.Base(name)))
}
