// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/lowflame/lowflame/stack"
)

// FuzzCFI builds tables from call frame information nobody vouches for: no panic,
// bounded time and memory, rows in order, and a table that has what the rows say.
func FuzzCFI(f *testing.F) {
	for _, debug := range []bool{false, true} {
		a := cfiAsm{addr: 0x8000, debug: debug}
		cie := 0
		if debug {
			cie = a.cie(4, "", nil, 16, x86Entry...)
		} else {
			cie = a.cie(1, "zR", []byte{encPCRelS32}, 16, x86Entry...)
		}
		a.fde(cie, 0x2000, 0x40, cfaAdvanceLoc|1, cfaDefCFAOffset, 16, cfaOffset|6, 2, cfaRememberState, cfaAdvanceLoc1, 4, cfaRestoreState)
		a.fde(cie, 0x3000, 0x40, expression([]byte{cfaAdvanceLoc | 1, cfaDefCFAExpression}, 0x76, 0x78, 0x06)...)
		a.fde(cie, 0x2800, 0x40, cfaUndefined, 16, cfaSetLoc, 0, 0, 0, 0)
		f.Add(a.b, []byte{1, encPCRelS32, encU32, encDataRel | encS32, 0, 0, 0, 0, 1, 0, 0, 0}, debug, false)
		f.Add(a.b, []byte(nil), debug, true)
	}
	f.Fuzz(func(t *testing.T, data, hdr []byte, debug, arm bool) {
		src := sources{segs: []gap{{0x1000, 0x100000}, {0x7ffff000, 0x80001000}}}
		if arm {
			src.arch = ARM64
		}
		s := &section{data: data, addr: 0x8000, hdr: hdr, hdrAddr: 0x9000}
		name := ".eh_frame"
		if debug {
			name = ".debug_frame"
		}
		began := time.Now()
		rows, _ := src.collect(s, name)
		if d := time.Since(began); d > 2*time.Second {
			t.Errorf("%d bytes took %v", len(data), d)
		}
		for i := range rows {
			if i > 0 && rows[i].pc <= rows[i-1].pc {
				t.Fatalf("row at %#x after %#x", rows[i].pc, rows[i-1].pc)
			}
			if end := src.code(max(rows[i].pc, 1) - 1); src.code(rows[i].pc) == 0 && end == 0 {
				t.Fatalf("row at %#x, which is not executable", rows[i].pc)
			}
		}
		if n := len(rows); n > 0 && rows[n-1].rule != 0 {
			t.Fatal("the last row has a rule")
		}
		table, err := encode(t, rows, src.wide.rules)
		if err != nil {
			t.Fatal(err)
		}
		checkTable(t, table, rows, src.wide.rules)
	})
}

// fuzzProcess is a process whose code and stack a fuzzer chose. Code at
// 0x10000 has the rules of words, two for each 8 bytes; memory is a short stack
// at 0x7000 that repeats.
type fuzzProcess struct {
	table *Table
	stack []byte
}

func (p *fuzzProcess) At(pc uint64) (Code, bool) {
	switch {
	case pc >= 0x10000 && pc < 0x20000:
		return Code{Begin: 0x10000, End: 0x20000, Bias: 0x10000, Table: p.table}, true
	case pc >= 0x20000 && pc < 0x30000:
		return Code{Begin: 0x20000, End: 0x30000, FPWalk: true}, true
	case pc >= 0x30000 && pc < 0x31000:
		return Code{Begin: 0x30000, End: 0x31000}, true
	}
	return Code{}, false
}

func (p *fuzzProcess) Word(addr uint64) (uint64, bool) {
	if addr < 0x7000 || addr > 0x9000 || len(p.stack) < 8 {
		return 0, false
	}
	return binary.LittleEndian.Uint64(p.stack[(addr-0x7000)%uint64(len(p.stack)-7):]), true
}

// FuzzWalk walks stacks of any contents with any rules: it ends, with a reason,
// and with no more frames than asked for.
func FuzzWalk(f *testing.F) {
	f.Add([]byte{0x11, 1, 0, 0x12, 2, 0, 5, 0, 0, 6, 0, 0}, []byte{4, 0, 1, 0, 0, 0, 0, 0, 0x10, 0, 1, 0, 0, 0, 0, 0}, uint64(0x10001), uint64(0x7000), uint64(0x7010), false)
	f.Add([]byte{4, 2, 0, 7, 1, 0, 8, 0, 0, 9, 1, 0}, []byte{0, 0, 2, 0, 0, 0, 0, 0, 9, 0, 1, 0, 0, 0, 0, 0}, uint64(0x20001), uint64(0x7000), uint64(0x7010), true)
	f.Fuzz(func(t *testing.T, rules, mem []byte, pc, sp, fp uint64, arm bool) {
		var wides []Wide
		var rows []span
		for i := 0; i+3 <= len(rules) && i < 3*512; i += 3 {
			r := MakeRule(Kind(rules[i]&15), rules[i]>>4, uint16(rules[i+1])|uint16(rules[i+2]&3)<<8)
			if r.Kind() == KindNone {
				r = 0
			}
			if r.Kind() == KindWide {
				wides = append(wides, Wide{Reg: rules[i] >> 4, Deref: rules[i+1]&1 != 0, Index: rules[i+1] & 1 * (rules[i+2] >> 2), RA: Where(rules[i+1] >> 4 & 7), FP: Where(rules[i+1] >> 1 & 7), CFAOff: int32(int8(rules[i+2])), FPArg: int32(int8(rules[i+1]))})
				r = MakeRule(KindWide, 0, uint16(len(wides)-1))
			}
			rows = append(rows, span{uint64(i) * 3, r})
		}
		rows = append(rows, span{uint64(len(rows)+1) * 9, 0})
		table, err := encode(t, rows, wides)
		if err != nil {
			t.Fatal(err)
		}
		arch := AMD64
		if arm {
			arch = ARM64
		}
		p := &fuzzProcess{table: table, stack: mem}
		regs := Regs{PC: pc, SP: sp, FP: fp, LR: 0x10005, AllValid: pc&1 != 0}
		res := Walk(arch, p, p, regs, 100)
		if len(res.PCs) == 0 || len(res.PCs) > 100 || res.PCs[0] != pc || res.Stop == stack.StopNone || res.Stop >= stack.NumStops {
			t.Errorf("%d frames, stop %v", len(res.PCs), res.Stop)
		}
		for i, n := range res.Interrupted {
			if n <= 0 || n >= len(res.PCs) || i > 0 && n <= res.Interrupted[i-1] {
				t.Errorf("interrupted %v of %d", res.Interrupted, len(res.PCs))
			}
		}
	})
}
