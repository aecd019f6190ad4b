// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"bytes"
	"debug/elf"

	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/stack"
)

// Code without call frame information about which something is known all the
// same: the first instructions of a program, which nobody called, and the
// trampoline that ends a signal handler. The dynamic linker of glibc lacks it
// for the former, musl for both, the arm64 vDSO on purpose for the latter
// (kernel: 87676cfca141 "Disable dwarf unwinding through the sigreturn
// trampoline").
const (
	// entrySize is how much code the entry point may have: glibc's takes 60
	// bytes on x86-64.
	entrySize = 128
	// maxGapScan bounds the search for trampolines, bytes of code. Binaries with
	// more code without CFI are not C libraries.
	maxGapScan = 4 << 20
)

// sigreturnCode returns the instructions of a signal return trampoline, which
// can be nothing else: a system call of rt_sigreturn.
func (a Arch) sigreturnCode() []byte {
	if a == ARM64 {
		return []byte{0x68, 0x11, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4} // mov x8, #139; svc #0
	}
	return []byte{0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05} // mov $15, %rax; syscall
}

// gap is a stretch of addresses.
type gap struct{ begin, end uint64 }

// within returns what of g lies in o.
func (g gap) within(o gap) gap { return gap{max(g.begin, o.begin), min(g.end, o.end)} }

// each calls f for each row of the piece, in order.
func (p *Piece) each(f func(pc uint64, r Rule)) {
	pc := uint64(p.Start)
	dict := p.Words[p.Dict:p.Wide]
	for i, row := range p.Words[p.Row:p.Dict] {
		if i > 0 {
			pc += uint64(uint16(row - p.Words[p.Row+uint32(i)-1]))
		}
		run := dict[row>>16:]
		f(pc, Rule(run[0]>>8))
		for _, w := range run[1 : run[0]&0xff] {
			f(pc+uint64(w&0xff), Rule(w>>8))
		}
	}
}

// entryCode returns the code at the entry point, which nobody called.
func entryCode(o *objfile.Object, src *sources) gap {
	entry := uint64(o.Entry)
	end := min(entry+entrySize, src.code(entry))
	if end > entry && o.Machine == elf.EM_X86_64 {
		end = entryEnd(o, entry, end)
	}
	return gap{entry, end}
}

// entryRows returns rows for that code.
func entryRows(code gap) []span {
	if code.end <= code.begin {
		return nil
	}
	return []span{{code.begin, MakeRule(KindEnd, 0, 0)}, {code.end, 0}}
}

// entryEnd returns where the code at the entry point ends: where nothing goes on
// from, or where the first function it calls begins. What lies behind it was
// called like any other function.
func entryEnd(o *objfile.Object, entry, end uint64) uint64 {
	code := make([]byte, end-entry)
	n, _ := o.ReadAt(code, stack.LinkAddr(entry))
	for pc := entry; pc < min(end, entry+uint64(n)); {
		in, ok := decodeX86(code[pc-entry : n])
		if !ok {
			break
		}
		pc += uint64(in.size)
		switch target := pc + uint64(int64(in.imm)); in.op {
		case x86Call:
			if target > entry {
				end = min(end, max(target, pc))
			}
		case x86Ret, x86Jmp, x86JmpTo, x86Trap:
			return min(end, pc)
		}
	}
	return end
}

// findRows returns rows for signal trampolines in gaps.
func findRows(o *objfile.Object, arch Arch, gaps []gap) []span {
	var rows []span
	scan := uint64(maxGapScan)
	code := arch.sigreturnCode()
	for _, g := range gaps {
		size := g.end - g.begin
		if size > scan || size < uint64(len(code)) {
			continue
		}
		scan -= size
		text := make([]byte, size)
		n, _ := o.ReadAt(text, stack.LinkAddr(g.begin))
		begin := g.begin
		for text = text[:n]; ; {
			at := bytes.Index(text, code)
			if at < 0 {
				break
			}
			// A handler returns to the first byte, so its frame is looked up
			// by the byte before, see Frame.Lookup.
			begin += uint64(at)
			rows = append(rows, span{max(begin, 1) - 1, MakeRule(KindSignal, 0, 0)}, span{begin + uint64(len(code)), 0})
			begin, text = begin+uint64(len(code)), text[at+len(code):]
		}
	}
	return rows
}
