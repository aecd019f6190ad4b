// SPDX-License-Identifier: Apache-2.0

// Package gopclntab reads the function table of Go binaries, stripped or not:
// functions, inlined calls, lines, and stack-pointer deltas.
//
// The runtime cannot work without this table, so no way of stripping removes it.
// Formats of Go 1.16 to 1.26 are known. The authorities are runtime/symtab.go and
// cmd/link/internal/ld/pcln.go of the Go source.
package gopclntab

import (
	"errors"
	"fmt"
	"sync"

	"github.com/lowflame/lowflame/internal/hostile"
	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/stack"
)

// ErrNoTable is returned by Open for files without a Go function table.
var ErrNoTable = errors.New("no Go function table")

// Flags of a function (internal/abi.FuncFlag).
const (
	// FuncFlagTopFrame marks the outermost function of a stack, such as
	// runtime.goexit.
	FuncFlagTopFrame = 1 << iota
	// FuncFlagSPWrite marks functions that set the stack pointer to something
	// the deltas do not tell.
	FuncFlagSPWrite
	// FuncFlagAsm marks functions written in assembly.
	FuncFlagAsm
)

// cacheBlocks is how much of the file a table keeps in memory: 512 KiB.
const cacheBlocks = 128

// Table is the function table of one Go binary. It holds an index of a byte per
// 8 functions and a cache of at most 512 KiB; everything else is read from the file
// when asked for. Safe for concurrent use; the file must stay open.
type Table struct {
	h header
	m module
	o *objfile.Object
	// index has the text offset of every indexStep-th function.
	index []uint32
	end   uint32 // text offset of the end of the last function

	mu     sync.Mutex // guards the following
	blocks *hostile.Blocks
	buf    []byte
	// wrapper is the ID of wrapper functions, which differs from release to
	// release; 0 before it is known.
	wrapper uint8
}

// indexStep is how many functions share an entry of Table.index: their part of
// the table in the file fits in 256 bytes, most often in one cached block.
const indexStep = 32

// Func is a function with code of its own. Functions that were only inlined have
// none.
type Func struct {
	Entry, End stack.LinkAddr
	// ID names functions special to the runtime (internal/abi.FuncID). Values
	// differ between releases; 0 is an ordinary function.
	ID        uint8
	Flag      uint8 // FuncFlag…
	NFuncData uint8
	NPCData   uint32
	StartLine int32 // of the func keyword; 0 before Go 1.20

	rec record
}

// record is where to find the rest about a function.
type record struct {
	off                      int64 // of what follows the fixed part, in the file
	name                     uint32
	pcsp, pcfile, pcln, unit uint32
}

// Open finds the function table of o. It reads the table's index, 8 bytes per
// function, and as much of the file as it takes to find the table: where the
// linker has put it in no section of its own, all of the data.
//
// It returns ErrNoTable if there is none or its version is not known, a
// *objfile.FormatError if it is malformed, or an error of the reader.
func Open(o *objfile.Object) (*Table, error) {
	t := &Table{o: o, blocks: hostile.NewBlocks(o.File(), o.Size(), cacheBlocks)}
	if err := t.find(); err != nil {
		return nil, err
	}
	return t, nil
}

// Text returns the first address of the first function and the first after the
// last. Code of other languages lies outside, but for padding.
func (t *Table) Text() (start, end stack.LinkAddr) {
	return t.m.text + stack.LinkAddr(t.index[0]), t.m.text + stack.LinkAddr(t.end)
}

// NumFuncs returns the number of functions.
func (t *Table) NumFuncs() int { return t.h.nfunc }

// Drop gives up the cache. The table goes on working.
func (t *Table) Drop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.blocks.Drop()
}

// Func returns the function with an index of 0 to NumFuncs()-1, in order of
// address.
func (t *Table) Func(i int) (Func, error) {
	if i < 0 || i >= t.h.nfunc {
		return Func{}, fmt.Errorf("function %d of %d: %w", i, t.h.nfunc, objfile.ErrNotFound)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.readFunc(i)
}

// FuncAt returns the function that has the instruction at pc. ok is false if none
// has.
func (t *Table) FuncAt(pc stack.LinkAddr) (f Func, ok bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.funcAt(pc)
}

func (t *Table) funcAt(pc stack.LinkAddr) (Func, bool, error) {
	off := uint64(pc - t.m.text)
	if pc < t.m.text || off < uint64(t.index[0]) || off >= uint64(t.end) {
		return Func{}, false, nil
	}
	i, err := t.search(uint32(off))
	if err != nil {
		return Func{}, false, err
	}
	f, err := t.readFunc(i)
	return f, err == nil, err
}

// search returns the index of the last function that starts at or before a text
// offset.
func (t *Table) search(off uint32) (int, error) {
	lo, hi := 0, len(t.index) // the last index entry at or before off is in [lo, hi)
	for hi-lo > 1 {
		if mid := int(uint(lo+hi) >> 1); t.index[mid] <= off {
			lo = mid
		} else {
			hi = mid
		}
	}
	lo *= indexStep
	for hi = min(lo+indexStep, t.h.nfunc); hi-lo > 1; {
		mid := int(uint(lo+hi) >> 1)
		at, _, err := t.functab(mid)
		if err != nil {
			return 0, err
		}
		if at <= off {
			lo = mid
		} else {
			hi = mid
		}
	}
	return lo, nil
}

// functab returns entry i of the function index: text offset of the entry point,
// and where the record lies from the start of the index.
func (t *Table) functab(i int) (entry uint32, rec uint64, err error) {
	size := t.h.v.functabField
	var buf [16]byte
	if _, err := t.blocks.ReadAt(buf[:2*size], t.h.pcln.off+int64(i)*int64(2*size)); err != nil {
		return 0, 0, fmt.Errorf("read function index: %w", err)
	}
	c := hostile.NewCursor(buf[:])
	if size == 4 {
		return c.Uint32(), uint64(c.Uint32()), nil
	}
	return uint32(c.Uint64() - uint64(t.m.text)), c.Uint64(), nil
}

// readFunc reads the record of function i (runtime._func).
func (t *Table) readFunc(i int) (Func, error) {
	entry, rec, err := t.functab(i)
	if err != nil {
		return Func{}, err
	}
	end := t.end
	if i+1 < t.h.nfunc {
		if end, _, err = t.functab(i + 1); err != nil {
			return Func{}, err
		}
	}
	size := t.h.v.recordSize()
	off, err := t.h.pcln.at(rec, size)
	if err != nil {
		return Func{}, err
	}
	var buf [48]byte
	if _, err := t.blocks.ReadAt(buf[:size], off); err != nil {
		return Func{}, fmt.Errorf("read function %d: %w", i, err)
	}
	f := Func{Entry: t.m.text + stack.LinkAddr(entry), End: t.m.text + stack.LinkAddr(end)}
	f.rec.off = off + int64(size)
	f.decode(hostile.NewCursor(buf[:size]), t.h.v)
	return f, nil
}

func (f *Func) decode(c hostile.Cursor, v version) {
	c.Skip(v.entryField)
	f.rec.name = c.Uint32()
	c.Skip(4 + 4) // args, deferreturn
	f.rec.pcsp, f.rec.pcfile, f.rec.pcln = c.Uint32(), c.Uint32(), c.Uint32()
	f.NPCData, f.rec.unit = c.Uint32(), c.Uint32()
	if v.startLine {
		f.StartLine = int32(c.Uint32())
	}
	f.ID, f.Flag = c.Uint8(), c.Uint8()
	c.Skip(1)
	f.NFuncData = c.Uint8()
}

// Name returns the name of f as the linker wrote it (see Line.Func), or "" if it
// cannot be read.
func (t *Table) Name(f Func) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.str(t.h.names, uint64(f.rec.name))
}

// str returns the string at an offset of a part of the table, "" on any error.
func (t *Table) str(p part, off uint64) string {
	at, err := p.at(off, 1)
	if err != nil {
		return ""
	}
	limit := min(objfile.MaxName, int(p.off+p.size-at))
	if t.buf, err = t.blocks.AppendCString(t.buf[:0], at, limit); err != nil {
		return ""
	}
	return string(t.buf)
}
