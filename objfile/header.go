// SPDX-License-Identifier: Apache-2.0

package objfile

import (
	"debug/elf"
	"errors"
	"fmt"

	"github.com/lowflame/lowflame/internal/hostile"
	"github.com/lowflame/lowflame/stack"
)

const (
	headerSize  = 64 // Elf64_Ehdr
	progSize    = 56 // Elf64_Phdr
	sectionSize = 64 // Elf64_Shdr

	// The kernel refuses executables whose program headers take more than
	// 64 KiB (load_elf_phdrs); shared objects in ld.so have no such limit.
	maxSegments = 4096
	maxSections = 1 << 16
	// maxSectionNames bounds the section name table that is kept in memory.
	maxSectionNames = 4 << 20
)

// header is what is used of Elf64_Ehdr.
type header struct {
	phoff, shoff            uint64
	phentsize, phnum        uint16
	shentsize, shnum, stndx uint16
}

func (o *Object) readHeader() (header, error) {
	if o.size < headerSize {
		return header{}, ErrNotELF
	}
	var buf [headerSize]byte
	if err := o.read(buf[:], 0); err != nil {
		return header{}, err
	}
	if string(buf[:4]) != elf.ELFMAG {
		return header{}, ErrNotELF
	}
	if elf.Class(buf[elf.EI_CLASS]) != elf.ELFCLASS64 || elf.Data(buf[elf.EI_DATA]) != elf.ELFDATA2LSB {
		return header{}, ErrUnsupported
	}
	if elf.Version(buf[elf.EI_VERSION]) != elf.EV_CURRENT {
		return header{}, &FormatError{elf.EI_VERSION, "unknown version"}
	}
	c := hostile.NewCursor(buf[elf.EI_NIDENT:])
	var h header
	o.Type = elf.Type(c.Uint16())
	o.Machine = elf.Machine(c.Uint16())
	c.Skip(4) // e_version again
	o.Entry = stack.LinkAddr(c.Uint64())
	h.phoff, h.shoff = c.Uint64(), c.Uint64()
	c.Skip(4 + 2) // e_flags, e_ehsize
	h.phentsize, h.phnum = c.Uint16(), c.Uint16()
	h.shentsize, h.shnum, h.stndx = c.Uint16(), c.Uint16(), c.Uint16()
	return h, nil
}

// pnXNum in e_phnum says that the number of program headers is in sh_info of
// section 0 (gABI, PN_XNUM).
const pnXNum = 0xffff

// prog is a program header that is not PT_LOAD.
type prog struct {
	typ         elf.ProgType
	off, filesz uint64
	addr        stack.LinkAddr
	align       uint64
	memsz       uint64
	flags       elf.ProgFlag
}

func (o *Object) readSegments(h header, null rawSection) error {
	n := uint64(h.phnum)
	if h.phnum == pnXNum {
		n = uint64(null.info)
	}
	if n == 0 {
		return nil
	}
	if h.phentsize != progSize {
		return &FormatError{h.phoff, fmt.Sprintf("program headers of %d bytes", h.phentsize)}
	}
	if n > maxSegments {
		return &FormatError{h.phoff, fmt.Sprintf("%d program headers", n)}
	}
	buf := make([]byte, n*progSize)
	if err := o.read(buf, h.phoff); err != nil {
		return fmt.Errorf("read program headers: %w", err)
	}
	c := hostile.NewCursor(buf)
	for range n {
		o.addProg(readProg(&c))
	}
	return nil
}

func readProg(c *hostile.Cursor) prog {
	var p prog
	p.typ, p.flags = elf.ProgType(c.Uint32()), elf.ProgFlag(c.Uint32())
	p.off, p.addr = c.Uint64(), stack.LinkAddr(c.Uint64())
	c.Skip(8) // p_paddr
	p.filesz, p.memsz, p.align = c.Uint64(), c.Uint64(), c.Uint64()
	return p
}

func (o *Object) addProg(p prog) {
	switch p.typ {
	case elf.PT_LOAD:
		// The kernel refuses these too (elf_load, total_mapping_size); without
		// them no sum of an address and a size in a segment can overflow.
		if p.off+p.filesz < p.off || uint64(p.addr)+p.memsz < uint64(p.addr) || p.filesz > p.memsz {
			return
		}
		o.Segments = append(o.Segments, Segment{
			Off: stack.FileOff(p.off), Addr: p.addr, FileSize: p.filesz, MemSize: p.memsz, Align: p.align,
			Exec: p.flags&elf.PF_X != 0, Write: p.flags&elf.PF_W != 0,
		})
	case elf.PT_DYNAMIC, elf.PT_NOTE, elf.PT_GNU_EH_FRAME:
		o.progs = append(o.progs, p)
	}
}

// prog returns the first program header of type t.
func (o *Object) prog(t elf.ProgType) (prog, bool) {
	for _, p := range o.progs {
		if p.typ == t {
			return p, true
		}
	}
	return prog{}, false
}

// rawSection is an Elf64_Shdr.
type rawSection struct {
	name, typ, link, info           uint32
	flags, addr, off, size, entsize uint64
}

func readRawSection(c *hostile.Cursor) rawSection {
	var s rawSection
	s.name, s.typ = c.Uint32(), c.Uint32()
	s.flags, s.addr, s.off, s.size = c.Uint64(), c.Uint64(), c.Uint64(), c.Uint64()
	s.link, s.info = c.Uint32(), c.Uint32()
	c.Skip(8) // sh_addralign
	s.entsize = c.Uint64()
	return s
}

var errNoSections = errors.New("no section headers")

func (o *Object) readSectionZero(h header) (rawSection, error) {
	if h.shoff == 0 {
		return rawSection{}, errNoSections
	}
	if h.shentsize != sectionSize {
		return rawSection{}, &FormatError{h.shoff, fmt.Sprintf("section headers of %d bytes", h.shentsize)}
	}
	var buf [sectionSize]byte
	if err := o.read(buf[:], h.shoff); err != nil {
		return rawSection{}, fmt.Errorf("read section header 0: %w", err)
	}
	c := hostile.NewCursor(buf[:])
	return readRawSection(&c), nil
}

func (o *Object) readSections(h header, null rawSection) ([]Section, error) {
	n, stndx := uint64(h.shnum), uint64(h.stndx)
	if n == 0 {
		n = null.size
	}
	if stndx == uint64(elf.SHN_XINDEX) {
		stndx = uint64(null.link)
	}
	if n == 0 {
		return nil, errNoSections
	}
	if n > maxSections {
		return nil, &FormatError{h.shoff, fmt.Sprintf("%d section headers", n)}
	}
	if !o.has(h.shoff, n*sectionSize) {
		return nil, &FormatError{h.shoff, "section headers lie outside the file"}
	}
	buf := make([]byte, n*sectionSize)
	if err := o.read(buf, h.shoff); err != nil {
		return nil, fmt.Errorf("read section headers: %w", err)
	}
	names, err := o.sectionNames(buf, stndx)
	if err != nil {
		return nil, fmt.Errorf("read section names: %w", err)
	}
	c := hostile.NewCursor(buf[sectionSize:])
	sections := make([]Section, 0, n-1)
	for range n - 1 {
		s := readRawSection(&c)
		sections = append(sections, Section{
			Name: cutName(names, s.name), Type: elf.SectionType(s.typ), Flags: elf.SectionFlag(s.flags),
			Addr: stack.LinkAddr(s.addr), Off: s.off, Size: s.size, Link: s.link, Info: s.info, EntSize: s.entsize,
		})
	}
	return sections, nil
}

// sectionNames returns the name table whole: names are cut from it, so hostile
// headers cannot make it larger.
func (o *Object) sectionNames(headers []byte, stndx uint64) (string, error) {
	if stndx == uint64(elf.SHN_UNDEF) || stndx >= uint64(len(headers)/sectionSize) {
		return "", &FormatError{0, "no section name table"}
	}
	c := hostile.NewCursor(headers[stndx*sectionSize:])
	s := readRawSection(&c)
	if s.size > maxSectionNames {
		return "", ErrTooLarge
	}
	if !o.has(s.off, s.size) {
		return "", &FormatError{s.off, "section name table lies outside the file"}
	}
	buf := make([]byte, s.size)
	if err := o.read(buf, s.off); err != nil {
		return "", err
	}
	return string(buf), nil
}
