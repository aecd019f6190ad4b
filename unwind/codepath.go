// SPDX-License-Identifier: Apache-2.0

package unwind

// flowPath is a run of instructions being followed.
type flowPath struct {
	off   uint32
	num   uint32 // of state
	state codeState
	inst  x86Inst
	after bool   // only padding since a call
	calls bool   // there has been a call
	call  uint32 // where the last was
	// imm is a constant just moved to EAX, before at most a call, for large
	// frames: mov $n, %eax; call __rust_probestack; sub %rax, %rsp.
	imm    int32
	immAge int
	// probe: the instruction before compares RSP to R11, the end of a loop that
	// touches a large frame page by page.
	probe bool
}

// path follows one path until it ends or meets what is known.
func (f *codeFlow) path(w flowItem) bool {
	p := flowPath{off: w.off, num: w.state, state: f.states[w.state]}
	for {
		if p.off >= uint32(len(f.code)) {
			return f.runOff(&p)
		}
		if again, ok := f.arrive(&p); !ok || !again {
			return ok
		}
		if f.budget--; f.budget < 0 || len(f.states) > maxStates {
			return false
		}
		var ok bool
		if p.inst, ok = decodeX86(f.code[p.off:]); !ok {
			return false
		}
		f.at[p.off].size = p.inst.size
		next := p.off + uint32(p.inst.size)
		on, ok := f.flow(&p, next)
		if !ok || !on {
			return ok
		}
		p.off = next
	}
}

// runOff ends a path at the end of the function, where there may be a call that
// never returns, or in hand-written code another function.
func (f *codeFlow) runOff(p *flowPath) bool {
	end := f.begin + uint64(len(f.code))
	switch {
	case p.after:
		return true
	case p.state.returns() && f.entry(end):
		return f.exit(p, end)
	}
	return false
}

// arrive joins the path with what is known of the instruction. It returns
// whether there is anything new.
func (f *codeFlow) arrive(p *flowPath) (again, ok bool) {
	c := &f.at[p.off]
	if c.state == 0 {
		*c = flowCell{state: p.num + 1, after: p.after, call: p.call, guess: f.trial != nil}
		if f.trial != nil {
			f.trial.set = append(f.trial.set, p.off)
		}
		return true, true
	}
	if c.state == p.num+1 {
		c.after = c.after && p.after
		if !c.guess {
			f.agree(&p.state)
		}
		return false, true
	}
	old := f.states[c.state-1]
	if !old.fits(&p.state) {
		if join, ok := f.differ(p, c, &old); !join {
			return false, ok
		}
	}
	both := old.meet(p.state)
	if both == old {
		return false, true
	}
	if f.trial != nil && !c.guess {
		return false, false
	}
	p.state, p.num = both, f.intern(both)
	c.state = p.num + 1
	c.after = c.after && p.after
	return true, true
}

// differ handles a path that comes to c with the stack at another depth than in old.
// It returns whether the two may be joined all the same, and if not, whether that is
// no contradiction.
func (f *codeFlow) differ(p *flowPath, c *flowCell, old *codeState) (join, ok bool) {
	// With a frame pointer the depth is anything: arrays of variable size.
	framed := old.framed() && old.fp == p.state.fp
	if f.trial != nil {
		return framed && f.stubs && c.guess, false
	}
	// What follows a call that never returns may be another block.
	switch {
	case p.after:
		f.kill(p.call)
		return false, true
	case c.after:
		f.kill(c.call)
		return false, false
	}
	return framed, false
}

// agree notes that a guess is borne out.
func (f *codeFlow) agree(s *codeState) {
	if f.trial != nil && s.sp != regUnknown {
		f.trial.agreed = true
	}
}

// kill notes that a call does not return.
func (f *codeFlow) kill(call uint32) {
	if f.dead == nil {
		f.dead = map[uint32]bool{}
	}
	f.dead[call] = true
}

// exit notes a jump out of the function. Into the unknown only tail calls lead.
func (f *codeFlow) exit(p *flowPath, to uint64) bool {
	if p.state.returns() && f.entry(to) && f.function(to) {
		f.agree(&p.state)
	}
	f.exits = append(f.exits, flowEdge{to, p.state})
	return true
}

// flow goes past the instruction, to next or elsewhere. It returns whether the
// path goes on at next.
func (f *codeFlow) flow(p *flowPath, next uint32) (on, ok bool) {
	in := &p.inst
	target := f.begin + uint64(next) + uint64(int64(in.imm))
	switch in.op {
	case x86Ret:
		return false, f.ret(p)
	case x86Trap:
		return false, true
	case x86Jmp:
		return false, f.jump(p, target)
	case x86JmpTo:
		f.switches = append(f.switches, p.num)
		if p.state.returns() {
			f.returned = true
		}
		return false, true
	case x86Jcc:
		if !f.branch(p, target) {
			return false, false
		}
	case x86Call, x86CallTo:
		if in.op == x86Call && in.imm == 0 { // call 1f; 1: pop %reg
			after, ok := decodeX86(f.code[next:])
			if !ok || after.op != x86Pop {
				return false, false
			}
		}
		return f.call(p, target), true
	default:
		if !f.plain(p, target) {
			return false, false
		}
	}
	if in.op != x86Nop {
		p.after = false
	}
	return true, true
}

// ret ends the path at a return. It returns false if that does not find the stack as
// the call left it.
func (f *codeFlow) ret(p *flowPath) bool {
	f.returned = true
	f.agree(&p.state)
	f.cleanRet = f.cleanRet || p.state.sp == 8 && f.trial == nil
	f.blindRet = f.blindRet || p.state.sp == regUnknown
	ok := (p.state.sp == 8 || p.state.sp == regUnknown) && !p.state.root
	if !ok && p.calls && f.trial == nil {
		f.kill(p.call) // we should not be here
	}
	return ok
}

// branch goes past a conditional jump.
func (f *codeFlow) branch(p *flowPath, target uint64) bool {
	fall := p.state
	if p.probe {
		p.state.sp, fall.sp = regUnknown, p.state.r11
		p.num = f.intern(p.state)
	}
	if !f.jump(p, target) {
		return false
	}
	p.set(f, fall)
	return true
}

// plain goes past an instruction that leads nowhere else. target is its immediate
// relative to the next.
func (f *codeFlow) plain(p *flowPath, target uint64) bool {
	s := p.state
	if !p.step(&s) {
		return false
	}
	if s.root && !p.state.root {
		f.rooted = true
		s.root = !f.noRoots
	}
	if to := p.inst.takes(target); to != 0 && f.trial == nil {
		f.refs = append(f.refs, to)
	}
	p.set(f, s)
	return true
}

// call goes past a call. It returns whether the path goes on there.
func (f *codeFlow) call(p *flowPath, target uint64) bool {
	in := &p.inst
	s := p.state
	p.probe = false
	p.immAge++
	if in.op == x86Call && in.imm == 0 {
		s.set(encRSP, plus(s.sp, -8))
		p.set(f, s)
		p.after = false
		return true
	}
	if in.op == x86Call {
		f.calls = append(f.calls, target)
	}
	if f.dead[p.off] || f.noReturn(target, in) {
		return false
	}
	s.step(in)
	p.set(f, s)
	p.after, p.calls, p.call = true, true, p.off
	return true
}

// set changes the state of the path.
func (p *flowPath) set(f *codeFlow, s codeState) {
	if s != p.state {
		p.state, p.num = s, f.intern(s)
	}
}

// step is codeState.step with what only the neighbouring instructions tell.
func (p *flowPath) step(s *codeState) bool {
	in := &p.inst
	p.probe = in.op == x86Cmp && (in.reg == encRSP && in.rm == encR11 || in.reg == encR11 && in.rm == encRSP)
	p.immAge++
	switch {
	case in.op == x86MovImm && in.reg == encRAX:
		p.imm, p.immAge = in.imm, 0
	case in.op == x86SubReg && in.reg == encRSP && in.rm == encRAX && p.imm > 0 && p.immAge <= 2:
		s.set(encRSP, plus(s.sp, -p.imm))
		return true
	}
	return s.step(in)
}

// jump follows a jump.
func (f *codeFlow) jump(p *flowPath, target uint64) bool {
	off := target - f.begin
	if off >= uint64(len(f.code)) {
		return f.exit(p, target)
	}
	f.push(uint32(off), p.num)
	return true
}
