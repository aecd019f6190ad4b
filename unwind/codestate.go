// SPDX-License-Identifier: Apache-2.0

package unwind

import "math"

// codeState is what is known of the registers before an instruction. Registers
// are given by their distance below the CFA: 8 is the place of the return
// address, where RSP is at a function's entry.
type codeState struct {
	sp       int32 // RSP, or regUnknown
	fp       int32 // RBP, regUnknown, or regCaller while it has the caller's value
	saved    int32 // where the caller's RBP is on the stack, 0 if it is not
	r10, r11 int32 // the two that compilers keep stack addresses in meanwhile
	// kept is where the register keeper, one that calls preserve, was set from
	// RSP, to restore it: around arguments on the stack and blocks with arrays
	// of variable size. 0 if there is none.
	kept   int32
	keeper uint8
	// ra is, plus one, the register that the return address was popped to, 0 if
	// it is on the stack: around system calls whose child runs on the same stack.
	ra uint8
	// root: the function has cleared RBP, which it did not save. It will not
	// return, and marks its frame as the outermost (psABI §3.4.1).
	root bool
}

const (
	regUnknown = math.MinInt32
	regCaller  = math.MinInt32 + 1
	// maxFrame bounds frames that are believed.
	maxFrame = 1 << 30
)

// codeEntry is the state at a function's entry (psABI §3.2).
func codeEntry() codeState {
	return codeState{sp: 8, fp: regCaller, r10: regUnknown, r11: regUnknown}
}

// reg returns the distance of a register as instructions number them.
func (s *codeState) reg(n uint8) int32 {
	switch n {
	case encRSP:
		return s.sp
	case encRBP:
		if s.fp != regCaller {
			return s.fp
		}
	case encR10:
		return s.r10
	case encR11:
		return s.r11
	}
	if s.kept != 0 && n == s.keeper {
		return s.kept
	}
	return regUnknown
}

// set gives a register a value.
func (s *codeState) set(n uint8, v int32) {
	if s.ra == n+1 {
		s.ra, s.sp = 0, regUnknown // gone
	}
	if s.kept != 0 && n == s.keeper {
		s.kept, s.keeper = 0, 0
	}
	switch n {
	case encRSP:
		s.sp = v
		if s.saved != 0 && v != regUnknown && v < s.saved {
			s.saved = 0 // what is below RSP is anybody's
		}
	case encRBP:
		s.fp = v
	case encR10:
		s.r10 = v
	case encR11:
		s.r11 = v
	}
}

// plus adds bytes to a distance; higher addresses have smaller ones.
func plus(v, bytes int32) int32 {
	if v == regUnknown || v == regCaller {
		return regUnknown
	}
	sum := int64(v) - int64(bytes)
	if sum < -maxFrame || sum > maxFrame {
		return regUnknown
	}
	return int32(sum)
}

// framed reports whether RBP is the frame pointer.
func (s *codeState) framed() bool {
	return s.fp != regCaller && s.fp != regUnknown
}

// fits reports whether s and t can both be right where two paths join. Compilers
// have RSP at one depth there, but for loops in which that is not known anyway.
func (s *codeState) fits(t *codeState) bool {
	return s.sp == t.sp || s.sp == regUnknown || t.sp == regUnknown
}

// meet returns what is known where two paths join.
func (s codeState) meet(t codeState) codeState {
	if s.sp != t.sp {
		s.sp = regUnknown
	}
	if s.fp != t.fp {
		s.fp = regUnknown
	}
	if s.saved != t.saved {
		s.saved = 0
	}
	if s.r10 != t.r10 {
		s.r10 = regUnknown
	}
	if s.r11 != t.r11 {
		s.r11 = regUnknown
	}
	if s.kept != t.kept || s.keeper != t.keeper {
		s.kept, s.keeper = 0, 0
	}
	if s.ra != t.ra || s.root != t.root {
		s.ra, s.root, s.sp, s.fp = 0, false, regUnknown, regUnknown
	}
	return s
}

// returns reports whether the stack is as a return or a tail call needs it.
func (s *codeState) returns() bool {
	return s.sp == 8 && s.fp == regCaller
}

// step changes s to what is known after in. It returns false if no compiler
// does that.
func (s *codeState) step(in *x86Inst) bool {
	switch {
	case !s.apply(in):
		return false
	case s.ra != 0:
		return s.sp == 0 && in.op != x86Call && in.op != x86CallTo
	}
	return s.sp == regUnknown || s.sp >= 8 || s.root
}

// apply is step for code that may take its return address off the stack.
func (s *codeState) apply(in *x86Inst) bool {
	s.clobber(in.writes)
	switch in.op {
	case x86Push:
		if s.ra != 0 && s.ra == in.reg+1 && s.sp == 0 {
			s.ra, s.sp = 0, 8
			return true
		}
		s.set(encRSP, plus(s.sp, -8))
		s.save(in.reg, s.sp)
	case x86Pop:
		s.pop(in.reg)
	case x86Leave:
		s.set(encRSP, s.reg(encRBP))
		s.pop(encRBP)
	case x86Mov:
		s.set(in.reg, s.reg(in.rm))
		if in.rm == encRSP && s.sp != regUnknown && (in.reg == encRBX || in.reg >= encR12) {
			s.kept, s.keeper = s.sp, in.reg
		}
	case x86Lea:
		s.set(in.reg, plus(s.reg(in.rm), in.imm))
	case x86AddImm:
		s.set(in.reg, plus(s.reg(in.reg), in.imm))
	case x86Load:
		s.load(in.reg, plus(s.reg(in.rm), in.imm))
	case x86Store:
		if at := plus(s.reg(in.rm), in.imm); at > 8 {
			s.save(in.reg, at)
		}
	case x86SubReg, x86MovImm:
		s.set(in.reg, regUnknown)
	case x86Clear:
		s.root = s.root || in.reg == encRBP && s.fp == regCaller && s.saved == 0 && s.sp == 8
		s.set(in.reg, regUnknown)
	case x86Call, x86CallTo:
		s.r10, s.r11 = regUnknown, regUnknown
	case x86Confusing:
		return false
	}
	return true
}

// clobber forgets the registers of a set.
func (s *codeState) clobber(set uint16) {
	for n := range uint8(16) {
		if set>>n == 0 {
			break
		}
		if set>>n&1 != 0 {
			s.set(n, regUnknown)
		}
	}
}

// save stores a register on the stack at a distance.
func (s *codeState) save(reg uint8, at int32) {
	if reg == encRBP && s.fp == regCaller && at != regUnknown && s.saved == 0 {
		s.saved = at
	}
}

// pop loads a register from the top of the stack.
func (s *codeState) pop(reg uint8) {
	at := s.sp
	caller := reg == encRBP && at != regUnknown && at == s.saved
	s.set(encRSP, plus(at, 8))
	s.set(reg, regUnknown)
	if at == 8 && reg < 16 && reg != encRSP && reg != encRBP && !s.root {
		s.ra = reg + 1
	}
	if caller {
		s.fp = regCaller
	}
}

// load loads a register from the stack at a distance.
func (s *codeState) load(reg uint8, at int32) {
	s.set(reg, regUnknown)
	if reg == encRBP && at != regUnknown && at == s.saved {
		s.fp = regCaller
	}
}
