// SPDX-License-Identifier: Apache-2.0

package unwind

// DWARF register numbers, x86-64 psABI fig. 3.36.
const (
	x86RBP = 6
	x86RSP = 7
	x86RIP = 16

	// x86Volatile is the set of registers that calls need not preserve: RAX, RDX,
	// RCX, RSI, RDI, R8 to R11 (psABI fig. 3.4).
	x86Volatile = 0x0f37
)

// dwarfX86 returns the DWARF number of a register as instructions number them.
func dwarfX86(enc uint8) int32 {
	return [16]int32{0, 2, 1, 3, x86RSP, x86RBP, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15}[enc&15]
}

// packX86 turns a row into a rule for x86-64, false if it is none of the usual.
func packX86(s *frameState) (Rule, bool) {
	if s.ra.how == placeCFA && s.ra.off == -8 && !s.cfaExpr.set() && s.cfaOff >= 0 && s.cfaOff&7 == 0 && s.cfaOff>>3 <= 0xffff {
		fp, ok := packFPX86(&s.fp)
		switch {
		case !ok:
		case s.cfaReg == x86RSP:
			return MakeRule(KindSP, fp, uint16(s.cfaOff>>3)), true
		case s.cfaReg == x86RBP:
			return MakeRule(KindFP, fp, uint16(s.cfaOff>>3)), true
		}
	}
	return 0, false
}

// packRareX86 is packX86 for what is not SP or FP plus a small offset.
func packRareX86(s *frameState, data []byte) (Rule, Wide) {
	if s.ra.how == placeUndefined {
		return MakeRule(KindEnd, 0, 0), Wide{}
	}
	if s.cfaExpr.set() {
		if n, ok := parsePLT(s.cfaExpr.in(data)); ok && s.ra.how == placeCFA && s.ra.off == -8 && s.fp.how <= placeSame {
			return MakeRule(KindPLT, FPSame, n), Wide{}
		}
		// What C libraries write for their signal return trampoline: the CFA
		// is the interrupted stack pointer, at SP+160 (kernel: struct
		// rt_sigframe, once the handler has popped pretcode).
		base, ok := parseCFA(s, data)
		if ok && s.signal && base == (cfaBase{reg: x86RSP, deref: true, off: 160}) {
			return MakeRule(KindSignal, 0, 0), Wide{}
		}
	}
	if s.ra.how <= placeSame { // the return address is never in RIP
		return lost()
	}
	return wideRule(s, data, x86RBP)
}

// packFPX86 returns the fp nibble, or false if only a wide rule can say it.
func packFPX86(r *regRule) (uint8, bool) {
	switch r.how {
	case placeDefault, placeSame:
		return FPSame, true
	case placeCFA:
		n := -r.off>>3 - 1
		return uint8(n), r.off&7 == 0 && n >= 1 && n <= 14
	case placeReg, placeExpr:
		return 0, false
	}
	return FPUnknown, true
}

// parsePLT recognizes the CFA of lazy PLT entries (binutils:
// elf_x86_64_eh_frame_plt, and LLD's and mold's copies of it):
//
//	breg7 (rsp) 8; breg16 (rip) 0; lit15; and; litN; ge; lit3; shl; plus
//
// and returns N.
func parsePLT(expr []byte) (uint16, bool) {
	if len(expr) != 11 || expr[6] < opLit0 || expr[6] > opLit0+15 {
		return 0, false
	}
	want := [11]byte{opBreg0 + x86RSP, 8, opBreg0 + x86RIP, 0, opLit0 + 15, opAnd, expr[6], opGE, opLit0 + 3, opShl, opPlus}
	return uint16(expr[6] - opLit0), [11]byte(expr) == want
}
