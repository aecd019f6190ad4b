// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"debug/elf"
	"fmt"
	"testing"

	"golang.org/x/arch/x86/x86asm"
)

// textOf returns the .text of a file.
func textOf(tb testing.TB, path string) []byte {
	tb.Helper()
	f, err := elf.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	b, err := f.Section(".text").Data()
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// TestDecodeX86 compares length, kind, and the stack and frame pointer's fate with
// what golang.org/x/arch makes of every instruction of real programs. It takes ten
// times as long, and vzeroupper for an instruction with operands.
func TestDecodeX86(t *testing.T) {
	for _, path := range []string{
		"/usr/lib/x86_64-linux-gnu/libc.so.6", "/usr/bin/git", "/usr/bin/python3.11",
		"/usr/lib/x86_64-linux-gnu/libstd-*.so", "/usr/lib/x86_64-linux-gnu/libm.so.6",
	} {
		path := library(t, path)
		b := textOf(t, path)
		n, unknown, bad := 0, 0, map[string]int{}
		for len(b) > 0 {
			want, err := x86asm.Decode(b[:min(len(b), 16)], 64)
			got, ok := decodeX86(b)
			if err != nil || want.Op == 0 || want.Op == x86asm.VZEROUPPER || want.Op == x86asm.VZEROALL {
				if !ok {
					got.size = 1
					unknown++
				}
				b = b[got.size:]
				continue
			}
			n++
			if why := differs(&got, &want); !ok || why != "" {
				if bad[want.Op.String()]++; bad[want.Op.String()] == 1 {
					t.Errorf("% x: %v: %v %s, decoded as %+v", b[:want.Len], want, ok, why, got)
				}
			}
			b = b[want.Len:]
		}
		t.Logf("%s: %d instructions, %d bytes unknown to both, bad %v", path, n, unknown, bad)
		if n < 50_000 || unknown > n/1000 {
			t.Errorf("only %d instructions, %d bytes unknown", n, unknown)
		}
	}
}

// differs compares two decodings of one instruction.
func differs(got *x86Inst, want *x86asm.Inst) string {
	if int(got.size) != want.Len {
		return fmt.Sprintf("size %d", want.Len)
	}
	op := x86Other
	switch want.Op {
	case x86asm.PUSH, x86asm.PUSHFQ:
		op = x86Push
	case x86asm.POP, x86asm.POPFQ:
		op = x86Pop
	case x86asm.RET:
		op = x86Ret
	case x86asm.LEAVE:
		op = x86Leave
	case x86asm.UD0, x86asm.UD1, x86asm.UD2, x86asm.HLT:
		op = x86Trap
	case x86asm.JMP:
		if op = x86JmpTo; isRel(want) {
			op = x86Jmp
		}
	case x86asm.CALL:
		if op = x86CallTo; isRel(want) {
			op = x86Call
		}
	default:
		if isRel(want) && want.Op != x86asm.XBEGIN {
			op = x86Jcc
		}
	}
	if op != x86Other && got.op != op {
		return fmt.Sprintf("kind %d", op)
	}
	if rel, ok := want.Args[0].(x86asm.Rel); ok && int32(rel) != got.imm {
		return "distance"
	}
	// Whatever has RSP or RBP for its first operand changes it, but for these.
	switch want.Op {
	case x86asm.CMP, x86asm.TEST, x86asm.PUSH, x86asm.BT, x86asm.CALL, x86asm.JMP, x86asm.MUL, x86asm.DIV, x86asm.IDIV, x86asm.NOP:
		return ""
	case x86asm.IMUL:
		if want.Args[1] == nil {
			return ""
		}
	}
	for _, r := range []struct {
		enc   uint8
		names [4]x86asm.Reg
	}{
		{encRSP, [4]x86asm.Reg{x86asm.RSP, x86asm.ESP, x86asm.SP, x86asm.SPB}},
		{encRBP, [4]x86asm.Reg{x86asm.RBP, x86asm.EBP, x86asm.BP, x86asm.BPB}},
		{encR10, [4]x86asm.Reg{x86asm.R10, x86asm.R10L, x86asm.R10W, x86asm.R10B}},
		{encR11, [4]x86asm.Reg{x86asm.R11, x86asm.R11L, x86asm.R11W, x86asm.R11B}},
	} {
		reg, _ := want.Args[0].(x86asm.Reg)
		writes := reg != 0 && (reg == r.names[0] || reg == r.names[1] || reg == r.names[2] || reg == r.names[3])
		if writes && !got.changes(r.enc) {
			return "does not change " + reg.String()
		}
	}
	return ""
}

// changes reports whether in changes a register, by what step makes of it.
func (in *x86Inst) changes(reg uint8) bool {
	switch in.op {
	case x86Pop, x86Mov, x86Lea, x86Load, x86AddImm, x86SubReg, x86MovImm, x86Clear:
		return in.reg == reg
	}
	return in.writes>>reg&1 != 0
}

func isRel(in *x86asm.Inst) bool {
	_, ok := in.Args[0].(x86asm.Rel)
	return ok
}

// FuzzDecodeX86 checks that decoding ends, within the bytes it was given.
func FuzzDecodeX86(f *testing.F) {
	f.Add([]byte{0x48, 0x83, 0xec, 0x18})
	f.Add([]byte{0x62, 0xf1, 0xfd, 0x48, 0x6f, 0x05, 1, 2, 3, 4})
	f.Add([]byte{0xc4, 0xe2, 0xfb, 0xf6, 0xc1})
	f.Add([]byte{0x8f, 0xe8, 0x78, 0xc2, 0xc1, 7})
	f.Fuzz(func(t *testing.T, code []byte) {
		in, ok := decodeX86(code)
		if ok && (in.size == 0 || int(in.size) > len(code) || in.size > 15) {
			t.Errorf("% x: size %d", code, in.size)
		}
		if ok && in.reg > 15 && in.reg != regNone {
			t.Errorf("% x: register %d", code, in.reg)
		}
	})
}

// BenchmarkDecodeX86 decodes real code.
func BenchmarkDecodeX86(b *testing.B) {
	text := textOf(b, library(b, "/usr/bin/git"))
	code := text
	b.ReportAllocs()
	for b.Loop() {
		in, ok := decodeX86(code)
		if !ok || int(in.size) >= len(code) {
			code = text
			continue
		}
		code = code[in.size:]
	}
}
