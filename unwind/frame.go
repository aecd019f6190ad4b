// SPDX-License-Identifier: Apache-2.0

package unwind

// place says where the caller's value of a register is (DWARF 5 §6.4.1).
type place uint8

const (
	placeDefault   place = iota // no rule was given; what that means is the ABI's business
	placeSame                   // unchanged
	placeUndefined              // gone; for the return address: there is no caller
	placeCFA                    // at *(CFA + off)
	placeValCFA                 // is CFA + off
	placeReg                    // in register off
	placeExpr                   // at *(expression)
	placeValExpr                // is expression
)

// expr is where an expression lies in its section. States hold no pointers, so that
// copying them costs the garbage collector nothing.
type expr struct{ off, size uint32 }

// set reports whether there is one: none lies at the section's beginning.
func (e expr) set() bool { return e.off != 0 }

// in returns the expression; data is its section.
func (e expr) in(data []byte) []byte { return data[e.off : e.off+e.size] }

// regRule is the rule for one register.
type regRule struct {
	how  place
	expr expr
	off  int64
}

// noReg is the CFA register before any def_cfa instruction.
const noReg = 1<<32 - 1

// frameState is one row of the unwind table DWARF describes, cut down to the
// columns a profiler needs: the CFA, the return address and the frame pointer.
type frameState struct {
	cfaReg  uint32 // DWARF register the CFA is relative to; unused if cfaExpr is set
	cfaOff  int64
	cfaExpr expr
	ra, fp  regRule
	// signal: the frame was made by the kernel to run a signal handler
	// (augmentation 'S').
	signal bool
}

// machine is what the tables and the walk must know about an architecture.
type machine struct {
	fpReg, spReg, raReg uint32 // DWARF register numbers
	// usual turns a row into a rule, false if it is one that few rows have. rare
	// is for those: if its rule has KindWide, the second result is the wide rule
	// and the rule's operand is to be filled in. Its second argument is data.
	usual func(*frameState) (Rule, bool)
	rare  func(*frameState, []byte) (Rule, Wide)
	data  []byte // the section that rows have their expressions from
}

// pack turns a row into a rule, and adds the wide rule that takes to wide.
func (m *machine) pack(s *frameState, wide *wideSet) Rule {
	if r, ok := m.usual(s); ok {
		return r
	}
	return wide.rule(m.rare(s, m.data))
}

// machine returns the description of a.
func (a Arch) machine() machine {
	if a == ARM64 {
		return machine{fpReg: arm64FP, spReg: arm64SP, raReg: arm64LR, usual: packARM64, rare: packRareARM64}
	}
	return machine{fpReg: x86RBP, spReg: x86RSP, raReg: x86RIP, usual: packX86, rare: packRareX86}
}

// lost returns a wide rule whose return address is nowhere to be found: it stands
// for every row the encoding cannot express, and ends the walk with
// UNSUPPORTED_RULE where KindNone would end it with NO_RULE.
func lost() (Rule, Wide) {
	return MakeRule(KindWide, 0, 0), Wide{RA: WhereUnknown, FP: WhereUnknown}
}

// wideRule makes the wide rule of a row with expressions in data.
func wideRule(s *frameState, data []byte, fpReg uint32) (Rule, Wide) {
	base, ok := parseCFA(s, data)
	if !ok {
		return lost()
	}
	w := Wide{Reg: base.reg, Deref: base.deref, Index: base.index, CFAOff: base.off, Add: base.add}
	w.RA, w.RAArg, ok = s.where(&s.ra, data, fpReg)
	if !ok {
		return lost()
	}
	if w.FP, w.FPArg, ok = s.where(&s.fp, data, fpReg); !ok {
		w.FP, w.FPArg = WhereUnknown, 0
	}
	return MakeRule(KindWide, 0, 0), w
}

// where expresses a register's rule in the terms of a wide rule.
func (s *frameState) where(r *regRule, data []byte, fpReg uint32) (Where, int32, bool) {
	switch r.how {
	case placeDefault, placeSame:
		return WhereSame, 0, true
	case placeCFA:
		return WhereCFA, int32(r.off), fits32(r.off)
	case placeReg:
		return WhereReg, int32(r.off), r.off >= 0 && r.off < NumRegs
	case placeExpr:
		reg, off, ok := parseBreg(r.expr.in(data))
		if ok && reg == fpReg {
			return WhereFP, int32(off), fits32(off)
		}
		// Relative to the register the CFA is relative to, hence to the CFA.
		if ok && !s.cfaExpr.set() && reg == s.cfaReg {
			off -= s.cfaOff
			return WhereCFA, int32(off), fits32(off)
		}
	}
	return WhereUnknown, 0, false
}

func fits32(v int64) bool { return v == int64(int32(v)) }
