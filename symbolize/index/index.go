// SPDX-License-Identifier: Apache-2.0

// Package index keeps on disk what DWARF and symbol tables say of the code of one
// file, by build ID: functions, what was inlined into them, lines. An index takes a
// few percent of the debug information, is built once, in bounded memory, and is read
// a block at a time, so that it costs next to no memory to have it open. It serves
// after the file is gone.
//
// docs/symbols.md describes the format. Files are checked as if they were hostile: a
// damaged one gives an error.
package index

import (
	"errors"
	"fmt"
	"io"
	"sort"

	"github.com/lowflame/lowflame/stack"
)

// Line is a function and a line in it.
type Line struct {
	// Name is as in the file, mangled; "" if it is not known.
	Name string
	// File is a path, "" if it is not known.
	File string
	// Line is the one of the code, or of the call of the Line before; 0 if it is
	// not known. StartLine is where the function is declared, or 0.
	Line, StartLine uint32
}

// Index is an index that is open. It holds no part of the file but the first keys of
// the pages of its directories: 8 bytes for 256 KiB of the file. Safe for
// concurrent use.
type Index struct {
	r        io.ReaderAt
	id       uint64
	blocks   *Blocks
	sections [sectionCount]section
	// first are the first keys of the pages of each section's directory.
	first [sectionCount][]uint64
}

// maxPages bounds what an open index holds of a section, to 128 KiB: 4 million blocks.
const maxPages = 1 << 14

// Open opens an index of size bytes, whose blocks go through blocks. It keeps r, which
// the caller closes after the last Lookup. The error wraps ErrFormat if it is not an
// index of this version, or is damaged.
func Open(r io.ReaderAt, size int64, blocks *Blocks) (*Index, error) {
	var h [headerSize]byte
	if n, err := r.ReadAt(h[:], 0); n < len(h) {
		if errors.Is(err, io.EOF) {
			err = ErrFormat
		}
		return nil, fmt.Errorf("open index: read header: %w", err)
	}
	sections, err := decodeHeader(h[:], size)
	if err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	x := &Index{r: r, blocks: blocks, sections: sections}
	blocks.mu.Lock()
	defer blocks.mu.Unlock()
	blocks.lastID++
	x.id = blocks.lastID
	for i := range sections {
		if err := x.readFirst(i); err != nil {
			return nil, fmt.Errorf("open index: %w", err)
		}
	}
	return x, nil
}

// readFirst reads the first keys of a directory's pages.
func (x *Index) readFirst(section int) error {
	s := x.sections[section]
	if s.pages() > maxPages {
		return fmt.Errorf("directory of %d entries: %w", s.count, ErrFormat)
	}
	for i := range s.pages() {
		page, err := x.page(s, i)
		if err != nil {
			return err
		}
		key := decodeEntry(page).key
		if i > 0 && key < x.first[section][i-1] {
			return fmt.Errorf("directory out of order: %w", ErrFormat)
		}
		x.first[section] = append(x.first[section], key)
	}
	return nil
}

// page returns page i of the directory of s, valid until the next block is read.
func (x *Index) page(s section, i uint64) ([]byte, error) {
	off, size := s.page(i)
	return x.blocks.get(x.r, blockKey{x.id, off}, size)
}

// block returns the last block of a section whose first key is not above key, and
// that one; nil if there is none. It is valid until the next block is read.
func (x *Index) block(section int, key uint64) (block []byte, first uint64, err error) {
	keys := x.first[section]
	i := sort.Search(len(keys), func(i int) bool { return keys[i] > key })
	if i == 0 {
		return nil, 0, nil
	}
	page, err := x.page(x.sections[section], uint64(i-1))
	if err != nil {
		return nil, 0, err
	}
	j := sort.Search(len(page)/entrySize, func(j int) bool { return decodeEntry(page[j*entrySize:]).key > key })
	if j == 0 {
		return nil, 0, fmt.Errorf("directory out of order: %w", ErrFormat)
	}
	e := decodeEntry(page[(j-1)*entrySize:])
	block, err = x.blocks.get(x.r, blockKey{x.id, e.off}, e.size)
	return block, e.key, err
}

// Lookup appends to lines what code at addr is: the innermost inlined call first, the
// function last. Addr is a link-time address; callers pass the one of a call, which is
// the return address less 1.
//
// The function has the name of the symbol at addr if there is one: compilers make
// clones of functions that only symbols tell apart. Where debug information says
// nothing, the symbol is all there is; without one, there are no lines.
//
// The error wraps ErrFormat if the index is damaged; then nothing is appended.
func (x *Index) Lookup(addr stack.LinkAddr, lines []Line) ([]Line, error) {
	b := x.blocks
	b.mu.Lock()
	defer b.mu.Unlock()
	out, err := x.lookup(uint64(addr), lines)
	if err != nil {
		return lines, fmt.Errorf("look up %#x: %w", addr, err)
	}
	return out, nil
}

func (x *Index) lookup(addr uint64, lines []Line) ([]Line, error) {
	c := &x.blocks.code
	block, key, err := x.block(codeSection, addr)
	if err != nil {
		return nil, err
	}
	covered := false
	if block != nil {
		if covered, err = c.find(block, key, addr); err != nil {
			return nil, err
		}
	}
	symbol, err := x.symbol(addr)
	if err != nil {
		return nil, err
	}
	if !covered {
		if symbol == 0 {
			return lines, nil
		}
		return x.append(lines, symbol, 0, place{})
	}
	for i := c.depth; i > 1; i-- {
		f := &c.stack[i]
		fn := &c.calls[f.call]
		if lines, err = x.append(lines, fn.name, fn.start, f.at); err != nil {
			return nil, err
		}
	}
	var fn call
	if c.depth > 0 {
		fn = c.calls[c.stack[1].call]
	}
	if symbol != 0 {
		fn.name = symbol
	}
	return x.append(lines, fn.name, fn.start, c.stack[min(c.depth, 1)].at)
}

// symbol returns the number of the name of the symbol at addr, 0 if there is none.
func (x *Index) symbol(addr uint64) (uint32, error) {
	for s := symbolSection; s < sectionCount; s++ {
		block, key, err := x.block(s, addr)
		if err != nil {
			return 0, err
		}
		name, err := findSymbol(block, key, addr)
		if name != 0 || err != nil {
			return name, err
		}
	}
	return 0, nil
}

func (x *Index) append(lines []Line, name, start uint32, at place) ([]Line, error) {
	l := Line{Line: at.line, StartLine: start}
	var err error
	if l.Name, err = x.string(nameSection, name); err != nil {
		return nil, err
	}
	if l.File, err = x.string(fileSection, at.file); err != nil {
		return nil, err
	}
	return append(lines, l), nil
}

// string returns a string by its number.
func (x *Index) string(section int, id uint32) (string, error) {
	if id == 0 {
		return "", nil
	}
	key := id<<1 | uint32(section-nameSection)
	kept := x.blocks.kept(x.id, key)
	if kept.index == x.id && kept.id == key {
		return kept.s, nil
	}
	block, first, err := x.block(section, uint64(id))
	if err != nil {
		return "", err
	}
	if block == nil {
		return "", fmt.Errorf("string %d: %w", id, ErrFormat)
	}
	x.blocks.str, err = appendString(x.blocks.str[:0], block, uint64(id)-first)
	if err != nil {
		return "", err
	}
	s := string(x.blocks.str)
	if len(s) <= maxKept {
		*kept = keptString{x.id, key, s}
	}
	return s, nil
}

// forget drops the blocks of x from the cache.
func (x *Index) forget() {
	x.blocks.mu.Lock()
	defer x.blocks.mu.Unlock()
	x.blocks.drop(x.id)
}
