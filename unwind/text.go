// SPDX-License-Identifier: Apache-2.0

package unwind

import "fmt"

// RowText is a rule in the notation of readelf --debug-dump=frames-interp: the
// CFA as register and offset, and where the caller's frame pointer and the return
// address are: "c-16" at CFA-16, "u" where it was. What readelf prints as "exp"
// is spelled out, and what it has no word for has one here:
//
//	*(rbp-8)+16                    the word at that address, and more
//	rsp+8+8*(rip&15>=N)            lazy PLT entries, KindPLT
//	signal                         everything comes from the signal frame
//	end                            nobody called this
//	fpwalk, fpjump                 KindFPWalk, KindFPJump
//	lost                           not known; in the first column, nothing is
//	none                           there is no rule
type RowText struct{ CFA, FP, RA string }

// Text returns the text of r, a rule of p, which may be nil if r has no wide rule.
func (r Rule) Text(arch Arch, p *Piece) RowText {
	m := arch.machine()
	sp, fp := arch.RegName(m.spReg), arch.RegName(m.fpReg)
	off := 8 * int(r.Off())
	switch r.Kind() {
	case KindSP:
		return r.narrowText(arch, sp)
	case KindFP:
		return r.narrowText(arch, fp)
	case KindPLT:
		return RowText{fmt.Sprintf("%s+8+8*(rip&15>=%d)", sp, r.Off()), "u", "c-8"}
	case KindGo:
		if off == 0 {
			return RowText{sp + "+0", "u", "u"}
		}
		return RowText{fmt.Sprintf("%s+%d", sp, off), fmt.Sprintf("c-%d", off+8), fmt.Sprintf("c-%d", off)}
	case KindSignal:
		return RowText{"signal", "signal", "signal"}
	case KindEnd:
		return RowText{"end", "u", "u"}
	case KindWide:
		if p == nil {
			break
		}
		return p.WideRule(r.Off()).Text(arch)
	case KindFPWalk:
		return RowText{"fpwalk", "c-16", "c-8"}
	case KindFPJump:
		return RowText{"fpjump", fmt.Sprintf("c-%d", off+16), fmt.Sprintf("c-%d", off+8)}
	case KindNone:
		return RowText{"none", "none", "none"}
	}
	return RowText{"lost", "lost", "lost"}
}

// narrowText is Text for KindSP and KindFP.
func (r Rule) narrowText(arch Arch, base string) RowText {
	off := 8 * int(r.Off())
	t := RowText{fmt.Sprintf("%s+%d", base, off), fmt.Sprintf("c-%d", 8*(int(r.FP())+1)), "c-8"}
	switch {
	case r.FP() == FPSame:
		t.FP = "u"
	case r.FP() == FPUnknown:
		t.FP = "lost"
	case arch == ARM64 && r.FP() == FPRecordAtBase:
		t.FP = fmt.Sprintf("c%+d", -off)
	}
	if arch == ARM64 {
		switch r.FP() {
		case FPSame:
			t.RA = "u"
		case FPUnknown:
			t.RA = "lost"
		case FPRecordAtBase:
			t.RA = fmt.Sprintf("c%+d", 8-off)
		default:
			t.RA = fmt.Sprintf("c-%d", 8*int(r.FP()))
		}
	}
	return t
}

// Text returns the text of w.
func (w Wide) Text(arch Arch) RowText {
	if w.RA == WhereUnknown {
		return RowText{"lost", "lost", "lost"}
	}
	cfa := fmt.Sprintf("%s%+d", arch.RegName(uint32(w.Reg)), w.CFAOff)
	if w.Index > 0 {
		cfa += "+8*" + arch.RegName(uint32(w.Index-1))
	}
	if w.Deref {
		cfa = "*(" + cfa + ")"
		if w.Add != 0 {
			cfa += fmt.Sprintf("%+d", w.Add)
		}
	}
	return RowText{cfa, w.FP.text(arch, w.FPArg), w.RA.text(arch, w.RAArg)}
}

// text returns where a register is.
func (w Where) text(arch Arch, arg int32) string {
	m := arch.machine()
	switch w {
	case WhereSame:
		return "u"
	case WhereCFA:
		return fmt.Sprintf("c%+d", arg)
	case WhereReg:
		return arch.RegName(uint32(arg))
	case WhereFP:
		return fmt.Sprintf("*(%s%+d)", arch.RegName(m.fpReg), arg)
	}
	return "lost"
}

// RegName returns the name of the register with a DWARF number (x86-64 psABI fig.
// 3.36, AADWARF64 §4.1).
func (a Arch) RegName(n uint32) string {
	if a == ARM64 {
		if n == arm64SP {
			return "sp"
		}
		return fmt.Sprintf("x%d", n)
	}
	names := [...]string{"rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp"}
	switch {
	case int(n) < len(names):
		return names[n]
	case n == x86RIP:
		return "rip"
	}
	return fmt.Sprintf("r%d", n)
}

func (a Arch) String() string {
	if a == ARM64 {
		return "aarch64"
	}
	return "x86-64"
}
