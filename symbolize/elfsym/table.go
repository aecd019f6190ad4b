// SPDX-License-Identifier: Apache-2.0

// Package elfsym names functions by the symbol tables of ELF files.
//
// A table keeps 12 bytes per function. Names stay in the file and are read when
// asked for: a process runs a small part of the functions it has.
package elfsym

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"

	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/stack"
)

// ErrNoSymbols says that a file names no function.
var ErrNoSymbols = errors.New("no function symbols")

// Table is the functions of one file, in the order of their addresses. It does
// not hold on to the file. Immutable; safe for concurrent use.
type Table struct {
	base  stack.LinkAddr
	funcs []function
	// Truncated is set if the file has more functions than a table takes.
	Truncated bool
}

// function is a range of code and the name for it. Ranges do not overlap, so a
// function inside another splits that one.
type function struct {
	off  uint32 // from Table.base
	size uint32
	name nameRef
}

// nameRef is where a name is: an offset into the names of .symtab or .dynsym, and
// whether it is of a stub in the procedure linkage table.
type nameRef uint32

const (
	inDynSym nameRef = 1 << 31
	isPLT    nameRef = 1 << 30
	nameMask         = isPLT - 1
)

const (
	// maxFuncs bounds a table to 24 MiB. Chromium has 0.6 million functions.
	maxFuncs = 2 << 20
	// maxScanned bounds how many symbols are looked at.
	maxScanned = 16 << 20
)

// Build returns the table of o: symbols of type FUNC, GNU_IFUNC and, in
// executable sections, NOTYPE, which is what assembly has that does not say
// otherwise. .symtab and .dynsym count both; stubs in the procedure linkage
// table are named for what they lead to.
//
// A symbol without a size reaches up to the next symbol or the end of its
// section. Of several names for one address wins a global or weak one over a
// local one, one with fewer leading underscores, a global over a weak one, a
// shorter one.
//
// The error wraps ErrNoSymbols if there are none. Other errors come with a table
// of what could be read, unless it is nil.
func Build(o *objfile.Object) (*Table, error) {
	b := newBuilder(o)
	err := errors.Join(b.collect(objfile.SymTab), b.collect(objfile.DynSym), b.collectPLT())
	t := b.table()
	if len(t.funcs) == 0 {
		if err == nil {
			err = ErrNoSymbols
		}
		return nil, fmt.Errorf("read function symbols: %w", err)
	}
	if err != nil {
		err = fmt.Errorf("read function symbols: %w", err)
	}
	return t, err
}

// Func is a function of a Table.
type Func struct {
	// Start and End bound the range with the name. A function that contains
	// another has more than one.
	Start, End stack.LinkAddr
	// ID is the same for all ranges of one name, and for nothing else in the file.
	ID uint32
}

// Lookup returns the function that contains addr.
func (t *Table) Lookup(addr stack.LinkAddr) (Func, bool) {
	if addr < t.base || addr-t.base > math.MaxUint32 {
		return Func{}, false
	}
	off := uint32(addr - t.base)
	i, ok := slices.BinarySearchFunc(t.funcs, off, func(f function, off uint32) int {
		return cmp.Compare(f.off, off)
	})
	if !ok {
		i--
	}
	if i < 0 || off-t.funcs[i].off >= t.funcs[i].size {
		return Func{}, false
	}
	f := t.funcs[i]
	start := t.base + stack.LinkAddr(f.off)
	return Func{Start: start, End: start + stack.LinkAddr(f.size), ID: uint32(f.name)}, true
}

// Next returns where the first function after addr begins; false if none does.
func (t *Table) Next(addr stack.LinkAddr) (stack.LinkAddr, bool) {
	i := sort.Search(len(t.funcs), func(i int) bool { return t.base+stack.LinkAddr(t.funcs[i].off) > addr })
	if i == len(t.funcs) {
		return 0, false
	}
	return t.base + stack.LinkAddr(t.funcs[i].off), true
}

// Name reads the name of f from o, which has the contents t was built from. It is
// as in the file: mangled, any bytes, at most objfile.MaxName of them, with
// "@plt" behind the name of a stub.
func (t *Table) Name(o *objfile.Object, f Func) (string, error) {
	ref, table := nameRef(f.ID), objfile.SymTab
	if ref&inDynSym != 0 {
		table = objfile.DynSym
	}
	syms, err := o.Symbols(table)
	if err != nil {
		return "", err
	}
	name, err := syms.Name(uint32(ref & nameMask))
	if err == nil && ref&isPLT != 0 {
		name += "@plt"
	}
	return name, err
}

// Len returns the number of ranges.
func (t *Table) Len() int { return len(t.funcs) }

// Bytes returns the heap the table takes.
func (t *Table) Bytes() int { return 12*cap(t.funcs) + 64 }
