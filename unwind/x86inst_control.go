// SPDX-License-Identifier: Apache-2.0

package unwind

// control decodes the rest of an opcode that shapes marks with a c.
func (d *x86Decoder) control() bool {
	in := &d.inst
	low := d.op&7 | d.rex&1<<3
	switch d.op {
	case 0x68:
		in.op = x86Push
		d.immediate()
		return !d.opsize
	case 0x6a:
		in.op = x86Push
		d.u8()
		return !d.opsize
	case 0x8f:
		d.modRM()
		in.op, in.rm = x86Pop, regNone
		if d.modReg {
			in.reg = d.rmOp
		}
		return !d.opsize
	case 0x9c, 0x9d:
		in.op = x86Push
		if d.op == 0x9d {
			in.op = x86Pop
		}
		return !d.opsize
	case 0xe8:
		in.op = x86Call
		in.imm = int32(d.u32())
		return true
	case 0xf6, 0xf7, 0xff:
		return d.unary()
	}
	switch {
	case d.op < 0x58:
		in.op, in.reg = x86Push, low
		return !d.opsize
	case d.op < 0x60:
		in.op, in.reg = x86Pop, low
		return !d.opsize
	case d.op < 0x80, d.op >= 0xe0:
		d.branch()
	case d.op >= 0xc2:
		d.leaving()
	default:
		d.moves(low)
	}
	return true
}

// branch decodes jumps.
func (d *x86Decoder) branch() {
	in := &d.inst
	switch d.op {
	case 0xe9:
		in.op, in.imm = x86Jmp, int32(d.u32())
	case 0xeb:
		in.op, in.imm = x86Jmp, int32(int8(d.u8()))
	case 0xf4: // hlt
		in.op = x86Trap
	default: // jcc; loop, jrcxz
		in.op, in.imm = x86Jcc, int32(int8(d.u8()))
	}
}

// leaving decodes returns and the like.
func (d *x86Decoder) leaving() {
	switch d.op {
	case 0xc2:
		d.inst.op = x86Ret
		d.u16()
	case 0xc3:
		d.inst.op = x86Ret
	case 0xc8: // enter
		d.inst.op = x86Confusing
		d.u16()
		d.u8()
	case 0xc9:
		d.inst.op = x86Leave
	case 0xcc:
		d.inst.op = x86Trap
	default: // far returns, iret
		d.inst.op = x86Confusing
		if d.op == 0xca {
			d.u16()
		}
	}
}

// moves decodes xchg with RAX, moves of immediates, and of RAX from and to an
// absolute address.
func (d *x86Decoder) moves(low uint8) {
	in := &d.inst
	switch {
	case d.op == 0x90 && d.rex&1 == 0:
		in.op = x86Nop
	case d.op < 0x98:
		in.writes = 1<<encRAX | 1<<low
	case d.op < 0xb0:
		if d.asize {
			d.u32()
		} else {
			d.u64()
		}
	case d.op < 0xb8:
		d.u8()
		if d.rex == 0 {
			low &= 3
		}
		in.writes = 1 << low
	case d.wide():
		d.u64()
		in.writes = 1 << low
	default:
		in.imm = d.immediate()
		in.writes = 1 << low
		if !d.opsize {
			d.means(x86MovImm, low, regNone)
		}
	}
}

// unary decodes the groups 3 and 5.
func (d *x86Decoder) unary() bool {
	d.modRM()
	in := &d.inst
	group := d.regOp & 7
	if d.op != 0xff {
		switch {
		case group < 2 && d.op == 0xf6: // test
			d.u8()
		case group < 2:
			d.immediate()
		case group < 4 && d.modReg: // not, neg
			in.writes = 1 << d.rmOp
		}
		return true
	}
	switch group {
	case 0, 1: // inc, dec
		if d.modReg {
			in.writes = 1 << d.rmOp
		}
	case 2:
		in.op, in.imm = x86CallTo, d.disp
	case 4:
		in.op, in.imm = x86JmpTo, d.disp
	case 6:
		in.op, in.rm = x86Push, regNone
		if d.modReg {
			in.reg = d.rmOp
		}
		return !d.opsize
	default: // far calls and jumps; undefined
		return false
	}
	return true
}

// control0F decodes the rest of an opcode that shapes0F marks with a c.
func (d *x86Decoder) control0F() bool {
	in := &d.inst
	switch {
	case d.op == 0x0b:
		in.op = x86Trap
	case d.op == 0xb9, d.op == 0xff: // ud1, ud0
		d.modRM()
		in.op = x86Trap
	case d.op>>4 == 8:
		in.op, in.imm = x86Jcc, int32(d.u32())
	case d.op == 0xa0, d.op == 0xa8: // push fs, gs
		in.op = x86Push
	case d.op == 0xa1, d.op == 0xa9:
		in.op = x86Pop
	default: // bswap
		in.writes = 1 << (d.op&7 | d.rex&1<<3)
	}
	return true
}

// vex decodes what follows a VEX prefix (Intel SDM volume 2, §2.3.5).
func (d *x86Decoder) vex() bool {
	b := d.u8()
	opmap, pp := byte(1), b
	d.rex = ^b >> 5 & 4
	if d.op == 0xc4 {
		opmap = b & 0x1f
		d.rex = ^b >> 5
		pp = d.u8()
		d.rex |= pp >> 4 & 8
	}
	other := ^pp >> 3 & 15
	d.op = d.u8()
	shape := d.vectorShape(opmap, pp&3)
	switch {
	case shape == ' ':
		return false
	case opmap == 1 && d.op == 0x77: // vzeroupper
		return true
	case opmap == 2 && (d.op == 0xf3 || d.op == 0xf6): // blsr, mulx
		d.inst.writes = 1 << other
	}
	d.operands(shape, false)
	return true
}

// evex decodes what follows an EVEX prefix (§2.7.1).
func (d *x86Decoder) evex() bool {
	b := d.bytes(3)
	if len(b) < 3 || b[0]&8 != 0 || b[1]&4 == 0 {
		return false
	}
	d.rex = ^b[0]>>5 | b[1]>>4&8
	d.op = d.u8()
	shape := d.vectorShape(b[0]&7, b[1]&3)
	if shape == 'R' && d.op != 0x2c && d.op != 0x2d && d.op>>1 != 0x78>>1 {
		shape = 'm' // what VEX has there is not of general registers
	}
	d.operands(shape, false)
	return shape != ' '
}

// vectorShape returns the shape of an opcode after VEX or EVEX, of which only
// few write general registers.
func (d *x86Decoder) vectorShape(opmap, pp byte) byte {
	op := d.op
	switch opmap {
	case 1, 5:
		switch {
		case op>>1 == 0x2c>>1, op>>1 == 0x78>>1: // conversions of scalars
			if pp >= 2 {
				return 'R'
			}
		case op == 0x50, op == 0xd7, op == 0x93: // movmsk, pmovmskb, kmov
			return 'R'
		case op == 0xc5: // pextrw
			return 'j'
		case op == 0x7e && pp == 1:
			return 'M'
		case op >= 0x70 && op <= 0x73, op == 0xc2, op == 0xc4, op == 0xc6:
			return 'k'
		}
		return 'm'
	case 2:
		switch {
		case op>>4 == 0xe, op == 0xf2, op >= 0xf5 && op <= 0xf7:
			return 'R' // cmpccxadd, andn, bzhi, pdep, pext, mulx, bextr, shifts
		}
		return 'm'
	case 3:
		switch {
		case op == 0xf0: // rorx
			return 'j'
		case op >= 0x14 && op <= 0x17:
			return 'i'
		}
		return 'k'
	case 6:
		return 'm'
	}
	return ' '
}

// xop decodes what follows AMD's XOP prefix.
func (d *x86Decoder) xop() bool {
	b := d.u8()
	d.rex = ^b >> 5
	pp := d.u8()
	d.op = d.u8()
	shape := map[byte]byte{8: 'k', 9: 'm', 10: 'I'}[b&0x1f]
	if shape == 0 {
		return false
	}
	d.operands(shape, false)
	// Bit manipulation may write this one; that vectors do not is no matter.
	d.inst.writes |= 1<<(^pp>>3&15) | 1<<(d.regOp&15)
	return true
}
