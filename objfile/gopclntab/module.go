// SPDX-License-Identifier: Apache-2.0

package gopclntab

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/stack"
)

// module is what is used of runtime.moduledata.
type module struct {
	// text is runtime.text, which entry points are relative to. It is not the
	// start of .text where a C linker has put its own code first.
	text stack.LinkAddr
	// gofunc is what the funcdata of functions are relative to; 0 if unknown, and
	// then inlined calls are not seen.
	gofunc stack.LinkAddr
}

// Words of runtime.moduledata, the same since Go 1.16.
const (
	wordNames    = 1 // slices take three words
	wordUnits    = 4
	wordFiles    = 7
	wordPCs      = 10
	wordPCLn     = 13
	wordFunctab  = 16
	wordFunctabN = 17
	wordMinPC    = 20
	wordMaxPC    = 21
	wordText     = 22
	moduleWords  = 41 // as many as are read
)

// maxModules is how many things that may be moduledata are looked at.
const maxModules = 16

type moduleData [moduleWords]uint64

// findModule finds the moduledata that points to the table of t.h: in its section
// of Go 1.26, through relocations in position-independent files, or else by
// searching writable data for the pointer. Without it (a future layout) there are
// the header of the table and symbols.
func (t *Table) findModule() (module, error) {
	var candidates []stack.LinkAddr
	if s, ok := t.o.Section(".go.module"); ok {
		candidates = append(candidates, s.Addr)
	}
	if t.o.Type == elf.ET_DYN {
		err := t.o.RelativeRelocs(func(at stack.LinkAddr, addend uint64) bool {
			if addend == uint64(t.h.addr) {
				candidates = append(candidates, at)
			}
			return len(candidates) < maxModules
		})
		if err != nil {
			return module{}, err
		}
	}
	if m, ok, err := t.tryModules(candidates); ok || err != nil {
		return m, err
	}
	candidates, err := t.searchPointers()
	if err != nil {
		return module{}, err
	}
	if m, ok, err := t.tryModules(candidates); ok || err != nil {
		return m, err
	}
	return t.moduleFromSymbols()
}

// searchPointers returns the addresses of the pairs of words in writable data that
// point to the table and to its names, as the first two of moduledata do.
func (t *Table) searchPointers() ([]stack.LinkAddr, error) {
	var found []stack.LinkAddr
	budget := int64(maxSearch)
	first, second := uint64(t.h.addr), t.h.addrOf(t.h.names)
	for _, s := range t.o.Segments {
		size := min(int64(min(s.FileSize, uint64(t.o.Size()))), budget)
		if !s.Write || size <= 0 {
			continue
		}
		budget -= size
		skip := -s.Addr & 7
		err := t.scan(s.Addr+skip, size-int64(skip), func(addr stack.LinkAddr, b []byte) bool {
			for i := 0; i+16 <= len(b); i += 8 {
				if binary.LittleEndian.Uint64(b[i:]) == first && binary.LittleEndian.Uint64(b[i+8:]) == second {
					found = append(found, addr+stack.LinkAddr(i))
				}
			}
			return len(found) < maxModules
		})
		if err != nil {
			return nil, fmt.Errorf("search for moduledata: %w", err)
		}
	}
	return found, nil
}

// candidate is what may be moduledata.
type candidate struct {
	addr stack.LinkAddr
	data moduleData
}

// tryModules returns the first candidate that is the moduledata of the table.
func (t *Table) tryModules(addrs []stack.LinkAddr) (m module, ok bool, err error) {
	candidates := make([]candidate, 0, len(addrs))
	for _, addr := range addrs {
		var b [8 * moduleWords]byte
		if n, _ := t.o.ReadAt(b[:], addr); n != len(b) {
			continue
		}
		d := candidate{addr: addr}
		for i := range d.data {
			d.data[i] = binary.LittleEndian.Uint64(b[8*i:])
		}
		candidates = append(candidates, d)
	}
	if t.o.Type == elf.ET_DYN && len(candidates) > 0 {
		if err := t.relocate(candidates); err != nil {
			return module{}, false, err
		}
	}
	for i := range candidates {
		if m, ok, err := t.checkModule(&candidates[i].data); ok || err != nil {
			return m, ok, err
		}
	}
	return module{}, false, nil
}

// relocate applies the relocations that fall into the candidates.
func (t *Table) relocate(candidates []candidate) error {
	return t.o.RelativeRelocs(func(at stack.LinkAddr, addend uint64) bool {
		for i := range candidates {
			if off := at - candidates[i].addr; off < 8*moduleWords && off%8 == 0 {
				candidates[i].data[off/8] = addend
			}
		}
		return true
	})
}

// checkModule reports whether d is the moduledata of the table: all it says about
// the table must be so, and its code must be code.
func (t *Table) checkModule(d *moduleData) (module, bool, error) {
	h := &t.h
	if d[0] != uint64(h.addr) || d[wordNames] != h.addrOf(h.names) || d[wordUnits] != h.addrOf(h.units) ||
		d[wordFiles] != h.addrOf(h.files) || d[wordPCs] != h.addrOf(h.pcs) || d[wordPCLn] != h.addrOf(h.pcln) ||
		d[wordFunctab] != h.addrOf(h.pcln) || d[wordFunctabN] != uint64(h.nfunc)+1 {
		return module{}, false, nil
	}
	m := module{text: stack.LinkAddr(d[wordText])}
	if h.v.gofuncWord != 0 {
		m.gofunc = stack.LinkAddr(d[h.v.gofuncWord])
	}
	ok, err := t.checkText(m.text, d[wordMinPC], d[wordMaxPC])
	return m, ok, err
}

// checkText reports whether the functions of the table run from minPC to maxPC in
// an executable segment if text is where they are relative to.
func (t *Table) checkText(text stack.LinkAddr, minPC, maxPC uint64) (bool, error) {
	t.m.text = text // functab needs it
	first, _, err := t.functab(0)
	if err != nil {
		return false, err
	}
	last, _, err := t.functab(t.h.nfunc)
	if err != nil {
		return false, err
	}
	if uint64(text)+uint64(first) != minPC || uint64(text)+uint64(last) != maxPC {
		return false, nil
	}
	return t.isCode(minPC, maxPC), nil
}

func (t *Table) isCode(from, to uint64) bool {
	for _, s := range t.o.Segments {
		if s.Exec && from >= uint64(s.Addr) && from < to && to <= uint64(s.Addr)+s.FileSize {
			return true
		}
	}
	return false
}

// moduleFromSymbols finds runtime.text and go:func.* by name, or takes the start of
// the code from the header of the table.
func (t *Table) moduleFromSymbols() (module, error) {
	m := module{text: t.h.start}
	syms, err := t.o.Symbols(objfile.SymTab)
	if err == nil {
		names := syms.Names()
		err = syms.All(func(_ int, s objfile.Symbol) bool {
			name, err := names.Bytes(s.Name)
			switch {
			case err != nil:
			case string(name) == "runtime.text":
				m.text = s.Value
			case string(name) == "go:func.*", string(name) == "go.func.*":
				m.gofunc = s.Value
			}
			return true
		})
	}
	if err != nil && !errors.Is(err, objfile.ErrNotFound) {
		return module{}, err
	}
	t.m.text = m.text
	first, _, err := t.functab(0)
	if err != nil {
		return module{}, err
	}
	last, _, err := t.functab(t.h.nfunc)
	if err != nil {
		return module{}, err
	}
	if m.text == 0 || !t.isCode(uint64(m.text)+uint64(first), uint64(m.text)+uint64(last)) {
		return module{}, fmt.Errorf("moduledata, or symbol runtime.text: %w", objfile.ErrNotFound)
	}
	return m, nil
}
