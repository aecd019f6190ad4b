// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// codeAt is where the code of these tests lies.
const codeAt = 0x1000

// scanOf returns a scan of functions laid out one after another.
func scanOf(tb testing.TB, funcs ...string) *codeScan {
	tb.Helper()
	var text []byte
	c := &codeScan{wide: &wideSet{}}
	for _, f := range funcs {
		part := strings.HasPrefix(f, "part ")
		code, err := hex.DecodeString(strings.ReplaceAll(strings.TrimPrefix(f, "part "), " ", ""))
		if err != nil {
			tb.Fatal(err)
		}
		begin := codeAt + uint64(len(text))
		text = append(text, code...)
		c.funcs = append(c.funcs, codeFunc{begin: begin, end: begin + uint64(len(code)), part: part})
	}
	c.read = func(p []byte, pc uint64) int { return copy(p, text[pc-codeAt:]) }
	return c
}

// rowText writes rows as "pc cfa fp", one a line.
func rowText(c *codeScan, rows []span) string {
	var b strings.Builder
	for _, r := range rows {
		fmt.Fprintf(&b, "%x ", r.pc-codeAt)
		switch r.rule.Kind() {
		case KindNone:
			b.WriteString("none")
		case KindSP:
			fmt.Fprintf(&b, "sp+%d", 8*r.rule.Off())
		case KindFP:
			fmt.Fprintf(&b, "fp+%d", 8*r.rule.Off())
		case KindWide:
			if w := c.wide.rules[r.rule.Off()]; w.RA == WhereUnknown {
				b.WriteString("lost")
			} else {
				fmt.Fprintf(&b, "r%d+%d", w.Reg, w.CFAOff)
			}
		}
		switch fp := r.rule.FP(); fp {
		case FPSame:
		case FPUnknown:
			b.WriteString(" fp?")
		default:
			fmt.Fprintf(&b, " c-%d", 8*(fp+1))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// TestCodeScan reads the rows of small functions.
func TestCodeScan(t *testing.T) {
	for _, tt := range []struct {
		name  string
		funcs []string
		want  string
	}{
		{"leaf", []string{"8d 47 01 c3"}, "0 sp+8\n4 none\n"},
		{
			// push %rbp; push %rbx; sub $24,%rsp; call; add; pop; pop; ret
			"pushes", []string{"55 53 48 83 ec 18 e8 00 10 00 00 48 83 c4 18 5b 5d c3"},
			"0 sp+8\n1 sp+16\n2 sp+24\n6 sp+48\nf sp+24\n10 sp+16\n11 sp+8\n12 none\n",
		},
		{
			// push %rbp; mov %rdi,%rbp; call; mov %rbp,%rax; pop %rbp; ret
			"rbp as a variable", []string{"55 48 89 fd e8 00 10 00 00 48 89 e8 5d c3"},
			"0 sp+8\n1 sp+16\n4 sp+16 c-16\nd sp+8\ne none\n",
		},
		{
			// push %rbp; mov %rsp,%rbp; sub %rax,%rsp; call; leave; ret
			"frame pointer", []string{"55 48 89 e5 48 29 c4 e8 00 10 00 00 c9 c3"},
			"0 sp+8\n1 sp+16\n4 fp+16 c-16\nd sp+8\ne none\n",
		},
		{
			// push %rbp; mov %rsp,%rbp; and $-32,%rsp; push %rbx; mov -8(%rbp),%rax;
			// lea -8(%rbp),%rsp; pop %rbx; pop %rbp; ret
			"aligned", []string{"55 48 89 e5 48 83 e4 e0 53 48 8b 45 f8 48 8d 65 f8 5b 5d c3"},
			"0 sp+8\n1 sp+16\n4 fp+16 c-16\n13 sp+8\n14 none\n",
		},
		{
			// sub $8,%rsp; test %edi,%edi; je 1f; add $8,%rsp; ret; 1: call; jmp to the add
			"two paths", []string{"48 83 ec 08 85 ff 74 05 48 83 c4 08 c3 e8 00 10 00 00 eb f4"},
			"0 sp+8\n4 sp+16\nc sp+8\nd sp+16\n14 none\n",
		},
		{
			// test; je 1f; push %rax; 1: ret, which cannot be.
			"contradiction", []string{"85 ff 74 01 50 c3 90 90 90 90 90 90 90 90 90 90 90"}, "",
		},
		{
			// push %rax; ret: neither can this, and it is too small for the encoder.
			"small", []string{"50 c3"}, "0 lost\n2 none\n",
		},
		{
			// The first calls the second, which ends in ud2: test; jne 1f; ret;
			// 1: push %rax; call; then what follows is the next block: nop; xor; ret.
			"never returns", []string{
				"85 ff 75 01 c3 50 e8 09 00 00 00 0f 1f 00 31 c0 c3 90 90 90", "31 ff 0f 0b",
			},
			"0 sp+8\n6 sp+16\nb lost\n14 none\n14 sp+8\n18 none\n",
		},
		{
			// cmp $2,%edi; ja 1f; push %rbx; jmp *%rax; 2: mov $1,%eax; pop %rbx; ret;
			// 3: xor %eax,%eax; jmp to the pop; 1: ret. 2 and 3 are in a table.
			"jump table", []string{"83 ff 02 77 0e 53 ff e0 b8 01 00 00 00 5b c3 31 c0 eb fa c3"},
			"0 sp+8\n6 sp+16\ne sp+8\nf sp+16\n13 sp+8\n14 none\n",
		},
		{
			// sub $24,%rsp; jne part; 1: add $24,%rsp; ret; part: call; jmp 1
			"moved part", []string{"48 83 ec 18 0f 85 05 00 00 00 48 83 c4 18 c3", "part e8 00 10 00 00 eb f4"},
			"0 sp+8\n4 sp+32\ne sp+8\nf none\nf sp+32\n16 none\n",
		},
		{"part nobody jumps to", []string{"part e8 00 10 00 00 48 83 c4 18 c3 90 90 90 90 90 90"}, ""},
		{
			// lea -0x3000(%rsp),%r11; 1: sub $0x1000,%rsp; orq $0,(%rsp);
			// cmp %r11,%rsp; jne 1b; add $0x3000,%rsp; ret
			"probes", []string{
				"4c 8d 9c 24 00 d0 ff ff 48 81 ec 00 10 00 00 48 83 0c 24 00 4c 39 dc 75 ef 48 81 c4 00 30 00 00 c3",
			},
			"0 sp+8\n8 r11+12296\n19 sp+12296\n20 sp+8\n21 none\n",
		},
		{
			// mov $0x5000,%eax; call; sub %rax,%rsp; add $0x5000,%rsp; ret
			"__rust_probestack", []string{"b8 00 50 00 00 e8 00 10 00 00 48 29 c4 48 81 c4 00 50 00 00 c3"},
			"0 sp+8\nd sp+20488\n14 sp+8\n15 none\n",
		},
		{
			// mov %rsp,%rbx; push %rdi; call; mov %rbx,%rsp; ret
			"kept", []string{"48 89 e3 57 e8 00 10 00 00 48 89 dc c3"}, "0 sp+8\n4 sp+16\nc sp+8\nd none\n",
		},
		{
			// mov %rsp,8(%rdi); mov (%rsi),%rsp; ret
			"switch of stacks", []string{"48 89 67 08 48 8b 26 c3"}, "0 sp+8\n7 lost\n8 none\n",
		},
		{"sigreturn", []string{"48 c7 c0 0f 00 00 00 0f 05 0f 1f 80 00 00 00 00"}, ""},
		{"no code", []string{"06 06 06 06 06 06 06 06 06 06 06 06 06 06 06 06"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := scanOf(t, tt.funcs...)
			rows, small := c.run()
			if d := cmp.Diff(tt.want, rowText(c, append(rows, small...))); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestCodeScanCost scans code made to be slow: it has to end after a number of
// instructions in proportion to its size.
func TestCodeScanCost(t *testing.T) {
	const size = 1 << 18
	for name, block := range map[string]string{
		"switches":            "53 ff e0",
		"calls and conflicts": "e8 00 00 01 00 75 fe 50",
		"jumps":               "75 02 74 fb",
		"growing states":      "50",
		"loops":               "4c 8d 5c 24 08 49 89 e2 75 f6",
	} {
		t.Run(name, func(t *testing.T) {
			n := size / len(strings.Fields(block))
			c := scanOf(t, strings.Repeat(block+" ", n))
			c.run()
			total := int(c.funcs[0].end - codeAt)
			if c.steps < 0 || c.steps > maxScanSteps*total {
				t.Errorf("%d steps left of %d", c.steps, maxScanSteps*total)
			}
		})
	}
}

// FuzzCodeScan checks that rows of any code are in order and within it.
func FuzzCodeScan(f *testing.F) {
	f.Add([]byte{0x55, 0x48, 0x89, 0xe5, 0xc9, 0xc3}, uint16(3), uint16(9))
	f.Add([]byte{0x53, 0xff, 0xe0, 0x31, 0xc0, 0x5b, 0xc3, 0x75, 0xf0, 0xe8, 0, 0, 0, 0}, uint16(7), uint16(9))
	f.Add([]byte{0x85, 0xff, 0x75, 0x01, 0xc3, 0x50, 0xe8, 0x09, 0, 0, 0, 0x31, 0xc0, 0xc3, 0x0f, 0x0b}, uint16(14), uint16(40))
	f.Fuzz(func(t *testing.T, code []byte, cut1, cut2 uint16) {
		size := uint64(len(code))
		a, b := min(uint64(cut1), size), min(uint64(cut2), size)
		a, b = min(a, b), max(a, b)
		c := codeScan{wide: &wideSet{}}
		for i, r := range [][2]uint64{{0, a}, {a, b}, {b, size}} {
			if r[0] < r[1] {
				c.funcs = append(c.funcs, codeFunc{begin: codeAt + r[0], end: codeAt + r[1], part: i == 1 && cut1&1 == 1})
			}
		}
		c.read = func(p []byte, pc uint64) int { return copy(p, code[pc-codeAt:]) }
		rows, small := c.run()
		for _, rows := range [][]span{rows, small} {
			last := uint64(0)
			for _, r := range rows {
				if r.pc < last || r.pc < codeAt || r.pc > codeAt+size {
					t.Fatalf("row at %#x after %#x", r.pc, last)
				}
				last = r.pc
			}
		}
	})
}

// BenchmarkCodeScan derives the rules of a whole program, from memory.
func BenchmarkCodeScan(b *testing.B) {
	o := newCodeOracle(b, library(b, "/usr/bin/git"))
	text := map[uint64][]byte{}
	for _, f := range o.scan.funcs {
		code := make([]byte, f.end-f.begin)
		o.scan.read(code, f.begin)
		text[f.begin] = code
	}
	n := 0
	var rows []span
	for b.Loop() {
		c := codeScan{wide: &wideSet{}, endless: o.scan.endless}
		c.read = func(p []byte, pc uint64) int { return copy(p, text[pc]) }
		for _, f := range o.scan.funcs {
			c.funcs = append(c.funcs, codeFunc{begin: f.begin, end: f.end, part: f.part})
		}
		rows, _ = c.run()
		n = 0
		for _, f := range c.funcs {
			n += int(f.end - f.begin)
		}
		if len(rows) < 50_000 {
			b.Fatalf("only %d rows", len(rows))
		}
	}
	const bytesPerInst = 4.1 // of this program
	insts := float64(n) / bytesPerInst
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/insts, "ns/instruction")
	b.ReportMetric(float64(len(rows)), "rows")
}
