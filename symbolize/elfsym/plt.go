// SPDX-License-Identifier: Apache-2.0

package elfsym

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"strings"

	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/stack"
)

const (
	relaSize = 24 // Elf64_Rela
	// maxRelocs bounds the relocations looked at for stubs.
	maxRelocs = 4 << 20
	// maxPLT bounds the bytes of stubs, 16 each.
	maxPLT = 4 << 20
)

// isPLTSection reports whether s has stubs: .plt, .plt.sec, .plt.got, and what lld
// calls .iplt. In files of symbols their bytes are left out.
func isPLTSection(s *objfile.Section) bool {
	return s.Type != elf.SHT_NOBITS && s.Flags&elf.SHF_EXECINSTR != 0 &&
		(strings.HasPrefix(s.Name, ".plt") || s.Name == ".iplt")
}

func (b *builder) hasPLT() bool {
	for i := range b.o.Sections {
		if isPLTSection(&b.o.Sections[i]) {
			return true
		}
	}
	return false
}

// target is what the dynamic linker writes to a slot of the global offset table.
type target struct {
	name     nameRef        // of the symbol, or 0
	resolver stack.LinkAddr // for IRELATIVE
}

// slots maps slots of the global offset table to what they lead to; order lists
// the slots in the order of .rela.plt, which lazy stubs push.
type slots struct {
	at    map[stack.LinkAddr]target
	order []stack.LinkAddr
}

// collectPLT names the stubs in .plt, .plt.sec and .plt.got. It decodes them
// rather than count them, because how many there are in a section and in which
// order depends on the linker.
func (b *builder) collectPLT() error {
	if b.o.Machine != elf.EM_X86_64 && b.o.Machine != elf.EM_AARCH64 || !b.hasPLT() {
		return nil
	}
	sl := slots{at: map[stack.LinkAddr]target{}}
	var errs []error
	_, got := b.o.Section(".plt.got")
	_, iplt := b.o.Section(".iplt")
	for _, name := range []string{".rela.plt", ".rela.dyn", ".rela.iplt"} {
		if s, ok := b.o.Section(name); ok && (got || iplt || name != ".rela.dyn") {
			errs = append(errs, b.readSlots(s, &sl))
		}
	}
	for i := range b.o.Sections {
		s := &b.o.Sections[i]
		if !isPLTSection(s) {
			continue
		}
		code, err := b.o.Data(*s, maxPLT)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		b.addStubs(s, code, &sl)
	}
	return errors.Join(errs...)
}

// readSlots takes the relocations that fill slots for functions.
func (b *builder) readSlots(s objfile.Section, sl *slots) error {
	r, err := b.o.Raw(s)
	if err != nil {
		return err
	}
	lazy := s.Name != ".rela.dyn"
	buf := make([]byte, 2048*relaSize)
	for n := 0; n < maxRelocs; {
		got, err := io.ReadFull(r, buf)
		for ; got >= relaSize; got -= relaSize {
			e := buf[n%2048*relaSize:][:relaSize]
			n++
			b.takeReloc(e, lazy, sl)
		}
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return nil
			}
			return err
		}
	}
	return nil
}

// takeReloc takes one Elf64_Rela: offset, info, addend.
func (b *builder) takeReloc(e []byte, lazy bool, sl *slots) {
	slot := stack.LinkAddr(binary.LittleEndian.Uint64(e))
	info := binary.LittleEndian.Uint64(e[8:])
	var t target
	switch b.kind(uint32(info)) {
	case relocSymbol:
		if i := info >> 32; i < uint64(len(b.dynNames)) && nameRef(b.dynNames[i])&^nameMask == 0 {
			t.name = nameRef(b.dynNames[i]) | inDynSym
		}
	case relocResolver:
		t.resolver = stack.LinkAddr(binary.LittleEndian.Uint64(e[16:]))
	default:
		if !lazy {
			return
		}
	}
	sl.at[slot] = t
	if lazy {
		sl.order = append(sl.order, slot)
	}
}

type relocKind uint8

const (
	relocOther relocKind = iota
	relocSymbol
	relocResolver
)

func (b *builder) kind(typ uint32) relocKind {
	if b.o.Machine == elf.EM_X86_64 {
		switch elf.R_X86_64(typ) {
		case elf.R_X86_64_JMP_SLOT, elf.R_X86_64_GLOB_DAT:
			return relocSymbol
		case elf.R_X86_64_IRELATIVE:
			return relocResolver
		}
		return relocOther
	}
	switch elf.R_AARCH64(typ) {
	case elf.R_AARCH64_JUMP_SLOT, elf.R_AARCH64_GLOB_DAT:
		return relocSymbol
	case elf.R_AARCH64_IRELATIVE:
		return relocResolver
	}
	return relocOther
}

// addStubs finds the stubs in the code of one section.
func (b *builder) addStubs(s *objfile.Section, code []byte, sl *slots) {
	step, decode := 8, decodeX86
	if b.o.Machine == elf.EM_AARCH64 {
		step, decode = 4, decodeARM64
	}
	var resolvers map[stack.LinkAddr]nameRef
	for off := 0; off+8 <= len(code); off += step {
		addr := s.Addr + stack.LinkAddr(off)
		slot, size, ok := decode(code[off:], addr, sl)
		if !ok {
			continue
		}
		t := sl.at[slot]
		if t.resolver != 0 {
			if resolvers == nil {
				resolvers = b.symbolsByAddr(sl)
			}
			t.name = resolvers[t.resolver]
		}
		if t.name&nameMask != 0 {
			b.add(symbol{addr: addr, size: uint32(size), name: t.name | isPLT, class: stub})
			off += size - step
		}
	}
}

// symbolsByAddr returns the best name known so far of each resolver.
func (b *builder) symbolsByAddr(sl *slots) map[stack.LinkAddr]nameRef {
	found := map[stack.LinkAddr]*symbol{}
	for _, t := range sl.at {
		if t.resolver != 0 {
			found[t.resolver] = nil
		}
	}
	var rivals []*symbol
	for i := range b.syms {
		if _, ok := found[b.syms[i].addr]; ok {
			rivals = append(rivals, &b.syms[i])
		}
	}
	b.examine(rivals)
	for _, s := range rivals {
		if best := found[s.addr]; best == nil || compareAliases(s, best) < 0 {
			found[s.addr] = s
		}
	}
	names := map[stack.LinkAddr]nameRef{}
	for addr, s := range found {
		if s != nil {
			names[addr] = s.name
		}
	}
	return names
}

// decodeX86 recognizes a stub: [endbr64] [bnd] jmp *disp(%rip), or the lazy
// [endbr64] push $index; [bnd] jmp header. See x86-64 psABI §5.2 and its IBT
// variant.
func decodeX86(c []byte, addr stack.LinkAddr, sl *slots) (slot stack.LinkAddr, size int, ok bool) {
	if len(c) > 16 {
		c = c[:16]
	}
	i := 0
	if len(c) >= 4 && binary.LittleEndian.Uint32(c) == 0xfa1e0ff3 { // endbr64
		i = 4
	}
	if i < len(c) && c[i] == 0xf2 { // bnd
		i++
	}
	if len(c) < i+6 {
		return 0, 0, false
	}
	switch {
	case c[i] == 0xff && c[i+1] == 0x25:
		disp := int32(binary.LittleEndian.Uint32(c[i+2:]))
		slot = addr + stack.LinkAddr(i+6) + stack.LinkAddr(int64(disp))
		_, ok = sl.at[slot]
		// A stub in .plt.got without IBT is 8 bytes, all others are 16.
		size = 16
		if i == 0 && len(c) >= 8 && c[6] == 0x66 && c[7] == 0x90 {
			size = 8
		}
		return slot, min(size, len(c)), ok
	case c[i] == 0x68 && i == 4:
		n := binary.LittleEndian.Uint32(c[i+1:])
		if uint64(n) < uint64(len(sl.order)) {
			return sl.order[n], min(16, len(c)), true
		}
	}
	return 0, 0, false
}

// decodeARM64 recognizes [bti c]; adrp x16, page; ldr x17, [x16, #off]; add x16, …;
// [autia1716]; br x17. With either of the optional instructions a stub has 24 bytes.
// See ELF for the Arm 64-bit Architecture, "Procedure Linkage Table".
func decodeARM64(c []byte, addr stack.LinkAddr, sl *slots) (slot stack.LinkAddr, size int, ok bool) {
	i := 0
	if binary.LittleEndian.Uint32(c) == 0xd503245f { // bti c
		i = 4
	}
	if len(c) < i+8 {
		return 0, 0, false
	}
	adrp, ldr := binary.LittleEndian.Uint32(c[i:]), binary.LittleEndian.Uint32(c[i+4:])
	if adrp&0x9f00001f != 0x90000010 || ldr&0xffc003ff != 0xf9400211 {
		return 0, 0, false
	}
	imm := int64(adrp>>29&3) | int64(adrp>>5&0x7ffff)<<2
	imm = imm << 43 >> 43 // 21 bits, signed
	page := (addr + stack.LinkAddr(i)) &^ 0xfff
	slot = page + stack.LinkAddr(imm<<12) + stack.LinkAddr(ldr>>10&0xfff)*8
	_, ok = sl.at[slot]
	size = 16
	if i > 0 || len(c) >= 24 && binary.LittleEndian.Uint32(c[12:]) == 0xd503219f { // autia1716
		size = 24
	}
	return slot, min(size, len(c)), ok
}
