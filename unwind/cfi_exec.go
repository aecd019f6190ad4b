// SPDX-License-Identifier: Apache-2.0

package unwind

// Call frame instructions, DWARF 5 §7.24. The first three have an operand in
// their low six bits.
const (
	cfaAdvanceLoc = 0x40
	cfaOffset     = 0x80
	cfaRestore    = 0xc0

	cfaNop              = 0x00
	cfaSetLoc           = 0x01
	cfaAdvanceLoc1      = 0x02
	cfaAdvanceLoc2      = 0x03
	cfaAdvanceLoc4      = 0x04
	cfaOffsetExtended   = 0x05
	cfaRestoreExtended  = 0x06
	cfaUndefined        = 0x07
	cfaSameValue        = 0x08
	cfaRegister         = 0x09
	cfaRememberState    = 0x0a
	cfaRestoreState     = 0x0b
	cfaDefCFA           = 0x0c
	cfaDefCFARegister   = 0x0d
	cfaDefCFAOffset     = 0x0e
	cfaDefCFAExpression = 0x0f
	cfaExpression       = 0x10
	cfaOffsetExtendedSF = 0x11
	cfaDefCFASF         = 0x12
	cfaDefCFAOffsetSF   = 0x13
	cfaValOffset        = 0x14
	cfaValOffsetSF      = 0x15
	cfaValExpression    = 0x16

	cfaARM64SetRAState      = 0x2b // operands: state, and the distance to the signing instruction
	cfaARM64NegateRAStatePC = 0x2c
	cfaARM64NegateRAState   = 0x2d // DW_CFA_GNU_window_save elsewhere
	cfaGNUArgsSize          = 0x2e
	cfaGNUNegativeOffset    = 0x2f
)

// executor runs the instructions of one entry.
type executor struct {
	reader
	cie     *cie
	state   frameState
	machine *machine
	base    encBase
	// row takes the rows of an FDE; nil for a CIE, whose instructions must not
	// move the location.
	row            func(pc uint64, s *frameState)
	pc, end, floor uint64
	remembered     []frameState
	ignored        regRule // takes the rules of columns nobody asks for
}

// run executes to the end and reports whether all was well-formed.
func (x *executor) run() bool {
	for x.pos < len(x.b) {
		op := x.b[x.pos]
		x.pos++
		low := uint64(op & 0x3f)
		more := true
		switch {
		case op&0xc0 == cfaAdvanceLoc:
			more = x.advance(low)
		case op&0xc0 == cfaOffset:
			off := x.short()
			if low == uint64(x.machine.fpReg) || low == uint64(x.cie.raReg) {
				x.set(low, placeCFA, int64(off)*x.cie.dataAlign)
			}
		case op == cfaDefCFAOffset:
			x.state.cfaOff = int64(x.short())
		case op == cfaNop:
		case op == cfaAdvanceLoc1:
			more = x.advance(uint64(x.u8()))
		case op&0xc0 == cfaRestore:
			x.restore(low)
		default:
			more = x.extended(op)
		}
		if !more {
			return !x.bad
		}
	}
	if x.row != nil && !x.bad {
		x.row(max(x.pc, x.floor), &x.state)
	}
	return !x.bad
}

// short is uleb, but for small numbers without a call.
func (x *executor) short() uint64 {
	if x.pos < len(x.b) && x.b[x.pos] < 0x80 {
		x.pos++
		return uint64(x.b[x.pos-1])
	}
	return x.uleb()
}

// advance emits the row in force and moves on. It returns false when the rest
// is of no interest: past the end, or bad.
func (x *executor) advance(n uint64) bool {
	delta := n * x.cie.codeAlign
	if x.bad || x.row == nil || n > 1<<32 || x.cie.codeAlign > 1<<16 {
		x.fail()
		return false
	}
	if delta == 0 {
		return true
	}
	x.row(max(x.pc, x.floor), &x.state)
	if delta >= x.end-x.pc {
		x.pc = x.end
		return false
	}
	x.pc += delta
	return true
}

// setLoc is DW_CFA_set_loc.
func (x *executor) setLoc() bool {
	pc := x.pointer(x.cie.fdeEnc, x.base)
	if x.bad || x.row == nil || pc < x.pc {
		x.fail()
		return false
	}
	if pc == x.pc {
		return true
	}
	x.row(max(x.pc, x.floor), &x.state)
	x.pc = min(pc, x.end)
	return pc < x.end
}

// column returns the rule for a register.
func (x *executor) column(reg uint64) *regRule {
	switch reg {
	case uint64(x.machine.fpReg):
		return &x.state.fp
	case uint64(x.cie.raReg):
		return &x.state.ra
	}
	return &x.ignored
}

func (x *executor) set(reg uint64, how place, off int64) {
	*x.column(reg) = regRule{how: how, off: off}
}

func (x *executor) setExpr(reg uint64, how place) {
	*x.column(reg) = regRule{how: how, expr: x.expr()}
}

// expr reads an expression. A file's section has less than 1<<32 bytes.
func (x *executor) expr() expr {
	size := x.uleb()
	off := x.pos
	if x.bytes(size); x.bad {
		return expr{}
	}
	return expr{uint32(off), uint32(size)}
}

// restore puts a register's rule back to what the CIE says.
func (x *executor) restore(reg uint64) {
	switch reg {
	case uint64(x.machine.fpReg):
		x.state.fp = x.cie.initial.fp
	case uint64(x.cie.raReg):
		x.state.ra = x.cie.initial.ra
	}
}

// defCFA sets register and offset of the CFA.
func (x *executor) defCFA(reg uint64, off int64) {
	if reg >= noReg {
		x.fail()
		return
	}
	x.state.cfaReg, x.state.cfaOff, x.state.cfaExpr = uint32(reg), off, expr{}
}

// extended executes an instruction without operand in its opcode. It returns
// false when nothing more needs executing.
func (x *executor) extended(op uint8) bool {
	switch op {
	case cfaARM64NegateRAState, cfaARM64NegateRAStatePC:
		// Whether the return address is signed does not matter: the walk
		// strips it always.
	case cfaSetLoc:
		return x.setLoc()
	case cfaAdvanceLoc2:
		return x.advance(uint64(x.u16()))
	case cfaAdvanceLoc4:
		return x.advance(uint64(x.u32()))
	case cfaRememberState:
		if len(x.remembered) == maxRemember {
			x.fail()
			return false
		}
		x.remembered = append(x.remembered, x.state)
	case cfaRestoreState:
		n := len(x.remembered) - 1
		if n < 0 {
			x.fail()
			return false
		}
		x.state = x.remembered[n]
		x.remembered = x.remembered[:n]
	case cfaDefCFA, cfaDefCFARegister, cfaDefCFAExpression, cfaDefCFASF, cfaDefCFAOffsetSF:
		x.cfaOp(op)
	default:
		x.registerOp(op)
	}
	return !x.bad
}

// cfaOp executes the instructions that define the CFA.
func (x *executor) cfaOp(op uint8) {
	switch op {
	case cfaDefCFA:
		reg := x.uleb()
		x.defCFA(reg, int64(x.uleb()))
	case cfaDefCFASF:
		reg := x.uleb()
		x.defCFA(reg, x.sleb()*x.cie.dataAlign)
	case cfaDefCFARegister:
		x.defCFA(x.uleb(), x.state.cfaOff)
	case cfaDefCFAOffsetSF:
		x.state.cfaOff = x.sleb() * x.cie.dataAlign
	case cfaDefCFAExpression:
		x.state.cfaExpr = x.expr()
	}
}

// registerOp executes the instructions that define a register's rule.
func (x *executor) registerOp(op uint8) {
	if op == cfaGNUArgsSize {
		x.uleb()
		return
	}
	if op == cfaARM64SetRAState {
		x.uleb()
		x.sleb()
		return
	}
	reg := x.uleb()
	switch op {
	case cfaOffsetExtended:
		x.set(reg, placeCFA, int64(x.uleb())*x.cie.dataAlign)
	case cfaOffsetExtendedSF:
		x.set(reg, placeCFA, x.sleb()*x.cie.dataAlign)
	case cfaGNUNegativeOffset:
		x.set(reg, placeCFA, -int64(x.uleb())*x.cie.dataAlign)
	case cfaValOffset:
		x.set(reg, placeValCFA, int64(x.uleb())*x.cie.dataAlign)
	case cfaValOffsetSF:
		x.set(reg, placeValCFA, x.sleb()*x.cie.dataAlign)
	case cfaRegister:
		x.set(reg, placeReg, int64(x.uleb()))
	case cfaExpression:
		x.setExpr(reg, placeExpr)
	case cfaValExpression:
		x.setExpr(reg, placeValExpr)
	case cfaUndefined:
		x.set(reg, placeUndefined, 0)
	case cfaSameValue:
		x.set(reg, placeSame, 0)
	case cfaRestoreExtended:
		x.restore(reg)
	default:
		x.fail()
	}
}
