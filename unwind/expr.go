// SPDX-License-Identifier: Apache-2.0

package unwind

// DWARF expression operations that occur in unwind tables (DWARF 5 §7.7.1).
const (
	opDeref      = 0x06
	opConst1u    = 0x08
	opConst1s    = 0x09
	opAnd        = 0x1a
	opMul        = 0x1e
	opPlus       = 0x22
	opPlusUconst = 0x23
	opShl        = 0x24
	opGE         = 0x2a
	opLit0       = 0x30
	opBreg0      = 0x70
	opBreg31     = 0x8f
	opBregx      = 0x92
)

// cfaBase is a CFA rule that is one register plus an offset, or one word of
// memory there plus another: CFA = reg + off, or *(reg + off + 8*index) + add.
type cfaBase struct {
	reg      uint8
	deref    bool
	index    uint8 // see Wide.Index
	off, add int32
}

// parseCFA returns the CFA rule of s, whose expression is in data, if it has the shape
// of a cfaBase.
func parseCFA(s *frameState, data []byte) (cfaBase, bool) {
	if !s.cfaExpr.set() {
		return cfaBase{reg: uint8(s.cfaReg), off: int32(s.cfaOff)},
			s.cfaReg < NumRegs && fits32(s.cfaOff)
	}
	r := reader{b: s.cfaExpr.in(data)}
	reg, off, ok := readBreg(&r)
	if !ok || reg >= NumRegs {
		return cfaBase{}, false
	}
	b := cfaBase{reg: uint8(reg)}
	off += readPlus(&r)
	b.index = readIndex(&r)
	if r.pos < len(r.b) && r.b[r.pos] == opDeref {
		r.pos++
		b.deref = true
		add := readPlus(&r)
		b.add = int32(add)
		ok = fits32(add)
	}
	b.off = int32(off)
	ok = ok && (b.deref || b.index == 0)
	return b, ok && fits32(off) && !r.bad && r.pos == len(r.b)
}

// readIndex reads what adds 8 times a register, if that is next: breg, 0, lit8, mul
// or lit3, shl, and plus. It returns the register's number plus one, else 0.
func readIndex(r *reader) uint8 {
	rest := r.b[r.pos:]
	if len(rest) < 5 || rest[0] < opBreg0 || rest[0] > opBreg31 || rest[1] != 0 || rest[4] != opPlus {
		return 0
	}
	if scale := [2]byte(rest[2:4]); scale != [2]byte{opLit0 + 8, opMul} && scale != [2]byte{opLit0 + 3, opShl} {
		return 0
	}
	r.pos += 5
	return rest[0] - opBreg0 + 1
}

// parseBreg returns register and offset of an expression that is just that.
func parseBreg(expr []byte) (reg uint32, off int64, ok bool) {
	r := reader{b: expr}
	reg, off, ok = readBreg(&r)
	off += readPlus(&r)
	return reg, off, ok && !r.bad && r.pos == len(r.b)
}

// readBreg reads DW_OP_bregN or DW_OP_bregx.
func readBreg(r *reader) (reg uint32, off int64, ok bool) {
	op := r.u8()
	switch {
	case op >= opBreg0 && op <= opBreg31:
		reg = uint32(op - opBreg0)
	case op == opBregx:
		n := r.uleb()
		if n >= noReg {
			return 0, 0, false
		}
		reg = uint32(n)
	default:
		return 0, 0, false
	}
	off = r.sleb()
	return reg, off, !r.bad
}

// readPlus reads DW_OP_plus_uconst, or a small constant and DW_OP_plus, if
// either is next, and returns what it adds.
func readPlus(r *reader) int64 {
	rest := r.b[r.pos:]
	switch {
	case len(rest) >= 2 && rest[0] == opPlusUconst:
		r.pos++
		v := r.uleb()
		if v >= 1<<31 {
			r.fail()
		}
		return int64(v)
	case len(rest) >= 3 && rest[0] == opConst1u && rest[2] == opPlus:
		r.pos += 3
		return int64(rest[1])
	case len(rest) >= 3 && rest[0] == opConst1s && rest[2] == opPlus:
		r.pos += 3
		return int64(int8(rest[1]))
	case len(rest) >= 2 && rest[0] >= opLit0 && rest[0] < opLit0+32 && rest[1] == opPlus:
		r.pos += 2
		return int64(rest[0] - opLit0)
	}
	return 0
}
