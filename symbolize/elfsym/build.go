// SPDX-License-Identifier: Apache-2.0

package elfsym

import (
	"bytes"
	"cmp"
	"debug/elf"
	"errors"
	"math"
	"slices"

	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/stack"
)

// symbol is a candidate while a table is built.
type symbol struct {
	addr  stack.LinkAddr
	size  uint32
	name  nameRef
	class class
	weak  bool
	look  look
}

// class orders the symbols of one address before their names do: the lower, the
// better.
type class uint8

const (
	exported class = 1 << iota // in .dynsym: .symtab has the same and more
	local
	untyped
	sizeless
	stub // a symbol at a stub knows better
)

// look is what of a name decides between names of one address, the lower, the
// better: how many underscores it begins with, and its length.
type look struct {
	underscores uint8
	length      uint16
}

// codeRange is a piece of executable memory: a section, or a segment in files
// without sections.
type codeRange struct {
	start, end stack.LinkAddr
}

type builder struct {
	o         *objfile.Object
	code      []codeRange // sorted
	last      codeRange   // of code: where the last address was found
	syms      []symbol
	names     [2]*objfile.Names // by objfile.SymTable; nil if there are none
	dynNames  []uint32          // name of each dynamic symbol, if there are stubs
	budget    int               // bytes of names that may still be looked at
	symTabLen int
	truncated bool
}

// nameBudget bounds the names read to choose between symbols of one address;
// node takes 2 MB.
const nameBudget = 64 << 20

func newBuilder(o *objfile.Object) *builder {
	b := &builder{o: o, budget: nameBudget}
	for i := range o.Sections {
		s := &o.Sections[i]
		if s.Flags&elf.SHF_ALLOC != 0 && s.Flags&elf.SHF_EXECINSTR != 0 && s.Size > 0 {
			b.code = append(b.code, codeRange{s.Addr, clampEnd(s.Addr, s.Size)})
		}
	}
	if len(b.code) == 0 {
		for _, s := range o.Segments {
			if s.Exec && s.MemSize > 0 {
				b.code = append(b.code, codeRange{s.Addr, clampEnd(s.Addr, s.MemSize)})
			}
		}
	}
	slices.SortFunc(b.code, func(a, c codeRange) int { return cmp.Compare(a.start, c.start) })
	return b
}

func clampEnd(start stack.LinkAddr, n uint64) stack.LinkAddr {
	if e := start + stack.LinkAddr(n); e >= start {
		return e
	}
	return math.MaxUint64
}

// codeAt returns the executable range that contains addr.
func (b *builder) codeAt(addr stack.LinkAddr) (codeRange, bool) {
	if b.last.start <= addr && addr < b.last.end {
		return b.last, true
	}
	i, ok := slices.BinarySearchFunc(b.code, addr, func(c codeRange, a stack.LinkAddr) int {
		return cmp.Compare(c.start, a)
	})
	if !ok {
		i--
	}
	if i < 0 || addr >= b.code[i].end {
		return codeRange{}, false
	}
	b.last = b.code[i]
	return b.last, true
}

// collect takes the functions of one symbol table.
func (b *builder) collect(which objfile.SymTable) error {
	table, err := b.o.Symbols(which)
	if errors.Is(err, objfile.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if which == objfile.SymTab {
		b.symTabLen = table.Len
	}
	b.names[which] = table.Names()
	b.syms = slices.Grow(b.syms, min(table.Len, 1<<18))
	// A .symtab that strip left whole has all that .dynsym has.
	repeats := which == objfile.DynSym && b.symTabLen >= table.Len
	keepNames := which == objfile.DynSym && b.hasPLT()
	return table.All(func(i int, s objfile.Symbol) bool {
		if keepNames && len(b.dynNames) < maxFuncs {
			b.dynNames = append(b.dynNames, s.Name)
		}
		if !repeats {
			if c, ok := b.accept(&s, which); ok {
				b.add(c)
			}
		}
		return i < maxScanned && (keepNames || !repeats)
	})
}

func (b *builder) add(s symbol) {
	if len(b.syms) >= maxFuncs {
		b.truncated = true
		return
	}
	b.syms = append(b.syms, s)
}

// accept turns a symbol into a candidate if it is defined in executable code.
func (b *builder) accept(s *objfile.Symbol, which objfile.SymTable) (symbol, bool) {
	if s.Section == elf.SHN_UNDEF || nameRef(s.Name)&^nameMask != 0 || s.Name == 0 {
		return symbol{}, false
	}
	c := symbol{addr: s.Value, name: nameRef(s.Name), size: uint32(min(s.Size, math.MaxUint32))}
	switch s.Type {
	case elf.STT_FUNC, elf.STT_GNU_IFUNC:
	case elf.STT_NOTYPE:
		c.class |= untyped
	default:
		return symbol{}, false
	}
	if _, ok := b.codeAt(s.Value); !ok {
		return symbol{}, false
	}
	if c.class&untyped != 0 && (s.Section >= elf.SHN_LORESERVE || !b.isCode(which, s.Name)) {
		return symbol{}, false
	}
	if s.Size == 0 {
		c.class |= sizeless
	}
	if s.Bind == elf.STB_LOCAL {
		c.class |= local
	}
	c.weak = s.Bind == elf.STB_WEAK
	if which == objfile.DynSym {
		c.name |= inDynSym
		c.class |= exported
	}
	return c, true
}

// isCode reports whether a symbol without a type may be a function by its name:
// no mapping symbol ($x, $d: ELF for the Arm 64-bit Architecture §5.4), no label
// the assembler kept, no end marker of the linker.
func (b *builder) isCode(which objfile.SymTable, name uint32) bool {
	s := b.read(which, name)
	return len(s) > 0 && s[0] != '$' && !bytes.HasPrefix(s, []byte(".L")) &&
		!bytes.HasSuffix(s, []byte("etext"))
}

// read returns a name, valid until the next call; nil when the budget is used up.
func (b *builder) read(which objfile.SymTable, name uint32) []byte {
	if b.budget <= 0 || b.names[which] == nil {
		return nil
	}
	s, err := b.names[which].Bytes(name)
	b.budget -= len(s) + 1
	if err != nil {
		b.budget -= objfile.MaxName
		return nil
	}
	return s
}

// compareAliases orders symbols by address, and those of one address from the
// best to the worst.
func compareAliases(x, y *symbol) int {
	switch {
	case x.addr != y.addr:
		return cmp.Compare(x.addr, y.addr)
	case x.class != y.class:
		return cmp.Compare(x.class, y.class)
	case x.look.underscores != y.look.underscores:
		return cmp.Compare(x.look.underscores, y.look.underscores)
	case x.weak != y.weak:
		if y.weak {
			return -1
		}
		return 1
	case x.look.length != y.look.length:
		return cmp.Compare(x.look.length, y.look.length)
	}
	return 0
}

// pick sorts the candidates and keeps the best of each address.
//
// Names are looked at only where they decide, and in the order in which they lie
// in the file: in the order of addresses each would be a read of its own.
func (b *builder) pick() {
	b.syms = sortByAddr(b.syms)
	var rivals []*symbol
	eachAddr(b.syms, func(same []symbol) {
		top := same[0].class
		for i := range same {
			top = min(top, same[i].class)
		}
		first := len(rivals)
		for i := range same {
			if same[i].class == top {
				rivals = append(rivals, &same[i])
			}
		}
		if len(rivals) == first+1 {
			rivals = rivals[:first]
		}
	})
	b.examine(rivals)
	kept := b.syms[:0]
	eachAddr(b.syms, func(same []symbol) {
		best := &same[0]
		for i := range same[1:] {
			// Of equal ones the last, as llvm-symbolizer: C1 and C2 of a constructor.
			if compareAliases(&same[1+i], best) <= 0 {
				best = &same[1+i]
			}
		}
		kept = append(kept, *best)
	})
	b.syms = kept
}

// eachAddr calls f for each run of symbols of one address.
func eachAddr(syms []symbol, f func(same []symbol)) {
	for i := 0; i < len(syms); {
		j := i + 1
		for j < len(syms) && syms[j].addr == syms[i].addr {
			j++
		}
		f(syms[i:j])
		i = j
	}
}

// examine fills in the looks of syms.
func (b *builder) examine(syms []*symbol) {
	keys := make([]uint64, len(syms)) // name, index: numbers sort faster than what they stand for
	for i, s := range syms {
		keys[i] = uint64(s.name)<<32 | uint64(i)
	}
	slices.Sort(keys)
	var last *symbol
	for _, k := range keys {
		s := syms[uint32(k)]
		if last != nil && s.name == last.name {
			s.look = last.look
			continue
		}
		last = s
		which := objfile.SymTab
		if s.name&inDynSym != 0 {
			which = objfile.DynSym
		}
		s.look = lookAt(b.read(which, uint32(s.name&nameMask)))
	}
}

// lookAt returns the look of a name. In the vDSO the names with the prefix are the
// proper ones, and the others are weak aliases.
func lookAt(name []byte) look {
	if name == nil {
		return look{underscores: math.MaxUint8}
	}
	l := look{length: uint16(min(len(name), math.MaxUint16))}
	if bytes.HasPrefix(name, []byte("__vdso_")) || bytes.HasPrefix(name, []byte("__kernel_")) {
		return l
	}
	l.underscores = 1
	for _, c := range name {
		if c != '_' || l.underscores == math.MaxUint8 {
			break
		}
		l.underscores++
	}
	return l
}
