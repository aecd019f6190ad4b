// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"bytes"
	"encoding/binary"
	"strings"
)

// goX86 is Go on x86-64 (cmd/internal/obj/x86, preprocess): a function with a
// frame saves RBP below the return address, at CFA-16, and points RBP there.
// From Go 1.21 on it does so with push and mov, before by making room first.
type goX86 struct{}

func (goX86) sigreturn() []byte { return AMD64.sigreturnCode() }

// goFrame says what a prologue does with RBP.
type goFrame struct {
	saved uint64 // PC from which it is at CFA-16, 0 if it is not saved
	set   uint64 // PC from which it points there
}

// frame reads the prologue, at the first change of the stack pointer.
func (goX86) frame(fn *goFunc) goFrame {
	for _, d := range fn.deltas {
		if d.n == 0 {
			continue
		}
		off := d.pc - fn.begin
		code := fn.at(d.pc)
		if d.n == 8 && off > 0 && off <= uint64(len(fn.code)) && fn.code[off-1] == 0x55 { // push %rbp
			set := d.pc
			if bytes.HasPrefix(code, []byte{0x48, 0x89, 0xe5}) { // mov %rsp, %rbp
				set += 3
			}
			return goFrame{d.pc, set}
		}
		// mov %rbp, n-8(%rsp); lea n-8(%rsp), %rbp
		save := rspOperand(code, 0x89)
		if save == 0 || rspDisp(code, save) != int64(d.n)-8 {
			return goFrame{}
		}
		set := rspOperand(code[save:], 0x8d)
		return goFrame{d.pc + uint64(save), d.pc + uint64(save+set)}
	}
	return goFrame{}
}

// rspOperand returns the length of an instruction of RBP and a place relative to
// RSP with the opcode op, 0 if code does not begin with one.
func rspOperand(code []byte, op byte) int {
	switch {
	case len(code) >= 5 && code[0] == 0x48 && code[1] == op && code[2] == 0x6c && code[3] == 0x24:
		return 5
	case len(code) >= 8 && code[0] == 0x48 && code[1] == op && code[2] == 0xac && code[3] == 0x24:
		return 8
	}
	return 0
}

// rspDisp returns the displacement of an instruction that rspOperand measured.
func rspDisp(code []byte, size int) int64 {
	if size == 5 {
		return int64(int8(code[4]))
	}
	return int64(int32(binary.LittleEndian.Uint32(code[4:])))
}

// rule returns the rule for a stack pointer n bytes below the return address.
func (goX86) rule(g *goText, n int32, saved bool) Rule {
	fp := uint8(FPSame)
	if saved {
		fp = 1
	}
	switch {
	case n < 0 || n&7 != 0:
		return g.wide.rule(lost())
	case n>>3+1 > 0xffff:
		w := Wide{Reg: x86RSP, CFAOff: n + 8, RA: WhereCFA, RAArg: -8}
		if saved {
			w.FP, w.FPArg = WhereCFA, -16
		}
		return g.wide.rule(MakeRule(KindWide, 0, 0), w)
	}
	return MakeRule(KindSP, fp, uint16(n>>3+1))
}

// poppedReturn returns the register that the instruction before pc popped, by
// DWARF number: syscall.rawVforkSyscall keeps its return address in R12, because
// the child runs on the same stack.
func poppedReturn(fn *goFunc, pc uint64) (reg uint8, ok bool) {
	at := pc - fn.begin
	if at < 2 || at > uint64(len(fn.code)) || fn.code[at-2] != 0x41 || fn.code[at-1]&0xf8 != 0x58 {
		return 0, false
	}
	return 8 + fn.code[at-1]&7, true
}

func (a goX86) rows(g *goText, fn *goFunc) {
	frame := a.frame(fn)
	for i, d := range fn.deltas {
		if reg, ok := poppedReturn(fn, d.pc); ok && d.n == -8 {
			w := Wide{Reg: x86RSP, RA: WhereReg, RAArg: int32(reg)}
			g.add(d.pc, g.wide.rule(MakeRule(KindWide, 0, 0), w))
			continue
		}
		saved := d.n != 0 && frame.saved != 0
		if saved && frame.saved > d.pc && (i+1 == len(fn.deltas) || frame.saved < fn.deltas[i+1].pc) {
			g.add(d.pc, a.rule(g, d.n, false))
			g.add(frame.saved, a.rule(g, d.n, true))
			continue
		}
		g.add(d.pc, a.rule(g, d.n, saved))
	}
}

// switching: with a frame of its own the function keeps RBP, which leads back to
// the stack it was called on (runtime.systemstack, asmcgocall, cgocallback, the
// vDSO calls). The deltas are right until RSP is set.
func (a goX86) switching(g *goText, fn *goFunc) {
	a.rows(g, fn)
	from, jump := a.frame(fn).set, MakeRule(KindFPJump, 0, 0)
	sp := loadsRSP(fn)
	switch {
	case neverReturns(fn.name):
		from, jump = sp, MakeRule(KindEnd, 0, 0)
		if sp == 0 {
			from = fn.begin
		}
	case !strings.HasPrefix(fn.name, "runtime.") && fn.name != "time.now":
		// Other assembly aligns the stack and may use RBP for anything.
		jump = MakeRule(KindFPWalk, 0, 0)
	}
	if from == 0 { // no frame: RBP is the caller's
		if from = sp; from == 0 {
			return
		}
	}
	g.replace(fn, from, func(n int32) (Rule, bool) {
		return jump, n != 0 || jump.Kind() == KindEnd || from == sp
	})
}

// replace replaces the rows of the function from pc on, where rule says so.
func (g *goText) replace(fn *goFunc, from uint64, rule func(n int32) (Rule, bool)) {
	n := len(g.rows)
	for n > 0 && g.rows[n-1].pc >= from {
		n--
	}
	tail := append([]span{}, g.rows[n:]...)
	g.rows = g.rows[:n]
	last := Rule(0)
	if n > 0 {
		last = g.rows[n-1].rule
	}
	for i, d := range fn.deltas {
		end := fn.end
		if i+1 < len(fn.deltas) {
			end = fn.deltas[i+1].pc
		}
		if end <= from {
			continue
		}
		pc := max(d.pc, from)
		// The rule that was in force at pc.
		for len(tail) > 0 && tail[0].pc <= pc {
			last, tail = tail[0].rule, tail[1:]
		}
		if r, ok := rule(d.n); ok {
			g.add(pc, r)
		} else {
			g.add(pc, last)
		}
	}
}

// loadsRSP returns the PC after the first instruction that loads RSP from
// memory or another register, 0 if there is none: mov m64, %rsp; mov r64, %rsp.
func loadsRSP(fn *goFunc) uint64 {
	for i := 0; i+3 <= len(fn.code); i++ {
		rex, op, modrm := fn.code[i], fn.code[i+1], fn.code[i+2]
		mod, reg, rm := modrm>>6, modrm>>3&7, modrm&7
		if rex&0xf8 != 0x48 {
			continue
		}
		size := 3
		switch {
		case op == 0x89 && mod == 3 && rm == 4 && rex&1 == 0: // mov r64, %rsp
		case op == 0x8b && reg == 4 && rex&4 == 0: // mov r/m64, %rsp
			if mod != 3 && rm == 4 {
				size++
			}
			switch mod {
			case 1:
				size++
			case 2:
				size += 4
			}
		default:
			continue
		}
		return fn.begin + uint64(i+size)
	}
	return 0
}
