// SPDX-License-Identifier: Apache-2.0

package dwarf

import (
	"errors"

	"github.com/lowflame/lowflame/internal/hostile"
)

const (
	// maxProgram is the most bytes a line program may have.
	maxProgram = 16 << 20
	// maxFiles bounds the directories and the files of a line program.
	maxFiles = 1 << 18
)

// Content types of entries of directories and files, DWARF 5 §6.2.4.1.
const (
	contentPath      = 1
	contentDirectory = 2
)

// fileEntry is a file or a directory of a line program; its path is not read before
// it is asked for.
type fileEntry struct {
	path value
	dir  uint32
}

// lineTable reads line programs, and tells paths of the files in them. Its memory is
// used again for the next unit.
type lineTable struct {
	u       *unit // whose program it is; nil without one
	buf     []byte
	header  lineHeader
	dirs    []fileEntry
	files   []fileEntry
	formats []fileFormat

	total  uint64   // bytes of programs, of all units
	paths  []string // the Unit.Files to be
	size   int      // bytes of paths
	mapped []uint32 // index in paths by file number; 0: not yet
	byPath map[string]string
	kept   int // bytes in byPath
	joined []byte

	rows      []Line
	sorted    []Line
	sequences []sequence
}

// lineHeader is what a program's header says of its operations.
type lineHeader struct {
	version    uint16
	offSize    uint8
	minLength  uint64
	maxOps     uint64
	lineBase   int64
	lineRange  uint64
	opcodeBase uint8
	lengths    []byte // of the operands of standard opcodes, by opcode-1
	program    []byte
}

type fileFormat struct {
	content uint64
	op      op
}

// reset begins a unit without lines.
func (l *lineTable) reset() {
	l.u = nil
	l.dirs, l.files = l.dirs[:0], l.files[:0]
	l.paths = append(l.paths[:0], "")
	l.mapped, l.size = l.mapped[:0], 0
	l.rows, l.sequences = l.rows[:0], l.sequences[:0]
}

// read reads the line program of u and runs it.
func (l *lineTable) read(u *unit, c *code) error {
	l.reset()
	if !u.hasLines || u.f.line.size == 0 {
		return nil
	}
	s, off := &u.f.line, u.stmtList.v
	b, err := s.view(off, 12)
	if err != nil {
		return err
	}
	n, offSize, err := initialLength(b)
	if err != nil {
		return err
	}
	off += 4
	if offSize == 8 {
		off += 8
	}
	// Hostile units share one program.
	if l.total += n; n > maxProgram || l.total/4 > s.size {
		return errTooMuch
	}
	if l.buf, err = s.readInto(l.buf, off, n); err != nil {
		return err
	}
	l.u = u
	if err := l.readHeader(offSize); err != nil {
		l.reset()
		return err
	}
	return l.run(c)
}

func (l *lineTable) readHeader(offSize uint8) error {
	c := hostile.NewCursor(l.buf)
	h := lineHeader{version: c.Uint16(), offSize: offSize, maxOps: 1}
	if h.version < 2 || h.version > 5 {
		return errMalformed
	}
	if h.version >= 5 && (c.Uint8() != 8 || c.Uint8() != 0) { // size of addresses, of segments
		return errMalformed
	}
	length := offset(&c, offSize)
	if !c.OK() || length > uint64(c.Len()) {
		return errMalformed
	}
	program := c.Off() + int(length)
	h.program = l.buf[program:]
	h.minLength = uint64(c.Uint8())
	if h.version >= 4 {
		h.maxOps = max(uint64(c.Uint8()), 1)
	}
	c.Skip(1) // default_is_stmt
	h.lineBase = int64(int8(c.Uint8()))
	h.lineRange = uint64(c.Uint8())
	h.opcodeBase = c.Uint8()
	if h.opcodeBase > 0 {
		h.lengths = c.Bytes(int(h.opcodeBase) - 1)
	}
	if !c.OK() || h.lineRange == 0 || h.opcodeBase == 0 {
		return errMalformed
	}
	l.header = h
	if h.version >= 5 {
		return errors.Join(l.readEntries(&c, &l.dirs), l.readEntries(&c, &l.files))
	}
	return l.readOldEntries(&c)
}

// readEntries reads the directories or the files of DWARF 5.
func (l *lineTable) readEntries(c *hostile.Cursor, to *[]fileEntry) error {
	l.formats = l.formats[:0]
	for range c.Uint8() {
		content, form := c.Uleb(), c.Uleb()
		o, ok := compile(form, 5, l.header.offSize)
		if !ok || o.lay == layImplicit || o.lay == layIndirect {
			return errMalformed
		}
		l.formats = append(l.formats, fileFormat{content, o})
	}
	n := c.Uleb()
	// Each has a byte at least.
	if !c.OK() || n > uint64(c.Len()) || n > maxFiles || n > 0 && len(l.formats) == 0 {
		return errMalformed
	}
	for range n {
		var e fileEntry
		for _, f := range l.formats {
			v, at := f.op.read(l.buf, c.Off())
			if at < 0 {
				return errMalformed
			}
			c.Seek(at)
			switch f.content {
			case contentPath:
				e.path = value{f.op.form, v}
			case contentDirectory:
				e.dir = uint32(min(v, noFile))
			}
		}
		*to = append(*to, e)
	}
	return nil
}

// readOldEntries reads the directories and the files of DWARF 2 to 4, which count
// from 1.
func (l *lineTable) readOldEntries(c *hostile.Cursor) error {
	l.dirs = append(l.dirs, fileEntry{})
	l.files = append(l.files, fileEntry{})
	for len(l.dirs) < maxFiles {
		at := c.Off()
		if len(c.CString()) == 0 {
			break
		}
		l.dirs = append(l.dirs, fileEntry{path: value{formString, uint64(at)}})
	}
	for len(l.files) < maxFiles {
		e, ok := readOldFile(c)
		if !ok {
			break
		}
		l.files = append(l.files, e)
	}
	if !c.OK() {
		return errMalformed
	}
	return nil
}

// readOldFile reads a file entry; ok is false for the one that ends them.
func readOldFile(c *hostile.Cursor) (e fileEntry, ok bool) {
	e.path = value{formString, uint64(c.Off())}
	if len(c.CString()) == 0 {
		return e, false
	}
	e.dir = uint32(min(c.Uleb(), noFile))
	c.Uleb() // time
	c.Uleb() // size
	return e, c.OK()
}

// file returns the index in paths of a file as the unit counts them; 0 if the unit
// has no such file.
func (l *lineTable) file(n uint64) uint32 {
	if n >= uint64(len(l.files)) || l.u == nil || n == 0 && l.header.version < 5 {
		return 0
	}
	if len(l.mapped) < len(l.files) {
		l.mapped = append(l.mapped, make([]uint32, len(l.files)-len(l.mapped))...)
	}
	if l.mapped[n] == 0 {
		l.mapped[n] = l.place(l.files[n])
	}
	if l.mapped[n] == noFile {
		return 0
	}
	return l.mapped[n]
}

// place appends the path of a file and returns where; noFile if there is none.
func (l *lineTable) place(e fileEntry) uint32 {
	if l.size > maxPaths {
		return noFile
	}
	path := l.path(e)
	if path == "" {
		return noFile
	}
	l.size += len(path)
	l.paths = append(l.paths, path)
	return uint32(len(l.paths) - 1)
}

// maxPaths is how many bytes of paths a unit may have, and as many are kept from one
// unit to the next.
const maxPaths = 4 << 20

// path returns the path of a file: joined to its directory and that to the one of
// the compilation, as far as they are relative; not simplified.
func (l *lineTable) path(e fileEntry) string {
	name := l.u.str(e.path, l.buf)
	if name == "" || name[0] == '/' {
		return name
	}
	dir := ""
	if uint64(e.dir) < uint64(len(l.dirs)) {
		dir = l.u.str(l.dirs[e.dir].path, l.buf)
	}
	l.joined = l.joined[:0]
	// Directory 0 of DWARF 5 is the one of the compilation.
	if (dir == "" || dir[0] != '/') && (l.header.version < 5 || e.dir != 0) {
		l.joined = append(l.joined, l.u.compDir...)
	}
	l.join(dir)
	l.join(name)
	if s, ok := l.byPath[string(l.joined)]; ok {
		return s
	}
	if l.byPath == nil || l.kept > maxPaths {
		l.byPath, l.kept = make(map[string]string), 0
	}
	s := string(l.joined)
	l.kept += len(s) + internedCost
	l.byPath[s] = s
	return s
}

func (l *lineTable) join(part string) {
	if part == "" {
		return
	}
	if n := len(l.joined); n > 0 && l.joined[n-1] != '/' {
		l.joined = append(l.joined, '/')
	}
	l.joined = append(l.joined, part...)
}
