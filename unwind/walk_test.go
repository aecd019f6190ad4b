// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lowflame/lowflame/stack"
)

// fakeProcess has one function per 0x100 bytes from 0x10000 on, each with one
// rule, and the stack words given.
type fakeProcess struct {
	table *Table
	words map[uint64]uint64
}

func (p *fakeProcess) At(pc uint64) (Code, bool) {
	switch {
	case pc >= 0x10000 && pc < 0x20000:
		return Code{Begin: 0x10000, End: 0x20000, Bias: 0x10000, Table: p.table}, true
	case pc >= 0x20000 && pc < 0x21000:
		return Code{Begin: 0x20000, End: 0x21000, FPWalk: true}, true
	case pc >= 0x30000 && pc < 0x31000:
		return Code{Begin: 0x30000, End: 0x31000}, true
	}
	return Code{}, false
}

func (p *fakeProcess) Word(addr uint64) (uint64, bool) {
	v, ok := p.words[addr]
	return v, ok
}

// fn returns an address in the n'th function of a fakeProcess.
func fn(n int) uint64 { return 0x10000 + uint64(n)*0x100 + 0x20 }

func TestWalk(t *testing.T) {
	sp := func(fp uint8, off uint16) Rule { return MakeRule(KindSP, fp, off) }
	fpRule := func(fp uint8, off uint16) Rule { return MakeRule(KindFP, fp, off) }
	k := func(k Kind, off uint16) Rule { return MakeRule(k, 0, off) }
	end := MakeRule(KindEnd, 0, 0)
	wide := MakeRule(KindWide, 0, 0)
	sig := map[uint64]uint64{ // the handler's frame, and x86-64 registers at 0x7010+40
		0x7008: fn(1), 0x7010 + 40 + 80: 0x8100, 0x7010 + 40 + 120: 0x8000, 0x7010 + 40 + 128: fn(2), 0x8000: fn(3),
	}
	for i := uint64(0); i < 17; i++ {
		sig[0x7010+40+8*i] += 0
	}
	sigARM := map[uint64]uint64{0x7010 + 312 + 8*29: 0x8100, 0x7010 + 312 + 8*30: fn(3), 0x7010 + 312 + 8*31: 0x6000, 0x7010 + 312 + 8*32: fn(2)}
	for i := uint64(0); i < 33; i++ {
		sigARM[0x7010+312+8*i] += 0
	}
	sigARM[0x7000], sigARM[0x7008] = 0x7777, fn(1)

	tests := []struct {
		name  string
		arch  Arch
		rules []Rule // of functions 0, 1, …
		wide  Wide
		words map[uint64]uint64
		regs  Regs // PC and SP default to function 0 and 0x7000
		want  Result
	}{
		{name: "outermost", rules: []Rule{end}, want: Result{PCs: []uint64{fn(0)}, Stop: stack.StopEnd}},
		{name: "return address 0", rules: []Rule{sp(0, 1)}, words: map[uint64]uint64{0x7000: 0},
			want: Result{PCs: []uint64{fn(0)}, Stop: stack.StopEnd}},
		{name: "frame pointer carried to the frame that needs it", rules: []Rule{sp(1, 2), sp(0, 1), fpRule(1, 2), end},
			words: map[uint64]uint64{0x7000: 0x7020, 0x7008: fn(1), 0x7010: fn(2), 0x7020: 0x7777, 0x7028: fn(3)},
			want:  Result{PCs: []uint64{fn(0), fn(1), fn(2), fn(3)}, Stop: stack.StopEnd}},
		{name: "frame pointer lost and needed", rules: []Rule{sp(FPUnknown, 1), fpRule(1, 2)}, words: map[uint64]uint64{0x7000: fn(1)},
			want: Result{PCs: []uint64{fn(0), fn(1)}, Stop: stack.StopUnsupportedRule}},
		{name: "no rule", rules: []Rule{0}, want: Result{PCs: []uint64{fn(0)}, Stop: stack.StopNoRule}},
		{name: "return address outside all code", rules: []Rule{sp(0, 1)}, words: map[uint64]uint64{0x7000: 0x99},
			want: Result{PCs: []uint64{fn(0), 0x99}, Stop: stack.StopNoMapping, Missing: 0x99}},
		{name: "table not there", rules: []Rule{sp(0, 1)}, words: map[uint64]uint64{0x7000: 0x30010},
			want: Result{PCs: []uint64{fn(0), 0x30010}, Stop: stack.StopTableMissing, Missing: 0x30010}},
		{name: "stack not readable", rules: []Rule{sp(0, 1)}, want: Result{PCs: []uint64{fn(0)}, Stop: stack.StopReadStack}},
		{name: "frame pointer below the stack pointer", rules: []Rule{fpRule(1, 2), end}, regs: Regs{FP: 0x6000},
			words: map[uint64]uint64{0x6000: 0, 0x6008: fn(1)}, want: Result{PCs: []uint64{fn(0)}, Stop: stack.StopSPNotRising}},
		{name: "longer than asked for", rules: []Rule{sp(0, 1)},
			words: map[uint64]uint64{0x7000: fn(0), 0x7008: fn(0), 0x7010: fn(0), 0x7018: fn(0), 0x7020: fn(0), 0x7028: fn(0)},
			want:  Result{PCs: []uint64{fn(0), fn(0), fn(0), fn(0), fn(0)}, Stop: stack.StopTooDeep}},
		{name: "the call is looked up, not the return address", rules: []Rule{sp(0, 1), end, 0},
			words: map[uint64]uint64{0x7000: 0x10200}, want: Result{PCs: []uint64{fn(0), 0x10200}, Stop: stack.StopEnd}},
		{name: "PLT before its push", rules: []Rule{k(KindPLT, 11), end}, regs: Regs{PC: 0x1000a}, words: map[uint64]uint64{0x7000: fn(1)},
			want: Result{PCs: []uint64{0x1000a, fn(1)}, Stop: stack.StopEnd}},
		{name: "PLT after its push", rules: []Rule{k(KindPLT, 11), end}, regs: Regs{PC: 0x1000b}, words: map[uint64]uint64{0x7008: fn(1)},
			want: Result{PCs: []uint64{0x1000b, fn(1)}, Stop: stack.StopEnd}},
		{name: "JIT code returns to a table", rules: []Rule{end}, regs: Regs{PC: 0x20010, FP: 0x7040}, words: map[uint64]uint64{0x7040: 0x7060, 0x7048: fn(0)},
			want: Result{PCs: []uint64{0x20010, fn(0)}, Stop: stack.StopEnd}},
		{name: "JIT code uses the frame pointer for something else", regs: Regs{PC: 0x20010, FP: 0x7041}, rules: []Rule{end},
			want: Result{PCs: []uint64{0x20010}, Stop: stack.StopFPImplausible}},
		{name: "frame pointer a mebibyte away", regs: Regs{PC: 0x20010, FP: 0x7000 + FPWalkMax}, rules: []Rule{end},
			want: Result{PCs: []uint64{0x20010}, Stop: stack.StopFPImplausible}},
		{name: "stack switched downwards", rules: []Rule{k(KindFPJump, 0), end}, regs: Regs{FP: 0x1000}, words: map[uint64]uint64{0x1000: 0, 0x1008: fn(1)},
			want: Result{PCs: []uint64{fn(0), fn(1)}, Stop: stack.StopEnd}},
		{name: "DRAP", rules: []Rule{wide, end}, wide: Wide{Reg: 6, Deref: true, CFAOff: -8, RA: WhereCFA, RAArg: -8, FP: WhereFP}, regs: Regs{FP: 0x7040},
			words: map[uint64]uint64{0x7038: 0x7080, 0x7040: 0x1234, 0x7078: fn(1)}, want: Result{PCs: []uint64{fn(0), fn(1)}, Stop: stack.StopEnd}},
		{name: "saved stack pointer at an index", rules: []Rule{wide, end}, wide: Wide{Reg: 7, Deref: true, Index: 10, CFAOff: 8, Add: 8, RA: WhereCFA, RAArg: -8},
			regs:  Regs{AllValid: true, General: [NumRegs]uint64{9: 3}},
			words: map[uint64]uint64{0x7020: 0x7080, 0x7080: fn(1)}, want: Result{PCs: []uint64{fn(0), fn(1)}, Stop: stack.StopEnd}},
		{name: "saved stack pointer at an index that is not known", rules: []Rule{sp(0, 1), wide},
			wide: Wide{Reg: 7, Deref: true, Index: 4, CFAOff: 8, RA: WhereCFA, RAArg: -8}, regs: Regs{AllValid: true},
			words: map[uint64]uint64{0x7000: fn(1)}, want: Result{PCs: []uint64{fn(0), fn(1)}, Stop: stack.StopUnsupportedRule}},
		{name: "vfork: return address in rdi, stack pointer the caller's", rules: []Rule{wide, end},
			wide: Wide{Reg: 7, RA: WhereReg, RAArg: 5}, regs: Regs{AllValid: true, General: [NumRegs]uint64{5: fn(1)}},
			want: Result{PCs: []uint64{fn(0), fn(1)}, Stop: stack.StopEnd}},
		{name: "register of a calling frame", rules: []Rule{sp(0, 1), wide}, wide: Wide{Reg: 3, CFAOff: 8, RA: WhereCFA, RAArg: -8},
			regs: Regs{AllValid: true}, words: map[uint64]uint64{0x7000: fn(1)}, want: Result{PCs: []uint64{fn(0), fn(1)}, Stop: stack.StopUnsupportedRule}},
		{name: "not expressible", rules: []Rule{wide}, wide: Wide{RA: WhereUnknown, FP: WhereUnknown}, regs: Regs{AllValid: true},
			want: Result{PCs: []uint64{fn(0)}, Stop: stack.StopUnsupportedRule}},
		{name: "signal", rules: []Rule{sp(0, 2), k(KindSignal, 0), sp(0, 1), end}, words: sig,
			want: Result{PCs: []uint64{fn(0), fn(1), fn(2), fn(3)}, Interrupted: []int{2}, Stop: stack.StopEnd}},

		{name: "arm64 leaf", arch: ARM64, rules: []Rule{sp(0, 0), end}, regs: Regs{LR: fn(1)}, want: Result{PCs: []uint64{fn(0), fn(1)}, Stop: stack.StopEnd}},
		{name: "arm64 signed return address", arch: ARM64, rules: []Rule{sp(0, 0), end}, regs: Regs{LR: 0xab<<56 | fn(1)},
			want: Result{PCs: []uint64{fn(0), fn(1)}, Stop: stack.StopEnd}},
		{name: "arm64 link register of a calling frame", arch: ARM64, rules: []Rule{sp(0, 0), sp(0, 0)}, regs: Regs{LR: fn(1)},
			want: Result{PCs: []uint64{fn(0), fn(1)}, Stop: stack.StopLRMidStack}},
		{name: "arm64 frame record below the CFA", arch: ARM64, rules: []Rule{sp(3, 4), fpRule(1, 2), end},
			words: map[uint64]uint64{0x7000: 0x7040, 0x7008: fn(1), 0x7040: 0x7080, 0x7048: fn(2)}, want: Result{PCs: []uint64{fn(0), fn(1), fn(2)}, Stop: stack.StopEnd}},
		{name: "arm64 frame record at the base", arch: ARM64, rules: []Rule{sp(FPRecordAtBase, 40), end},
			words: map[uint64]uint64{0x7000: 0x7040, 0x7008: fn(1)}, want: Result{PCs: []uint64{fn(0), fn(1)}, Stop: stack.StopEnd}},
		{name: "arm64 Go", arch: ARM64, rules: []Rule{k(KindGo, 0), k(KindGo, 4), k(KindGo, 2), end}, regs: Regs{LR: fn(1)},
			words: map[uint64]uint64{0x7000: fn(2), 0x6ff8: 0x7018, 0x7020: fn(3), 0x7018: 0x7028}, want: Result{PCs: []uint64{fn(0), fn(1), fn(2), fn(3)}, Stop: stack.StopEnd}},
		{name: "arm64 Go systemstack", arch: ARM64, rules: []Rule{k(KindFPJump, 1), k(KindGo, 2), end}, regs: Regs{FP: 0x5ff8},
			words: map[uint64]uint64{0x5ff8: 0x6008, 0x6000: fn(1), 0x6010: fn(2), 0x6008: 0x6018}, want: Result{PCs: []uint64{fn(0), fn(1), fn(2)}, Stop: stack.StopEnd}},
		{name: "arm64 below a frame record that is not at its frame's top", arch: ARM64, rules: []Rule{sp(FPRecordAtBase, 4), sp(1, 2), end},
			regs:  Regs{PC: 0x20010, FP: 0x7000},
			words: map[uint64]uint64{0x7000: 0x7040, 0x7008: fn(0), 0x7040: 0x7777, 0x7048: fn(1), 0x7060: 0x7777, 0x7068: fn(2)},
			want:  Result{PCs: []uint64{0x20010, fn(0), fn(1), fn(2)}, Stop: stack.StopEnd}},
		{name: "arm64 below such a record, another below the CFA", arch: ARM64, rules: []Rule{sp(3, 8), sp(1, 2), end},
			regs:  Regs{PC: 0x20010, FP: 0x7000},
			words: map[uint64]uint64{0x7000: 0x7040, 0x7008: fn(0), 0x7040: 0x7777, 0x7048: fn(1), 0x7060: 0x7777, 0x7068: fn(2)},
			want:  Result{PCs: []uint64{0x20010, fn(0), fn(1), fn(2)}, Stop: stack.StopEnd}},
		{name: "arm64 below such a record, Go", arch: ARM64, rules: []Rule{k(KindGo, 2), k(KindGo, 2), end},
			regs:  Regs{PC: 0x20010, FP: 0x7000},
			words: map[uint64]uint64{0x7000: 0x7040, 0x7008: fn(0), 0x7040: 0x7777, 0x7048: fn(1), 0x7050: 0x7777, 0x7058: fn(2)},
			want:  Result{PCs: []uint64{0x20010, fn(0), fn(1), fn(2)}, Stop: stack.StopEnd}},
		{name: "arm64 frame record below the one before", arch: ARM64, rules: []Rule{sp(FPRecordAtBase, 4)},
			regs: Regs{PC: 0x20010, FP: 0x7000}, words: map[uint64]uint64{0x7000: 0x6ff0, 0x7008: fn(0)},
			want: Result{PCs: []uint64{0x20010, fn(0)}, Stop: stack.StopFPImplausible}},
		{name: "arm64 stack pointer not known and needed", arch: ARM64, rules: []Rule{wide}, wide: Wide{Reg: 31, CFAOff: 64, RA: WhereCFA, RAArg: -8},
			regs: Regs{PC: 0x20010, FP: 0x7000}, words: map[uint64]uint64{0x7000: 0x7040, 0x7008: fn(0), 0x7048: fn(1)},
			want: Result{PCs: []uint64{0x20010, fn(0)}, Stop: stack.StopUnsupportedRule}},
		{name: "arm64 signal: link register is good again", arch: ARM64, rules: []Rule{sp(1, 2), k(KindSignal, 0), sp(0, 0), end}, words: sigARM,
			want: Result{PCs: []uint64{fn(0), fn(1), fn(2), fn(3)}, Interrupted: []int{2}, Stop: stack.StopEnd}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var rows []span
			for i, r := range tt.rules {
				rows = append(rows, span{uint64(i) * 0x100, r})
			}
			table, err := encode(t, append(rows, span{uint64(len(rows)) * 0x100, 0}), []Wide{tt.wide})
			if err != nil {
				t.Fatal(err)
			}
			if tt.regs.PC == 0 {
				tt.regs.PC = fn(0)
			}
			tt.regs.SP = 0x7000
			p := &fakeProcess{table: table, words: tt.words}
			got := Walk(tt.arch, p, p, tt.regs, 5)
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}
