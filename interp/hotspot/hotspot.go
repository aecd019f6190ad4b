// SPDX-License-Identifier: Apache-2.0

// Package hotspot makes unwind tables of the code that a HotSpot Java virtual
// machine writes into memory.
//
// Compiled Java code uses RBP as any other register unless told otherwise
// (-XX:+PreserveFramePointer), so frame pointers do not lead through it. But the
// virtual machine describes itself to debuggers: exported symbols lead to the
// offsets of the fields of its structures (hotspot/share/runtime/vmStructs.cpp), and
// these to the code cache, where each piece of code says how large its frame is. The
// instructions tell the rest: prologues, epilogues, and what has no frame.
//
// Everything is read from the memory of the process, which may hold anything: reads
// and work are bounded, and what makes no sense is left out.
package hotspot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/lowflame/lowflame/objfile"
)

// ErrNotReady is returned while a virtual machine has not made its code cache.
var ErrNotReady = errors.New("no code cache yet")

// ErrUnknownLayout is wrapped when the virtual machine does not describe what is
// needed, or not in a way that is understood.
var ErrUnknownLayout = errors.New("structures of the virtual machine are not understood")

// ErrTooSlow is wrapped when there was no time to read the code cache.
var ErrTooSlow = errors.New("no time to read the code cache")

// Symbols are the exported symbols of a libjvm that its description of itself
// begins at, by name: link-time addresses.
type Symbols map[string]uint64

// maxSymbols bounds the dynamic symbols looked through; libjvm has a thousand.
const maxSymbols = 1 << 16

// wantedSymbols lists the symbols needed (hotspot/share/runtime/vmStructs.hpp).
func wantedSymbols() []string {
	return []string{
		"gHotSpotVMStructs",
		"gHotSpotVMStructEntryTypeNameOffset", "gHotSpotVMStructEntryFieldNameOffset",
		"gHotSpotVMStructEntryTypeStringOffset", "gHotSpotVMStructEntryIsStaticOffset",
		"gHotSpotVMStructEntryOffsetOffset", "gHotSpotVMStructEntryAddressOffset",
		"gHotSpotVMStructEntryArrayStride",
		"gHotSpotVMTypes", "gHotSpotVMTypeEntryTypeNameOffset",
		"gHotSpotVMTypeEntrySizeOffset", "gHotSpotVMTypeEntryArrayStride",
	}
}

// FindSymbols returns the symbols of o, or false if it is no libjvm.
func FindSymbols(o *objfile.Object) (Symbols, bool) {
	table, err := o.Symbols(objfile.DynSym)
	if err != nil {
		return nil, false
	}
	want := map[string]bool{}
	for _, name := range wantedSymbols() {
		want[name] = true
	}
	found := Symbols{}
	names := table.Names()
	err = table.All(func(i int, sym objfile.Symbol) bool {
		if sym.Value == 0 {
			return i < maxSymbols
		}
		if name, err := names.Bytes(sym.Name); err == nil && want[string(name)] {
			found[string(name)] = uint64(sym.Value)
		}
		return i < maxSymbols && len(found) < len(want)
	})
	return found, err == nil && len(found) == len(want)
}

// memory reads the memory of a process.
type memory struct {
	r io.ReaderAt
	// page is the page last read, at pageAt.
	page   []byte
	pageAt uint64
	buf    [pageBytes]byte
}

const pageBytes = 4096

// read fills p from addr.
func (m *memory) read(p []byte, addr uint64) error {
	if addr == 0 || int64(addr) < 0 {
		return fmt.Errorf("read memory at %#x: %w", addr, io.ErrUnexpectedEOF)
	}
	n, err := m.r.ReadAt(p, int64(addr))
	if n == len(p) {
		return nil
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read memory at %#x: %w", addr, err)
}

// near returns n bytes at addr, valid until the next call. It reads a page at a time.
// More than pageBytes are an error.
func (m *memory) near(addr uint64, n int) ([]byte, error) {
	if n < 0 || n > pageBytes {
		return nil, fmt.Errorf("read %d bytes of memory at %#x: %w", n, addr, ErrUnknownLayout)
	}
	if off := addr - m.pageAt; off <= uint64(len(m.page)) && uint64(len(m.page))-off >= uint64(n) {
		return m.page[off : off+uint64(n)], nil
	}
	m.page = nil
	whole := m.buf[:max(pageBytes-int(addr%pageBytes), n)]
	if err := m.read(whole, addr); err != nil {
		return nil, err
	}
	m.page, m.pageAt = whole, addr
	return whole[:n], nil
}

// forget drops what near has read.
func (m *memory) forget() { m.page = nil }

func (m *memory) word(addr uint64) (uint64, error) {
	b, err := m.near(addr, 8)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b), nil
}

// maxName bounds the names read, bytes; those the virtual machine uses have 60.
const maxName = 128

// name reads a C string, cut off after maxName.
func (m *memory) name(addr uint64) (string, error) {
	if _, err := m.near(addr, 1); err != nil {
		return "", err
	}
	b := m.page[addr-m.pageAt:]
	if len(b) < maxName {
		var more [maxName]byte
		n := copy(more[:], b)
		if err := m.read(more[n:], addr+uint64(n)); err == nil {
			n = maxName
		}
		b = more[:n]
	}
	for i, c := range b[:min(len(b), maxName)] {
		if c == 0 {
			return string(b[:i]), nil
		}
	}
	return string(b[:min(len(b), maxName)]), nil
}
