// SPDX-License-Identifier: Apache-2.0

package unwind

// sweep follows compiled code from its first instruction to its last. Compilers
// lay blocks out in the order in which jumps lead to them, but for loops, so that
// one pass knows the state before every instruction; what a jump back tells
// otherwise is taken up in another pass.
type sweep struct {
	block  *CodeBlock
	cells  []sweepCell // one a byte
	states []sweepState
	index  map[sweepState]uint16
	// over holds what jumps back bring to their targets.
	over  map[int]sweepState
	again bool
}

// sweepState is codeState, and where the return address is: that far below the CFA,
// raReg if it has been popped.
type sweepState struct {
	codeState
	ra  int32
	reg uint8 // a register that holds a copy of the return address, or regNone
}

// sweepCell is what is known of one byte.
type sweepCell struct {
	state uint16 // number plus one of the state before the instruction, 0: none known
	seen  bool   // an instruction begins here
	calls bool   // and it is a call
	// assumed: no jump before it leads here, nor does the instruction before.
	assumed bool
}

const (
	maxSweepRounds = 6
	maxSweepStates = 1 << 12
	raInReg        = 0 // sweepState.ra: in sweepState.reg
)

func sweepEntry() sweepState { return sweepState{codeState: codeEntry(), ra: 8, reg: regNone} }

// body is the state of code that nothing is known to lead to.
func (w *sweep) body() sweepState {
	s := sweepEntry()
	if w.block.Opaque {
		s.sp, s.fp, s.ra = regUnknown, regUnknown, regUnknown
		return s
	}
	if w.block.Words >= 2 && w.block.Words <= 0xffff {
		s.sp, s.fp, s.saved = int32(8*w.block.Words), regUnknown, 16
	}
	return s
}

// run looks at a block. It returns false if the code contradicts itself, or the
// frame it is said to have.
func (w *sweep) run(b *CodeBlock) bool {
	w.block = b
	clear(w.over)
	for range maxSweepRounds {
		w.cells = zeroed(w.cells, len(b.Code))
		w.states = w.states[:0]
		clear(w.index)
		w.again = false
		if !w.pass() {
			return false
		}
		if !w.again {
			return w.asTold()
		}
	}
	return false
}

// asTold reports whether the frame has the size it is said to have where it is
// said to be complete.
func (w *sweep) asTold() bool {
	b := w.block
	if b.Words < 2 || b.Complete < 0 || b.Complete >= len(w.cells) {
		return true
	}
	for _, c := range w.cells[b.Complete:] {
		if c.seen && c.state != 0 {
			s := &w.states[c.state-1]
			return s.sp == int32(8*b.Words) || s.framed() && s.sp == regUnknown
		}
	}
	return true
}

// sweepPath is where the pass is.
type sweepPath struct {
	off   int
	state sweepState
	num   uint16 // of state, plus one
	// flows: the instruction before leads here. after: it is a call, which need
	// not return, with nothing but padding after it.
	flows, after bool
	// assumed: since an instruction that nothing leads to. There may be bytes there
	// that are no instructions: where a method is to be completed when it is first
	// run, a jump has been written over what was there.
	assumed bool
}

func (w *sweep) pass() bool {
	p := sweepPath{state: sweepEntry(), flows: true}
	if w.block.Framed {
		p.state = w.body()
	}
	code := w.block.Code
	for p.off < len(code) {
		if !w.arrive(&p) {
			return false
		}
		in, ok := decodeX86(code[p.off:])
		next := p.off + int(in.size)
		ok = ok && next <= len(code) && w.execute(&p, &in, next)
		switch at := w.resync(&p, min(next, len(code))); {
		case at != 0:
			p.off, p.flows = at, false
		case ok:
			p.off = next
		case p.assumed:
			p.off++
			p.flows = false
		default:
			return false
		}
	}
	return true
}

// resync returns where in the middle of what seems to be an instruction, up to
// next, a jump leads to, 0 if none does.
func (w *sweep) resync(p *sweepPath, next int) int {
	if !p.assumed {
		return 0
	}
	for at := p.off + 1; at < next; at++ {
		if c := &w.cells[at]; c.state != 0 && !c.assumed {
			return at
		}
		if _, ok := w.over[at]; ok {
			return at
		}
	}
	return 0
}

// arrive finds the state before the instruction at p.off.
func (w *sweep) arrive(p *sweepPath) bool {
	c := &w.cells[p.off]
	if back, ok := w.over[p.off]; ok {
		if !w.join(c, back, false) {
			return false
		}
	}
	switch {
	case w.isEntry(p.off):
		p.assumed = false
		p.set(w, sweepEntry())
	case c.state == 0 && !p.flows:
		c.assumed, p.assumed = true, true
		p.set(w, w.body())
	case c.state == 0:
		c.assumed = p.assumed
	case !p.flows, p.assumed, p.after && w.states[c.state-1] != p.state:
		p.assumed = c.assumed
		p.set(w, w.states[c.state-1])
	default:
		if !w.join(c, p.state, p.assumed) {
			return false
		}
		p.set(w, w.states[c.state-1])
	}
	p.after = p.after && p.flows
	p.flows = true
	if p.num == 0 {
		p.num = w.intern(p.state)
	}
	c.state, c.seen = p.num, true
	return p.num != 0
}

func (w *sweep) isEntry(off int) bool {
	for _, e := range w.block.Entries {
		if e == off {
			return true
		}
	}
	return off == 0 && !w.block.Framed
}

// join brings another state to a cell. What is only assumed gives way.
func (w *sweep) join(c *sweepCell, s sweepState, assumed bool) bool {
	switch {
	case c.state == 0:
		c.assumed = assumed
	case assumed && !c.assumed:
		return true
	case !assumed && c.assumed:
		c.assumed = false
	default:
		old := w.states[c.state-1]
		if old == s {
			return true
		}
		if !old.joins(&s) {
			return false
		}
		s = old.meet(s)
	}
	c.state = w.intern(s)
	return c.state != 0
}

// joins reports whether two states may meet: with the stack at one depth, or, with
// a frame pointer, at any.
func (s *sweepState) joins(t *sweepState) bool {
	return s.ra == t.ra && (s.fits(&t.codeState) || s.framed() && s.fp == t.fp)
}

func (s sweepState) meet(t sweepState) sweepState {
	s.codeState = s.codeState.meet(t.codeState)
	if s.reg != t.reg {
		s.reg = regNone
	}
	return s
}

// intern returns the number of a state plus one, 0 if there are too many.
func (w *sweep) intern(s sweepState) uint16 {
	if n, ok := w.index[s]; ok {
		return n
	}
	if len(w.states) >= maxSweepStates {
		return 0
	}
	if w.index == nil {
		w.index = map[sweepState]uint16{}
	}
	w.states = append(w.states, s)
	n := uint16(len(w.states))
	w.index[s] = n
	return n
}

func (p *sweepPath) set(w *sweep, s sweepState) {
	if p.num == 0 || s != p.state {
		p.state, p.num = s, w.intern(s)
	}
}

// execute goes past an instruction.
func (w *sweep) execute(p *sweepPath, in *x86Inst, next int) bool {
	switch in.op {
	case x86Nop:
		return true
	case x86Ret:
		p.flows = false
		// Blocks that are never run are there too; what counts is that no known
		// flow returns from elsewhere.
		return p.state.sp == 8 || p.state.sp == regUnknown
	case x86Trap, x86JmpTo:
		p.flows = false
		return true
	case x86Jmp, x86Jcc:
		p.flows = in.op == x86Jcc
		p.after = false
		return w.jump(p, next+int(in.imm))
	}
	s := p.state
	p.after = in.op == x86CallTo || in.op == x86Call && in.imm != 0
	w.cells[p.off].calls = p.after
	if !s.step(in) {
		return false
	}
	if w.block.Words >= 2 {
		s.r10, s.r11 = regUnknown, regUnknown
	}
	if s.saved != 0 && s.fp == regCaller {
		s.fp = regUnknown // it will be, and then it is on the stack
	}
	p.set(w, s)
	return p.num != 0
}

// jump brings the state to a jump's target.
func (w *sweep) jump(p *sweepPath, to int) bool {
	if to < 0 || to >= len(w.cells) {
		return true
	}
	c := &w.cells[to]
	if to > p.off {
		return w.join(c, p.state, p.assumed)
	}
	if p.assumed || c.seen && c.state == p.num {
		return true
	}
	s := p.state
	// What is not seen lies in the middle of what was taken for an instruction.
	if c.seen && !c.assumed {
		old := w.states[c.state-1]
		if !old.joins(&s) {
			return false
		}
		if s = old.meet(s); s == old {
			return true
		}
	}
	if old, ok := w.over[to]; ok && old != s {
		if !old.joins(&s) {
			return false
		}
		s = old.meet(s)
	}
	if w.over == nil {
		w.over = map[int]sweepState{}
	}
	w.over[to], w.again = s, true
	return true
}

// rows makes rows of the states found.
func (w *sweep) rows(wide *wideSet) []RuntimeRow {
	rules := make([]Rule, len(w.states))
	for i := range w.states {
		rules[i] = w.states[i].rule(wide)
	}
	body, trust := MakeRule(KindSP, 1, uint16(w.block.Words)), true
	if w.block.Opaque && w.block.Words >= 2 {
		trust = w.callsAsTold()
	}
	var rows []RuntimeRow
	for off, c := range w.cells {
		if !c.seen {
			continue
		}
		rule := rules[c.state-1]
		switch {
		case w.block.Words < 2:
		case c.calls && (!trust || w.states[c.state-1].sp == regUnknown):
			rule = body // what the runtime walks by
		case !trust:
			rule = wide.rule(lost())
		}
		rows = appendRow(rows, w.block.Begin+uint64(off), rule)
	}
	return append(rows, RuntimeRow{w.block.Begin + uint64(len(w.cells)), 0})
}

// callsAsTold reports whether the frame has the size it is said to have at any call.
func (w *sweep) callsAsTold() bool {
	for _, c := range w.cells {
		if c.calls && w.states[c.state-1].sp == int32(8*w.block.Words) {
			return true
		}
	}
	return false
}
