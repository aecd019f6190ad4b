// SPDX-License-Identifier: Apache-2.0

package unwind

// x86Op says what an instruction does to the stack, to the frame pointer, or to
// the flow of control.
type x86Op uint8

const (
	x86Other     x86Op = iota // nothing but to write the registers in writes
	x86Nop                    // padding
	x86Push                   // push reg; pushes of anything else have reg regNone
	x86Pop                    // pop reg, or regNone
	x86Leave                  // mov %rbp, %rsp; pop %rbp
	x86Mov                    // mov rm, reg, of 64 bits
	x86Lea                    // lea imm(rm), reg
	x86Load                   // mov imm(rm), reg, of 64 bits
	x86Store                  // mov reg, imm(rm), of 64 bits
	x86AddImm                 // add imm, reg, of 64 bits
	x86SubReg                 // sub rm, reg, of 64 bits
	x86MovImm                 // mov imm, reg, which has the upper half clear
	x86Cmp                    // cmp of reg and rm, of 64 bits
	x86Clear                  // xor reg, reg
	x86Ret                    // return to the caller
	x86Jmp                    // jump to imm from the next instruction
	x86Jcc                    // the same on a condition
	x86JmpTo                  // jump to a register or memory
	x86Call                   // call of imm from the next instruction
	x86CallTo                 // call of a register or memory
	x86Trap                   // never continues: ud2, int3, hlt
	x86Confusing              // changes RSP in ways no compiler needs
)

const (
	regNone = 0xff
	regRIP  = 0xfe
)

// x86Inst is one decoded instruction.
type x86Inst struct {
	op   x86Op
	size uint8
	// reg and rm are register numbers as instructions encode them, in which RSP
	// is 4 and RBP is 5, not as DWARF does. rm is the base of a memory operand
	// that has no index, else regNone.
	reg, rm uint8
	writes  uint16 // set of the general registers written, but for what op says
	imm     int32  // displacement, immediate or distance
}

// Register numbers of x86 instructions.
const (
	encRAX = 0
	encRBX = 3
	encRSP = 4
	encRBP = 5
	encR10 = 10
	encR11 = 11
	encR12 = 12
)

// The shapes of the opcodes, 16 to a row (Intel SDM volume 2, appendix A):
//
//	' '  undefined in 64-bit mode, a prefix or an escape
//	.    no operand bytes
//	m    ModRM; no general register is written
//	R    ModRM; writes its reg; J with an immediate of 4 bytes, j of 1
//	M    ModRM; writes its r/m; I with an immediate of 4 bytes, i of 1
//	X    ModRM; writes both
//	k    ModRM and an immediate of 1 byte; writes none
//	b z  an immediate of 1 byte, of 4 (2 with an operand-size prefix)
//	c    see control and control0F
//
// Registers that are written without being named (RAX by mul) do not matter here.
const shapes = "" +
	"MMRRbz  MMRRbz  " +
	"MMRRbz  MMRRbz  " +
	"MMRRbz  MMRRbz  " +
	"MMRRbz  mmmmbz  " +
	"                " +
	"cccccccccccccccc" +
	"   R    cJcj...." +
	"cccccccccccccccc" +
	"iI immXXMMRRMRmc" +
	"cccccccc.. .cc.." +
	"cccc....bz......" +
	"cccccccccccccccc" +
	"iicc  iIcccccb c" +
	"MMMM   .mmmmmmmm" +
	"ccccbbbbcc c...." +
	"    c.cc......Mc"

const shapes0F = "" +
	"MmRR ..... c m.k" +
	"mmmmmmmmmmmmmmMm" +
	"MMmm    mmmmRRmm" +
	"...... .        " +
	"RRRRRRRRRRRRRRRR" +
	"Rmmmmmmmmmmmmmmm" +
	"mmmmmmmmmmmmmmmm" +
	"kkkkmmm. m  mmMm" +
	"cccccccccccccccc" +
	"MMMMMMMMMMMMMMMM" +
	"cc.miM  cc.MiMMR" +
	"MMRMRRRRRciMRRRR" +
	"XXkmkjkMcccccccc" +
	"mmmmmmmRmmmmmmmm" +
	"mmmmmmmmmmmmmmmm" +
	"mmmmmmmmmmmmmmmc"

// x86Decoder decodes one instruction. It knows the length of everything a
// compiler or an assembler writes for user code, and what of it concerns the
// stack.
type x86Decoder struct {
	reader
	inst   x86Inst
	rex    byte
	opsize bool // operand-size prefix
	asize  bool // address-size prefix
	rep    byte // the last of F2 and F3
	op     byte // opcode
	// Of ModRM: whether the operand is a register, and which; else rm, in inst,
	// and disp.
	modReg  bool
	regOp   uint8 // middle field, extended
	rmOp    uint8 // low field, extended
	indexed bool  // the memory operand has an index
	disp    int32
}

// decodeX86 decodes the first instruction of code, false if there is none that
// it knows.
func decodeX86(code []byte) (x86Inst, bool) {
	// No instruction is longer than 15 bytes.
	d := x86Decoder{reader: reader{b: code[:min(len(code), 15)]}}
	d.inst.reg, d.inst.rm = regNone, regNone
	ok := d.decode()
	d.inst.size = uint8(d.pos)
	return d.inst, ok && !d.bad
}

// decode reads prefixes and opcode.
func (d *x86Decoder) decode() bool {
	for {
		d.op = d.u8()
		switch d.op {
		case 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0xf0:
			continue
		case 0x66:
			d.opsize = true
			continue
		case 0x67:
			d.asize = true
			continue
		case 0xf2, 0xf3:
			d.rep = d.op
			continue
		}
		break
	}
	if d.bad {
		return false
	}
	if d.op&0xf0 == 0x40 {
		d.rex = d.op
		d.op = d.u8()
	}
	switch {
	case d.op == 0x0f:
		return d.decode0F()
	case d.op == 0xc4, d.op == 0xc5:
		return d.vex()
	case d.op == 0x62:
		return d.evex()
	case d.op == 0x8f && d.pos < len(d.b) && d.b[d.pos]&0x1f >= 8:
		return d.xop()
	}
	shape := shapes[d.op]
	switch shape {
	case ' ':
		return false
	case 'c':
		return d.control()
	}
	// Even opcodes are those of 8-bit registers, of which the second four are
	// AH to BH if there is no REX.
	d.operands(shape, d.op&1 == 0 && d.op != 0x8c)
	d.meaning()
	return true
}

// decode0F reads an opcode of the second map and those beyond.
func (d *x86Decoder) decode0F() bool {
	d.op = d.u8()
	switch d.op {
	case 0x38:
		d.op = d.u8()
		shape := byte('m')
		if d.op == 0xf6 || d.op == 0xf0 || d.op == 0xf1 && d.rep == 0xf2 {
			shape = 'R' // adcx, adox, movbe, crc32
		}
		d.operands(shape, false)
		return true
	case 0x3a:
		d.op = d.u8()
		shape := byte('k')
		if d.op >= 0x14 && d.op <= 0x17 {
			shape = 'i' // pextr, extractps
		}
		d.operands(shape, false)
		return true
	}
	shape := shapes0F[d.op]
	switch {
	case shape == ' ':
		return false
	case shape == 'c':
		return d.control0F()
	case d.op == 0x7e && d.rep == 0xf3: // movq between vector registers
		shape = 'm'
	}
	d.operands(shape, d.op>>4 == 9 || d.op == 0xb0 || d.op == 0xc0)
	switch {
	case d.op == 0xba && d.regOp&7 == 4: // bt
		d.inst.writes = 0
	case d.op == 0x1f || d.op == 0x1e && d.rep == 0xf3 && d.modReg && d.regOp&7 == 7: // nop, endbr
		d.inst.op = x86Nop
		d.inst.writes = 0
	}
	return true
}

// operands reads what follows an opcode of the shape. byteReg says that it
// writes a register of 8 bits.
func (d *x86Decoder) operands(shape byte, byteReg bool) {
	size := 0
	switch shape {
	case '.':
		return
	case 'b':
		d.u8()
		return
	case 'z':
		d.immediate()
		return
	case 'i', 'j', 'k':
		size = 1
	case 'I', 'J':
		size = 4
	}
	d.modRM()
	switch size {
	case 1:
		d.inst.imm = int32(int8(d.u8()))
	case 4:
		d.inst.imm = d.immediate()
	}
	narrow := func(r uint8) uint8 {
		if byteReg && d.rex == 0 {
			return r & 3
		}
		return r
	}
	switch shape {
	case 'R', 'J', 'j', 'X':
		d.inst.writes |= 1 << (narrow(d.regOp) & 15)
	}
	switch shape {
	case 'M', 'I', 'i', 'X':
		if d.modReg {
			d.inst.writes |= 1 << (narrow(d.rmOp) & 15)
		}
	}
}

// immediate reads the immediate of most instructions.
func (d *x86Decoder) immediate() int32 {
	if d.opsize && d.rex&8 == 0 {
		return int32(int16(d.u16()))
	}
	return int32(d.u32())
}

// modRM reads a ModRM byte, SIB and displacement.
func (d *x86Decoder) modRM() {
	b := d.u8()
	mod, low := b>>6, b&7
	d.regOp = b>>3&7 | d.rex&4<<1
	d.rmOp = low | d.rex&1<<3
	if mod == 3 {
		d.modReg = true
		return
	}
	base := d.rmOp
	if low == 4 {
		sib := d.u8()
		low = sib & 7
		base = low | d.rex&1<<3
		d.indexed = sib>>3&7|d.rex&2<<2 != 4
		if low == 5 && mod == 0 {
			base = regNone
		}
	} else if low == 5 && mod == 0 {
		base = regRIP
	}
	switch {
	case mod == 1:
		d.disp = int32(int8(d.u8()))
	case mod == 2 || low == 5 && mod == 0:
		d.disp = int32(d.u32())
	}
	if !d.indexed && !d.asize {
		d.inst.rm = base
	}
}

// wide reports whether the operands have 64 bits.
func (d *x86Decoder) wide() bool { return d.rex&8 != 0 }

// meaning fills in what an instruction with a ModRM byte does, for those that
// move the stack or frame pointer.
func (d *x86Decoder) meaning() {
	in := &d.inst
	group := d.regOp & 7
	switch d.op {
	case 0x80, 0x81, 0x83:
		switch {
		case group == 7: // cmp
			in.writes = 0
		case d.wide() && d.modReg && group == 0:
			d.means(x86AddImm, d.rmOp, regNone)
		case d.wide() && d.modReg && group == 5 && in.imm != -1<<31:
			d.means(x86AddImm, d.rmOp, regNone)
			in.imm = -in.imm
		}
	case 0xc7:
		if d.modReg && group == 0 && !d.opsize && (!d.wide() || in.imm >= 0) {
			d.means(x86MovImm, d.rmOp, regNone)
		}
	case 0x31, 0x33:
		if d.modReg && d.regOp == d.rmOp && !d.opsize {
			d.means(x86Clear, d.regOp, regNone)
		}
	}
	if d.wide() {
		d.meaning64()
	}
}

// meaning64 is meaning for those that only do so with operands of 64 bits.
func (d *x86Decoder) meaning64() {
	in := &d.inst
	switch d.op {
	case 0x89:
		if d.modReg {
			d.means(x86Mov, d.rmOp, d.regOp)
		} else {
			d.means(x86Store, d.regOp, in.rm)
			in.imm = d.disp
		}
	case 0x8b:
		if d.modReg {
			d.means(x86Mov, d.regOp, d.rmOp)
		} else {
			d.means(x86Load, d.regOp, in.rm)
			in.imm = d.disp
		}
	case 0x8d:
		if !d.modReg {
			d.means(x86Lea, d.regOp, in.rm)
			in.imm = d.disp
		}
	case 0x29:
		if d.modReg {
			d.means(x86SubReg, d.rmOp, d.regOp)
		}
	case 0x2b:
		if d.modReg {
			d.means(x86SubReg, d.regOp, d.rmOp)
		}
	case 0x39, 0x3b:
		if d.modReg {
			d.means(x86Cmp, d.regOp, d.rmOp)
		}
	}
}

func (d *x86Decoder) means(op x86Op, reg, rm uint8) {
	d.inst.op, d.inst.reg, d.inst.rm = op, reg, rm
	d.inst.writes = 0
}
