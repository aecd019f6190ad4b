// SPDX-License-Identifier: Apache-2.0

package unwind

// DWARF register numbers, AADWARF64 §4.1.
const (
	arm64FP = 29
	arm64LR = 30
	arm64SP = 31
)

// packARM64 turns a row into a rule for aarch64, false if it is none of the usual.
func packARM64(s *frameState) (Rule, bool) {
	if !s.signal && s.ra.how != placeUndefined && !s.cfaExpr.set() && s.cfaOff >= 0 && s.cfaOff&7 == 0 && s.cfaOff>>3 <= 0xffff {
		fp, ok := packFPARM64(s)
		switch {
		case !ok:
		case s.cfaReg == arm64SP:
			return MakeRule(KindSP, fp, uint16(s.cfaOff>>3)), true
		case s.cfaReg == arm64FP:
			return MakeRule(KindFP, fp, uint16(s.cfaOff>>3)), true
		}
	}
	return 0, false
}

// packRareARM64 is packARM64 for all else.
func packRareARM64(s *frameState, data []byte) (Rule, Wide) {
	if s.ra.how == placeUndefined {
		return MakeRule(KindEnd, 0, 0), Wide{}
	}
	// The kernel's vDSO is the only maker of signal frames here, and its
	// layout is fixed (kernel: arch/arm64/kernel/vdso/sigreturn.S).
	if s.signal {
		return MakeRule(KindSignal, 0, 0), Wide{}
	}
	return wideRule(s, data, arm64FP)
}

// packFPARM64 returns the fp nibble, which says where frame pointer and return
// address are together, or false if only a wide rule can say it.
func packFPARM64(s *frameState) (uint8, bool) {
	if s.ra.how <= placeSame && s.fp.how <= placeSame {
		return FPSame, true
	}
	if s.ra.how != placeCFA || s.fp.how != placeCFA || s.ra.off != s.fp.off+8 {
		return 0, false
	}
	if n := -s.fp.off>>3 - 1; s.fp.off&7 == 0 && n >= 1 && n <= 13 {
		return uint8(n), true
	}
	return FPRecordAtBase, s.fp.off == -s.cfaOff
}
