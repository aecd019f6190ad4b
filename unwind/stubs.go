// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"debug/elf"
	"encoding/binary"
	"strings"

	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/stack"
)

// Stubs that jump to a function through a slot which the dynamic linker, or the
// start-up code of a static program for what IFUNC resolvers chose, has filled. GNU ld
// writes call frame information for those of dynamic x86-64 files only. They leave
// stack, frame pointer and link register alone.

// maxStubs bounds the code of stubs that is looked at, bytes.
const maxStubs = 4 << 20

// stubRows returns rows for the stubs in gaps, which must be in order.
func stubRows(o *objfile.Object, arch Arch, gaps []gap) []span {
	var rows []span
	left := uint64(maxStubs)
	for _, s := range o.Sections {
		if s.Flags&elf.SHF_EXECINSTR == 0 || !strings.HasPrefix(s.Name, ".plt") && !strings.HasPrefix(s.Name, ".iplt") {
			continue
		}
		var found []span
		for _, g := range gaps {
			in := g.within(gap{uint64(s.Addr), uint64(s.Addr) + s.Size})
			if in.begin >= in.end || in.end-in.begin > left {
				continue
			}
			left -= in.end - in.begin
			code := make([]byte, in.end-in.begin)
			n, _ := o.ReadAt(code, stack.LinkAddr(in.begin))
			if arch == ARM64 {
				found = stubsARM64(found, in.begin, code[:n])
			} else {
				found = stubsX86(found, in.begin, code[:n])
			}
		}
		rows = overlay(rows, found) // sections may come in any order, or overlap
	}
	return rows
}

// stubsX86 appends a row for code that consists of stubs and what fills the room
// between them: jmp *slot(%rip), behind a landing pad for indirect branches or not.
func stubsX86(rows []span, pc uint64, code []byte) []span {
	jumps := 0
	for rest := code; len(rest) > 0; {
		in, ok := decodeX86(rest)
		switch {
		case !ok:
			return rows
		case in.op == x86JmpTo && in.rm == regRIP:
			jumps++
		case in.op != x86Nop && in.op != x86Trap:
			return rows
		}
		rest = rest[in.size:]
	}
	if jumps == 0 {
		return rows
	}
	return append(rows, span{pc, MakeRule(KindSP, FPSame, 1)}, span{pc + uint64(len(code)), 0})
}

// pushX16LR begins the header for lazy binding, which ends like a stub.
const pushX16LR = 0xa9bf7bf0 // stp x16, x30, [sp, #-16]!

// stubsARM64 appends rows for the stubs in code: adrp x16, slot; ldr x17, [x16];
// add x16, x16; br x17.
func stubsARM64(rows []span, pc uint64, code []byte) []span {
	stub := [4]struct{ mask, want uint32 }{
		{0x9f00001f, 0x90000010}, {0xffc003ff, 0xf9400211}, {0xffc003ff, 0x91000210}, {0xffffffff, 0xd61f0220},
	}
	for at, matched := 0, 0; at+4 <= len(code); at += 4 {
		inst := binary.LittleEndian.Uint32(code[at:])
		if matched > 0 && inst&stub[matched].mask != stub[matched].want {
			matched = 0
		}
		if inst&stub[matched].mask == stub[matched].want {
			matched++
		}
		if matched < len(stub) {
			continue
		}
		matched = 0
		begin, end := pc+uint64(at)-12, pc+uint64(at)+4
		if at >= 16 && binary.LittleEndian.Uint32(code[at-16:]) == pushX16LR {
			continue
		}
		if lastEnds(rows, begin) {
			rows = rows[:len(rows)-1]
		} else {
			rows = append(rows, span{begin, MakeRule(KindSP, FPSame, 0)})
		}
		rows = append(rows, span{end, 0})
	}
	return rows
}

// lastEnds reports whether the last of rows ends at pc.
func lastEnds(rows []span, pc uint64) bool {
	return len(rows) > 0 && rows[len(rows)-1].pc == pc
}
