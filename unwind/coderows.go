// SPDX-License-Identifier: Apache-2.0

package unwind

// rows makes rows of the states found.
func (c *codeScan) rows() []span {
	f := &c.flow
	rules := make([]Rule, len(f.states))
	for i := range f.states {
		rules[i] = f.states[i].rule(c.wide)
	}
	var rows []span
	add := func(off uint32, r Rule) {
		if n := len(rows); n == 0 || rows[n-1].rule != r {
			rows = append(rows, span{f.begin + uint64(off), r})
		}
	}
	off, size := uint32(0), uint32(len(f.code))
	for off < size {
		cell := f.at[off]
		if cell.state != 0 {
			add(off, rules[cell.state-1])
			if c.visit != nil {
				c.visit(f.begin+uint64(off), &f.states[cell.state-1])
			}
			off += uint32(max(cell.size, 1))
			continue
		}
		from := off
		for off < size && f.at[off].state == 0 {
			off++
		}
		if r, ok := c.unknown(from, off); ok {
			add(from, r)
		}
	}
	return append(rows, span{f.begin + uint64(size), 0})
}

// unknown returns the rule for instructions that no known flow reaches, false if
// they are padding.
func (c *codeScan) unknown(from, to uint32) (Rule, bool) {
	if to-from >= padding {
		return 0, true
	}
	// The encoder would let the rule before go on.
	for code := c.flow.code[from:to]; len(code) > 0; {
		in, ok := decodeX86(code)
		if !ok || in.op != x86Nop && in.op != x86Trap {
			return c.wide.rule(lost()), true
		}
		code = code[in.size:]
	}
	return 0, false
}

// rule returns the rule that says what s says.
func (s *codeState) rule(wide *wideSet) Rule {
	switch {
	case s.root:
		return MakeRule(KindEnd, 0, 0)
	case s.ra != 0:
		return wide.rule(MakeRule(KindWide, 0, 0), Wide{Reg: x86RSP, RA: WhereReg, RAArg: dwarfX86(s.ra - 1)})
	}
	row, ok := s.row()
	if !ok {
		return wide.rule(lost())
	}
	m := AMD64.machine()
	return m.pack(&row, wide)
}

// row returns what s says, with the return address where a call puts it; false if
// nothing leads to the CFA.
func (s *codeState) row() (frameState, bool) {
	row := frameState{}
	switch {
	case s.framed() && s.fp >= 16:
		row.cfaReg, row.cfaOff = x86RBP, int64(s.fp)
	case s.sp != regUnknown:
		row.cfaReg, row.cfaOff = x86RSP, int64(s.sp)
	// No call leaves these two alone, so they are of use in the top frame.
	case s.r11 != regUnknown:
		row.cfaReg, row.cfaOff = encR11, int64(s.r11)
	case s.r10 != regUnknown:
		row.cfaReg, row.cfaOff = encR10, int64(s.r10)
	default:
		return row, false
	}
	row.ra = regRule{how: placeCFA, off: -8}
	switch {
	case s.fp == regCaller:
	case s.saved != 0:
		row.fp = regRule{how: placeCFA, off: -int64(s.saved)}
	default:
		row.fp.how = placeUndefined
	}
	return row, true
}
