// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lowflame/lowflame/stack"
)

// lines returns rows as offset and rule.
func lines(rows []RuntimeRow, begin uint64) [][2]uint64 {
	var out [][2]uint64
	for _, r := range rows {
		out = append(out, [2]uint64{r.PC - begin, uint64(r.Rule)})
	}
	return out
}

func sp(words uint16, fp uint8) uint64 { return uint64(MakeRule(KindSP, fp, words)) }

// method is what HotSpot's C2 makes of a small method that calls.
var method = []byte{
	0x89, 0x84, 0x24, 0x00, 0xc0, 0xfe, 0xff, // 00 mov %eax, -0x14000(%rsp)
	0x55,                   // 07 push %rbp
	0x48, 0x83, 0xec, 0x10, // 08 sub $16, %rsp
	0x48, 0x89, 0xf5, // 0c mov %rsi, %rbp
	0xe8, 0x00, 0x10, 0x00, 0x00, // 0f call
	0x48, 0x83, 0xc4, 0x10, // 14 add $16, %rsp
	0x5d,                                     // 18 pop %rbp
	0x49, 0x3b, 0xa7, 0x40, 0x03, 0x00, 0x00, // 19 cmp 0x340(%r15), %rsp
	0x77, 0x02, // 20 ja 24
	0xc3,                         // 22 ret
	0xf4,                         // 23 hlt
	0xe9, 0x00, 0x10, 0x00, 0x00, // 24 jmp: the safepoint
	0x48, 0x89, 0xc6, // 29 mov %rax, %rsi: a handler that no jump leads to
	0xe9, 0x00, 0x10, 0x00, 0x00, // 2c jmp
}

func TestCompiledCode(t *testing.T) {
	const begin = 0x7f0000001000
	want := [][2]uint64{
		{0, sp(1, 0)}, {0x08, sp(2, 1)}, {0x0c, sp(4, 1)}, {0x18, sp(2, 1)}, {0x19, sp(1, 0)},
		{0x23, sp(4, 1)}, {0x24, sp(1, 0)}, {0x29, sp(4, 1)}, {0x31, 0},
	}
	var r RuntimeCode
	rows := r.Compiled(&CodeBlock{Begin: begin, Code: method, Words: 4, Complete: 0x0c})
	if diff := cmp.Diff(want, lines(rows, begin)); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	table, err := r.Table(rows, begin+uint64(len(method)))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows[:len(rows)-1] {
		if got, _ := table.Lookup(stack.LinkAddr(row.PC)); got != row.Rule {
			t.Errorf("table has %#x at %#x, want %#x", got, row.PC, row.Rule)
		}
	}
}

// TestCompiledCodeContradicted: if the frame is not as told, only calls have a rule.
func TestCompiledCodeContradicted(t *testing.T) {
	var r RuntimeCode
	rows := r.Compiled(&CodeBlock{Code: method, Words: 6, Complete: 0x0c})
	lost := uint64(r.Lost())
	want := [][2]uint64{{0, lost}, {0x0f, sp(6, 1)}, {0x14, lost}, {0x31, 0}}
	if diff := cmp.Diff(want, lines(rows, 0)); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

func TestStubs(t *testing.T) {
	code := []byte{
		0x5a, 0xff, 0xe3, // 00 pop %rdx; jmp *%rbx: does not return
		0x55, 0x48, 0x89, 0xe5, // 03 push %rbp; mov %rsp, %rbp
		0x50, 0x75, 0xfd, // 07 push %rax; jne 07
		0xc9, 0xc3, // 0a leave; ret
	}
	var r RuntimeCode
	lost := uint64(r.Lost())
	want := [][2]uint64{
		{0, lost}, {3, sp(1, 0)}, {4, sp(2, 0)}, {7, uint64(MakeRule(KindFP, 1, 2))}, {0x0b, sp(1, 0)}, {0x0c, 0},
	}
	if diff := cmp.Diff(want, lines(r.Stubs(&CodeBlock{Code: code}), 0)); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

func TestTemplate(t *testing.T) {
	code := []byte{
		0x58,             // 00 pop %rax
		0x6a, 0x00, 0x50, // 01 push $0; push %rax
		0x55, 0x48, 0x89, 0xe5, // 04 push %rbp; mov %rsp, %rbp
		0x41, 0x55, // 08 push %r13
		0x90,       // 0a nop
		0xc9, 0x5a, // 0b leave; pop %rdx
		0x48, 0x89, 0xdc, // 0d mov %rbx, %rsp
		0xff, 0xe2, // 10 jmp *%rdx
		0x90, // 12 nop
	}
	var r RuntimeCode
	frame := r.Wide(Wide{Reg: 6, CFAOff: -8, Deref: true, RA: WhereFP, RAArg: 8, FP: WhereFP})
	entered := r.Wide(Wide{Reg: 13, RA: WhereReg, RAArg: 0})
	made := r.Wide(Wide{Reg: 13, RA: WhereFP, RAArg: 8, FP: WhereFP})
	left := r.Wide(Wide{Reg: 3, RA: WhereReg, RAArg: 1})
	want := [][2]uint64{
		{0, sp(1, 0)}, {1, uint64(entered)}, {8, uint64(made)}, {0x0a, uint64(frame)},
		{0x0c, sp(1, 0)}, {0x0d, uint64(left)}, {0x12, uint64(frame)}, {0x13, 0},
	}
	rows := r.Template(&CodeBlock{Code: code}, frame, 13, true)
	if diff := cmp.Diff(want, lines(rows, 0)); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

func FuzzRuntimeCode(f *testing.F) {
	f.Add(method, 4, 12, true)
	f.Add([]byte{0x55, 0xeb, 0xfd}, 0, -1, false)
	f.Fuzz(func(t *testing.T, code []byte, words, complete int, opaque bool) {
		if len(code) > 1<<12 {
			return
		}
		var r RuntimeCode
		b := CodeBlock{Begin: 1 << 40, Code: code, Words: words, Complete: complete, Opaque: opaque, Entries: []int{complete}}
		end := b.Begin + uint64(len(code))
		for _, rows := range [][]RuntimeRow{
			r.Compiled(&b), r.Stubs(&b), r.Calls(&b), r.Template(&b, r.Lost(), 13, opaque),
		} {
			for i, row := range rows {
				if row.PC < b.Begin || row.PC > end || i > 0 && row.PC < rows[i-1].PC {
					t.Fatalf("row %d of %d at %#x in code at %#x-%#x", i, len(rows), row.PC, b.Begin, end)
				}
			}
			if _, err := r.Table(rows, end); err != nil {
				t.Fatal(err)
			}
		}
	})
}
