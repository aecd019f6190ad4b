// SPDX-License-Identifier: Apache-2.0

package unwind

// Template returns the rows of a piece of a template interpreter: machine code
// whose frames have a frame pointer and the rule frame. Callers leave their stack
// pointer in the register sender, a DWARF number, and so does the interpreter in
// some register when it returns, since it has moved the return address. entry says
// that the piece begins with entries of methods, before their frames are made.
func (r *RuntimeCode) Template(b *CodeBlock, frame Rule, sender uint8, entry bool) []RuntimeRow {
	t := template{r: r, block: b, frame: frame, sender: sender, framed: !entry}
	t.state = codeEntry()
	t.rule = t.resting()
	for off := 0; off < len(b.Code) && len(b.Code) <= maxBlock; {
		t.rows = appendRow(t.rows, b.Begin+uint64(off), t.rule)
		in, ok := decodeX86(b.Code[off:])
		if !ok {
			t.rows = appendRow(t.rows, b.Begin+uint64(off), r.Lost())
			break
		}
		off += int(in.size)
		t.execute(&in, b.Code[min(off, len(b.Code)):])
	}
	return append(tidy(t.rows), RuntimeRow{b.Begin + uint64(len(b.Code)), 0})
}

// template is a piece being looked at.
type template struct {
	r      *RuntimeCode
	block  *CodeBlock
	frame  Rule
	sender uint8
	rows   []RuntimeRow

	rule   Rule // in force
	framed bool // a frame has been made
	state  codeState
	// left: the frame is gone; popped: so is the return address, to a register.
	left, popped bool
	using        uint16 // registers that the rule in force needs, while popped
}

// resting is the rule for what no jump is known to lead to.
func (t *template) resting() Rule {
	if t.framed {
		return t.frame
	}
	return MakeRule(KindSP, FPSame, 1)
}

// execute goes past an instruction; code follows it.
func (t *template) execute(in *x86Inst, code []byte) {
	switch in.op {
	case x86Ret, x86Jmp, x86JmpTo, x86Trap:
		t.state, t.left, t.popped = codeEntry(), false, false
		t.rule = t.resting()
		return
	}
	switch {
	case in.op == x86Mov && in.reg == encRBP && in.rm == encRSP:
		t.framed, t.left, t.popped = true, false, false
		// The caller's stack pointer is not in the frame yet.
		t.rule = t.r.Wide(Wide{Reg: t.sender, RA: WhereFP, RAArg: 8, FP: WhereFP})
	case t.popped:
		if in.writes&t.using != 0 || in.reg < 16 && in.op != x86Push && in.op != x86Store && in.op != x86Cmp && in.reg != encRSP && t.using>>in.reg&1 != 0 {
			t.popped = false
			t.rule = t.r.Lost()
			if t.framed { // as the caller's frame, which RBP is of by now
				t.rule = t.frame
			}
		}
	case t.left:
		t.pop(in, code)
	case !t.framed:
		t.enter(in)
	case in.op == x86Leave:
		t.left = true
		t.rule = MakeRule(KindSP, FPSame, 1)
	default:
		t.rule = t.frame
	}
}

// pop goes past an instruction after leave: pop N; mov M, %rsp; jmp *N.
func (t *template) pop(in *x86Inst, code []byte) {
	next, ok := decodeX86(code)
	t.left = false
	t.rule = t.r.Lost()
	if ok && in.op == x86Pop && in.reg < 16 && next.op == x86Mov && next.reg == encRSP && next.rm < 16 {
		t.popped, t.using = true, 1<<in.reg|1<<next.rm
		t.rule = t.r.Wide(Wide{Reg: uint8(dwarfX86(next.rm)), RA: WhereReg, RAArg: dwarfX86(in.reg)})
	}
}

// enter goes past an instruction of an entry.
func (t *template) enter(in *x86Inst) {
	if in.op == x86Pop && t.state.sp == 8 && in.reg < 16 && in.reg != encRSP && in.reg != encRBP {
		t.popped, t.using = true, 1<<in.reg
		t.rule = t.r.Wide(Wide{Reg: t.sender, RA: WhereReg, RAArg: dwarfX86(in.reg)})
		return
	}
	t.rule = t.r.Lost()
	if t.state.step(in) {
		t.rule = t.state.rule(&t.r.wide)
	}
}
