// SPDX-License-Identifier: Apache-2.0

package gopclntab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/stack"
)

const (
	chunk = 256 << 10
	// maxSearch is how much data of a file is searched for a table that is in no
	// section of its own.
	maxSearch = 512 << 20
	// maxCandidates is how many things that look like a table are looked at.
	maxCandidates = 64
)

// find sets h, m, index and end.
func (t *Table) find() error {
	for _, name := range []string{".gopclntab", ".data.rel.ro.gopclntab"} {
		if s, ok := t.o.Section(name); ok {
			err := t.try(s.Addr)
			if !errors.Is(err, errHeader) {
				return err
			}
		}
	}
	if !t.maybeGo() {
		return ErrNoTable
	}
	return t.searchTable()
}

// maybeGo reports whether it is worth reading all data in search of the table.
// External linkers merge its section into .data.rel.ro in position-independent
// executables; then other traces of Go remain.
func (t *Table) maybeGo() bool {
	if t.o.GoBuildID != "" || t.o.Sections == nil {
		return true
	}
	for _, name := range []string{".go.buildinfo", ".note.go.buildid", ".go.module"} {
		if _, ok := t.o.Section(name); ok {
			return true
		}
	}
	return false
}

// searchTable searches the segments without code first.
func (t *Table) searchTable() error {
	budget, candidates := int64(maxSearch), maxCandidates
	var firstErr error
	for _, exec := range []bool{false, true} {
		for _, s := range t.o.Segments {
			if s.Exec != exec || budget <= 0 {
				continue
			}
			found, err := t.searchSegment(s, &budget, &candidates)
			if found {
				return nil
			}
			if firstErr == nil {
				firstErr = err
			}
		}
	}
	if firstErr != nil {
		return firstErr
	}
	return ErrNoTable
}

// searchSegment returns the error of the first candidate that is a header but not
// of a good table.
func (t *Table) searchSegment(s objfile.Segment, budget *int64, candidates *int) (found bool, first error) {
	size := min(int64(min(s.FileSize, uint64(t.o.Size()))), *budget)
	*budget -= size
	err := t.scan(s.Addr, size, func(addr stack.LinkAddr, b []byte) bool {
		for at := nextHeader(b, 0); at >= 0 && *candidates > 0; at = nextHeader(b, at+2) {
			*candidates--
			err := t.try(addr + stack.LinkAddr(at))
			if err == nil {
				found = true
				return false
			}
			if first == nil && !errors.Is(err, errHeader) {
				first = err
			}
		}
		return *candidates > 0
	})
	if first == nil {
		first = err
	}
	return found, first
}

// scan calls yield with the bytes of the file from addr to addr+size, in chunks
// that overlap by 8 bytes, until it returns false.
func (t *Table) scan(addr stack.LinkAddr, size int64, yield func(stack.LinkAddr, []byte) bool) error {
	buf := make([]byte, max(0, min(size, chunk)))
	for size >= 8 {
		b := buf[:min(size, chunk)]
		n, err := t.o.ReadAt(b, addr)
		if n < 8 || err != nil && !errors.Is(err, io.EOF) {
			if errors.Is(err, io.EOF) {
				err = nil // a truncated file
			}
			return err
		}
		if !yield(addr, b[:n]) || n < len(b) || int64(n) >= size {
			return nil
		}
		addr += stack.LinkAddr(n - 8)
		size -= int64(n - 8)
	}
	return nil
}

// try makes the table at addr this one. It returns errHeader if there is none.
func (t *Table) try(addr stack.LinkAddr) error {
	var b [headerSize]byte
	if n, err := t.o.ReadAt(b[:], addr); n != len(b) {
		if errors.Is(err, io.EOF) {
			return errHeader
		}
		return fmt.Errorf("read Go function table: %w", err)
	}
	off, ok := t.o.FileOff(addr)
	if !ok {
		return errHeader
	}
	var err error
	if t.h, err = parseHeader(b[:], addr, int64(off), t.rest(addr, off)); err != nil {
		return err
	}
	if t.m, err = t.findModule(); err != nil {
		return fmt.Errorf("find start of Go code: %w", err)
	}
	return t.readIndex()
}

// rest returns how many bytes the file has from addr on that can be the table's:
// to the end of its section, or of the segment.
func (t *Table) rest(addr stack.LinkAddr, off stack.FileOff) int64 {
	rest := t.o.Size() - int64(off)
	for _, s := range t.o.Segments {
		if addr >= s.Addr && uint64(addr-s.Addr) < s.FileSize {
			rest = min(rest, int64(s.FileSize-uint64(addr-s.Addr)))
			break
		}
	}
	for _, s := range t.o.Sections {
		if s.Addr == addr && s.Off == uint64(off) && s.Size > headerSize {
			rest = min(rest, int64(min(s.Size, 1<<62)))
		}
	}
	return rest
}

// readIndex reads the function index once, checks that it is sorted as
// runtime.moduledataverify1 does, and keeps one entry of indexStep.
func (t *Table) readIndex() error {
	size := t.h.v.functabField
	n := t.h.nfunc + 1
	t.index = make([]uint32, 0, (t.h.nfunc+indexStep-1)/indexStep)
	buf := make([]byte, min(n*2*size, 64<<10))
	var last uint64
	for i := 0; i < n; {
		b := buf[:min((n-i)*2*size, len(buf))]
		off := t.h.pcln.off + int64(i)*int64(2*size)
		if _, err := t.o.File().ReadAt(b, off); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read function index: %w", err)
		} else if err == io.EOF && off+int64(len(b)) > t.o.Size() {
			return &objfile.FormatError{Off: uint64(off), What: "Go function table is cut off"}
		}
		for ; len(b) > 0 && i < n; b, i = b[2*size:], i+1 {
			entry := uint64(binary.LittleEndian.Uint32(b))
			if size == 8 {
				entry = binary.LittleEndian.Uint64(b) - uint64(t.m.text)
			}
			if entry < last || entry > 1<<32-1 {
				return &objfile.FormatError{Off: uint64(off), What: "Go function table is not sorted"}
			}
			last = entry
			if i < t.h.nfunc && i%indexStep == 0 {
				t.index = append(t.index, uint32(entry))
			}
		}
	}
	t.end = uint32(last)
	return nil
}
