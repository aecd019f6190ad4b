// SPDX-License-Identifier: Apache-2.0

package objfile

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"

	"github.com/lowflame/lowflame/internal/hostile"
	"github.com/lowflame/lowflame/stack"
)

// SymTable names one of the two symbol tables of a file.
type SymTable uint8

// The symbol tables.
const (
	SymTab SymTable = iota // .symtab: every symbol, gone when stripped
	DynSym                 // .dynsym: imported and exported symbols
)

func (t SymTable) String() string {
	if t == DynSym {
		return ".dynsym"
	}
	return ".symtab"
}

// Symbol is an entry of a symbol table (gABI chapter 4, "Symbol Table").
type Symbol struct {
	Value stack.LinkAddr
	Size  uint64
	Name  uint32 // for Symbols.Name
	Type  elf.SymType
	Bind  elf.SymBind
	// Section is the index of the defining section, or SHN_UNDEF, SHN_ABS, ….
	Section elf.SectionIndex
}

const (
	symbolSize = 24 // Elf64_Sym
	// maxSymbols is 60 times what Chromium has.
	maxSymbols = 1 << 25
	// MaxName is the longest symbol name that is read, in bytes; C++ has some
	// of 20 kB.
	MaxName = 64 << 10
)

// Symbols is one symbol table of a file, with its names. It holds no part of the
// table: names are read when asked for. Safe for concurrent use.
type Symbols struct {
	// Len is the number of symbols, the null symbol included.
	Len int

	o       *Object
	off     uint64 // of the symbols in the file
	str     uint64 // of the names
	strSize uint64
}

// Symbols returns a symbol table: .symtab, or .dynsym, found through PT_DYNAMIC
// where section headers do not show it; then symbols that the file does not define
// may be missing. It wraps ErrNotFound if the file has none, and a *FormatError if
// it lies outside the file.
func (o *Object) Symbols(table SymTable) (*Symbols, error) {
	want := elf.SHT_SYMTAB
	if table == DynSym {
		want = elf.SHT_DYNSYM
	}
	for i := range o.Sections {
		if s := &o.Sections[i]; s.Type == want {
			str, ok := o.section(s.Link)
			if !ok || str.Type != elf.SHT_STRTAB {
				break
			}
			syms, err := o.newSymbols(s.Off, s.Size/symbolSize, str.Off, str.Size)
			if err == nil || table == SymTab {
				return syms, err
			}
			break
		}
	}
	if table == SymTab {
		return nil, fmt.Errorf("%v: %w", table, ErrNotFound)
	}
	return o.dynSymbols()
}

func (o *Object) dynSymbols() (*Symbols, error) {
	tags, err := o.dynamic()
	if err != nil {
		return nil, err
	}
	sym, rest, ok := o.locate(stack.LinkAddr(tags[elf.DT_SYMTAB]))
	str, strRest, strOK := o.locate(stack.LinkAddr(tags[elf.DT_STRTAB]))
	if !ok || !strOK || tags[elf.DT_SYMTAB] == 0 || tags[elf.DT_STRTAB] == 0 {
		return nil, fmt.Errorf("%v: %w", DynSym, ErrNotFound)
	}
	n, err := o.countDynSyms(tags)
	if err != nil {
		return nil, err
	}
	return o.newSymbols(uint64(sym), min(n, rest/symbolSize), uint64(str), min(strRest, tags[elf.DT_STRSZ]))
}

func (o *Object) newSymbols(off, n, str, strSize uint64) (*Symbols, error) {
	n = min(n, maxSymbols)
	if !o.has(off, n*symbolSize) {
		return nil, &FormatError{off, "symbol table lies outside the file"}
	}
	if !o.has(str, strSize) {
		return nil, &FormatError{str, "symbol names lie outside the file"}
	}
	return &Symbols{Len: int(n), o: o, off: off, str: str, strSize: strSize}, nil
}

// All calls yield for each symbol in the order of the table, with its index, until
// it returns false. It reads 64 KiB at a time.
func (s *Symbols) All(yield func(i int, sym Symbol) bool) error {
	i := -1
	err := s.o.eachRecord(s.off, uint64(s.Len), symbolSize, func(b []byte) bool {
		i++
		return yield(i, decodeSymbol(b))
	})
	if err != nil {
		return fmt.Errorf("read symbols: %w", err)
	}
	return nil
}

func decodeSymbol(b []byte) Symbol {
	return Symbol{
		Name:    binary.LittleEndian.Uint32(b),
		Type:    elf.SymType(b[4] & 15),
		Bind:    elf.SymBind(b[4] >> 4),
		Section: elf.SectionIndex(binary.LittleEndian.Uint16(b[6:])),
		Value:   stack.LinkAddr(binary.LittleEndian.Uint64(b[8:])),
		Size:    binary.LittleEndian.Uint64(b[16:]),
	}
}

// Name returns the name that Symbol.Name stands for, with one small read in most
// cases. It fails if the name lies outside the table or is longer than MaxName.
func (s *Symbols) Name(name uint32) (string, error) {
	var small [128]byte
	buf := small[:]
	for {
		rest := s.strSize - min(s.strSize, uint64(name))
		p := buf[:min(uint64(len(buf)), rest)]
		if err := s.o.read(p, s.str+uint64(name)); err != nil {
			return "", fmt.Errorf("read symbol name: %w", err)
		}
		if end := bytes.IndexByte(p, 0); end >= 0 {
			return string(p[:end]), nil
		}
		if len(p) < len(buf) || len(buf) >= MaxName {
			return "", &FormatError{s.str + uint64(name), "symbol name has no end"}
		}
		buf = make([]byte, min(8*len(buf), MaxName))
	}
}

// Names reads many names of one table, through a cache of 64 KiB that it gives up
// with itself. Not safe for concurrent use.
type Names struct {
	s      *Symbols
	blocks *hostile.Blocks
	buf    []byte
}

// Names returns a reader for many names.
func (s *Symbols) Names() *Names {
	return &Names{s: s, blocks: hostile.NewBlocks(s.o.r, int64(s.str+s.strSize), 16)}
}

// Bytes returns the name that Symbol.Name stands for, valid until the next call.
// It fails as Symbols.Name does.
func (n *Names) Bytes(name uint32) ([]byte, error) {
	var err error
	n.buf, err = n.blocks.AppendCString(n.buf[:0], int64(n.s.str+uint64(name)), MaxName-1)
	if err != nil {
		return nil, fmt.Errorf("read symbol name: %w", err)
	}
	return n.buf, nil
}
