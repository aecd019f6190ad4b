// SPDX-License-Identifier: Apache-2.0

package unwind

import "github.com/lowflame/lowflame/stack"

// pacMask strips a pointer authentication code from a return address: user
// addresses have 48 bits (kernel: Documentation/arch/arm64/memory.rst).
const pacMask = 1<<48 - 1

// Frame is one frame of a walk.
type Frame struct {
	Regs
	// Exact is set if PC is an interrupted instruction, in the top frame or
	// below a signal frame; otherwise it is a return address.
	Exact bool
	// Volatile is set if the frame called an interrupted one, of which General is.
	// Registers that calls need not preserve, but that the frame needs, are then the
	// same there: its code could not go on otherwise.
	Volatile bool
	// FPLost is set if FP is not known.
	FPLost bool
	// FPWalked is set if the frame was found by KindFPWalk: code generated at
	// run time called it, or was called by it.
	FPWalked bool
}

// Lookup is the address to look tables up with: PC, or for a return address
// the byte before it, which lies in the call (DWARF 5 §6.4.4).
func (f *Frame) Lookup() uint64 {
	if f.Exact {
		return f.PC
	}
	return f.PC - 1
}

// Step replaces f, whose Lookup lies in c, by its caller. It returns StopNone,
// or why there is no caller: then f is unchanged.
func Step(arch Arch, c *Code, mem Memory, f *Frame) stack.Stop {
	s := stepper{arch: arch, mem: mem, f: f}
	rule := Rule(KindFPWalk)
	if !c.FPWalk {
		if c.Table == nil {
			return stack.StopTableMissing
		}
		rule, s.piece = c.Table.Lookup(stack.LinkAddr(f.Lookup() - c.Bias))
	}
	next, stop := s.apply(rule)
	if stop == stack.StopNone {
		*f = next
	}
	return stop
}

// stepper is one step.
type stepper struct {
	arch  Arch
	mem   Memory
	f     *Frame
	piece *Piece // for its wide rules
	// jumped: the caller may be on another stack.
	jumped bool
}

// apply finds the caller of s.f by rule.
func (s *stepper) apply(rule Rule) (Frame, stack.Stop) {
	switch rule.Kind() {
	case KindNone:
		if s.f.FPWalked {
			// A runtime's own code between frames of code it generated keeps
			// frame pointers as that does: V8's embedded builtins.
			return s.fpWalk()
		}
		return Frame{}, stack.StopNoRule
	case KindEnd:
		return Frame{}, stack.StopEnd
	case KindSignal:
		if s.spGuessed() {
			return Frame{}, stack.StopUnsupportedRule
		}
		return s.signal()
	case KindWide:
		return s.wide(s.piece.WideRule(rule.Off()))
	case KindFPWalk:
		return s.fpWalk()
	case KindFPJump:
		return s.fpJump(rule)
	case KindGo:
		return s.golang(rule)
	case KindPLT:
		cfa := s.f.SP + 8
		if s.f.PC&15 >= uint64(rule.Off()) {
			cfa += 8
		}
		return s.atCFA(cfa, cfa, FPSame)
	case KindSP:
		sp, ok := s.sp(rule)
		if !ok {
			return Frame{}, stack.StopFPImplausible
		}
		return s.atCFA(sp, sp+8*uint64(rule.Off()), rule.FP())
	case KindFP:
		if s.f.FPLost {
			return Frame{}, stack.StopUnsupportedRule
		}
		return s.atCFA(s.f.FP, s.f.FP+8*uint64(rule.Off()), rule.FP())
	}
	return Frame{}, stack.StopUnsupportedRule
}

// spGuessed reports whether SP is only known to be no higher than the real one: the
// frame was found by a frame record, which on arm64 may be anywhere in its frame
// (AAPCS64 §6.4.6).
func (s *stepper) spGuessed() bool { return s.arch == ARM64 && s.f.FPWalked }

// sp returns the stack pointer that a KindSP or KindGo rule starts from. If it is not
// known, FP is taken to point at the frame's record, and the rule says where that is;
// ok is false where it cannot be.
func (s *stepper) sp(rule Rule) (sp uint64, ok bool) {
	if !s.spGuessed() {
		return s.f.SP, true
	}
	sp = s.f.FP
	switch {
	case rule.Kind() == KindGo:
		sp += 8
	case rule.FP() != FPRecordAtBase:
		sp -= 8 * (uint64(rule.Off()) - uint64(rule.FP()) - 1)
	}
	return sp, sp-s.f.SP < FPWalkMax
}

// atCFA applies a KindSP or KindFP rule.
func (s *stepper) atCFA(base, cfa uint64, fp uint8) (Frame, stack.Stop) {
	next := s.caller(cfa)
	ra, fpAt := cfa-8, cfa-8*uint64(fp+1)
	if s.arch == ARM64 {
		switch fp {
		case FPSame:
			return s.inLR(next)
		case FPUnknown:
			return next, stack.StopUnsupportedRule
		case FPRecordAtBase:
			fpAt = base
		}
		ra = fpAt + 8
	}
	switch {
	case fp == FPUnknown:
		next.FP, next.FPLost = 0, true
	case fp != FPSame:
		if !s.read(fpAt, &next.FP) {
			return next, stack.StopReadStack
		}
		next.FPLost = false
	}
	return s.finish(next, ra)
}

// caller returns a frame like s.f's, but for a stack pointer of cfa.
func (s *stepper) caller(cfa uint64) Frame {
	next := Frame{FPLost: s.f.FPLost}
	if s.arch == AMD64 && s.f.Exact && s.f.AllValid {
		next.Volatile, next.General = true, s.f.General
	}
	next.SP, next.FP = cfa, s.f.FP
	return next
}

// read reads a word of the stack.
func (s *stepper) read(addr uint64, to *uint64) bool {
	v, ok := s.mem.Word(addr)
	*to = v
	return ok
}

// inLR completes a caller whose address is in the link register.
func (s *stepper) inLR(next Frame) (Frame, stack.Stop) {
	if !s.f.Exact {
		return next, stack.StopLRMidStack
	}
	next.PC = s.f.LR
	return s.check(next)
}

// finish completes a caller whose address is at ra.
func (s *stepper) finish(next Frame, ra uint64) (Frame, stack.Stop) {
	if !s.read(ra, &next.PC) {
		return next, stack.StopReadStack
	}
	return s.check(next)
}

// check ends a step. The stack pointer must have risen; only the top frame may
// share it with its caller, if the return address is in a register.
func (s *stepper) check(next Frame) (Frame, stack.Stop) {
	if s.arch == ARM64 {
		next.PC &= pacMask
	}
	low := s.f.SP
	if !s.f.Exact {
		low++
	}
	switch {
	case next.PC == 0:
		return next, stack.StopEnd
	case next.SP < low && !s.jumped:
		return next, stack.StopSPNotRising
	}
	return next, stack.StopNone
}

// golang applies a KindGo rule.
func (s *stepper) golang(rule Rule) (Frame, stack.Stop) {
	sp, ok := s.sp(rule)
	if !ok {
		return Frame{}, stack.StopFPImplausible
	}
	next := s.caller(sp + 8*uint64(rule.Off()))
	if rule.Off() == 0 {
		return s.inLR(next)
	}
	if !s.read(sp-8, &next.FP) {
		return next, stack.StopReadStack
	}
	next.FPLost = false
	return s.finish(next, sp)
}

// fpWalk applies a KindFPWalk rule.
func (s *stepper) fpWalk() (Frame, stack.Stop) {
	fp := s.f.FP
	if s.f.FPLost || fp&7 != 0 || fp < s.f.SP || fp-s.f.SP >= FPWalkMax {
		return Frame{}, stack.StopFPImplausible
	}
	next := s.caller(fp + 16)
	next.FPWalked = true
	if !s.read(fp, &next.FP) {
		return next, stack.StopReadStack
	}
	return s.finish(next, fp+8)
}

// fpJump applies a KindFPJump rule.
func (s *stepper) fpJump(rule Rule) (Frame, stack.Stop) {
	fp := s.f.FP
	if s.f.FPLost || fp&7 != 0 || fp == 0 {
		return Frame{}, stack.StopFPImplausible
	}
	next := s.caller(fp + 16 + 8*uint64(rule.Off()))
	if !s.read(fp, &next.FP) || !s.read(fp+8, &next.PC) {
		return next, stack.StopReadStack
	}
	s.jumped = true
	return s.check(next)
}

// wide applies a wide rule.
func (s *stepper) wide(w Wide) (Frame, stack.Stop) {
	cfa, ok := s.reg(w.Reg)
	if !ok || w.RA == WhereUnknown {
		return Frame{}, stack.StopUnsupportedRule
	}
	cfa += uint64(int64(w.CFAOff))
	if w.Deref {
		if w.Index > 0 {
			index, ok := s.reg(w.Index - 1)
			if !ok {
				return Frame{}, stack.StopUnsupportedRule
			}
			cfa += 8 * index
		}
		if !s.read(cfa, &cfa) {
			return Frame{}, stack.StopReadStack
		}
		cfa += uint64(int64(w.Add))
	}
	next := s.caller(cfa)
	if w.FP != WhereSame {
		next.FPLost = false
		stop := s.where(w.FP, w.FPArg, cfa, &next.FP)
		switch {
		case stop == stack.StopNone:
		case w.FP == WhereReg, w.FP == WhereUnknown:
			next.FPLost = true
		default:
			return next, stop
		}
	}
	if w.RA == WhereSame {
		if s.arch != ARM64 {
			return next, stack.StopUnsupportedRule
		}
		return s.inLR(next)
	}
	if stop := s.where(w.RA, w.RAArg, cfa, &next.PC); stop != stack.StopNone {
		return next, stop
	}
	return s.check(next)
}

// where recovers one register.
func (s *stepper) where(how Where, arg int32, cfa uint64, to *uint64) stack.Stop {
	at := cfa
	switch how {
	case WhereReg:
		v, ok := s.reg(uint8(arg))
		if !ok {
			return stack.StopUnsupportedRule
		}
		*to = v
		return stack.StopNone
	case WhereCFA:
	case WhereFP:
		if s.f.FPLost {
			return stack.StopUnsupportedRule
		}
		at = s.f.FP
	default:
		return stack.StopUnsupportedRule
	}
	if !s.read(at+uint64(int64(arg)), to) {
		return stack.StopReadStack
	}
	return stack.StopNone
}

// reg returns the value of a register by DWARF number, if it is known.
func (s *stepper) reg(n uint8) (uint64, bool) {
	fp, sp := uint8(x86RBP), uint8(x86RSP)
	if s.arch == ARM64 {
		fp, sp = arm64FP, arm64SP
	}
	switch {
	case n == sp:
		return s.f.SP, !s.spGuessed()
	case n == fp:
		return s.f.FP, !s.f.FPLost
	case s.arch == ARM64 && n == arm64LR && s.f.Exact:
		return s.f.LR, true
	case n < NumRegs && (s.f.AllValid || s.f.Volatile && x86Volatile>>n&1 != 0):
		return s.f.General[n], true
	}
	return 0, false
}
