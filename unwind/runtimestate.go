// SPDX-License-Identifier: Apache-2.0

package unwind

// step is codeState.step for code that moves its return address: between an
// interpreter's frames and those of compiled code lies what adapts one to the other.
func (s *sweepState) step(in *x86Inst) bool {
	if in.op == x86Call && in.imm == 0 { // call 1f; 1:
		s.set(encRSP, plus(s.sp, -8))
		return true
	}
	was := *s
	if !s.apply(in) {
		return false
	}
	s.codeState.ra, s.root = 0, false // follow knows better
	s.follow(in, &was)
	if s.ra == raInReg && s.reg == regNone {
		s.ra = regUnknown
	}
	if s.ra > 0 && s.sp != regUnknown && s.sp < s.ra {
		s.ra = regUnknown // below RSP
	}
	return s.sp == regUnknown || s.sp >= 0
}

// follow follows the return address.
func (s *sweepState) follow(in *x86Inst, was *sweepState) {
	onStack := was.ra > 0
	switch in.op {
	case x86Pop:
		if onStack && was.sp == was.ra && in.reg < 16 && in.reg != encRSP && in.reg != encRBP {
			s.ra, s.reg = raInReg, in.reg
			return
		}
	case x86Load:
		if onStack && plus(was.codeState.reg(in.rm), in.imm) == was.ra && in.reg != encRBP {
			s.reg = in.reg
			return
		}
	case x86Store:
		if at := plus(was.codeState.reg(in.rm), in.imm); in.reg == was.reg && was.ra == raInReg && at != regUnknown && at > 0 {
			s.ra = at
		}
	case x86Push:
		switch {
		case in.reg != was.reg || was.reg == regNone:
		case was.sp == regUnknown:
			// The stack has been aligned, and the callee is to find a return
			// address on it. How far below the caller's RSP that is depends; the
			// caller is one that does not need it, see CodeBlock.
			s.codeState = codeEntry()
			s.ra = 8
		case was.ra == raInReg:
			s.ra = s.sp
		}
	case x86Call, x86CallTo:
		s.reg = regNone
	case x86Mov, x86Lea, x86SubReg, x86AddImm, x86MovImm:
		if in.reg == was.reg {
			s.reg = regNone
		}
	}
	if was.reg != regNone && in.writes>>(was.reg&15)&1 != 0 || (in.op == x86Pop || in.op == x86Load) && in.reg == was.reg {
		s.reg = regNone
	}
}

// rule returns the rule that says what s says.
func (s *sweepState) rule(wide *wideSet) Rule {
	row, ok := s.row()
	switch {
	case !ok || s.ra == regUnknown:
		return wide.rule(lost())
	case s.ra == raInReg:
		row.ra = regRule{how: placeReg, off: int64(dwarfX86(s.reg))}
	default:
		row.ra.off = -int64(s.ra)
	}
	m := AMD64.machine()
	return m.pack(&row, wide)
}
