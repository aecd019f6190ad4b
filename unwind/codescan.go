// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"bytes"
	"slices"
	"sort"
)

// Functions without call frame information: what compilers make of them is
// regular enough for the depth of the stack to be read off their instructions.
// rustc writes none with panic=abort, C compilers none with
// -fno-asynchronous-unwind-tables, and hand-written objects often lack it.
//
// A function is taken or left as a whole: where two paths to an instruction
// disagree, a return does not find the stack as the call left it, or an
// instruction is unknown, it gets no rules, since a missing frame is better than
// a wrong one. Only x86-64 is done; in AArch64 files such functions stay without
// rules.
const (
	maxScanText = 16 << 20 // bytes in functions to look at
	maxScanFunc = 1 << 20  // bytes in one
	// maxScanRounds bounds how often functions are looked at again, since others
	// turn out never to return or jump into them.
	maxScanRounds = 8
	// maxScanSteps bounds the instructions decoded, per byte of all functions;
	// real ones take one in two or three.
	maxScanSteps = 4
	// maxScanRows and maxScanEdges bound what is kept of all functions.
	maxScanRows  = 1 << 21
	maxScanEdges = 1 << 21
	// maxSeeds bounds the jumps into one function, maxExits those out of it.
	maxSeeds = 64
	maxExits = 1024
)

// codeScan derives rows from code.
type codeScan struct {
	// read reads code at an address.
	read func(p []byte, pc uint64) int
	// endless reports whether the function at a call's target, or whose address
	// is in memory there, is one of those that are known never to return.
	endless func(target uint64, inst *x86Inst) bool
	funcs   []codeFunc // sorted, not overlapping
	wide    *wideSet
	// gap returns where the code without rules that holds an address ends, 0 if it
	// has rules. If set, functions that others refer to are looked for there.
	gap   func(pc uint64) uint64
	found map[uint64]foundBy // functions to add

	flow    codeFlow
	buf     []byte
	callers []codeCall
	steps   int // instructions that may still be decoded
	nrows   int // kept, as are
	edges   int
	// visit, if set, is called for each instruction of functions that are done.
	visit func(pc uint64, s *codeState)
}

// codeFunc is one function.
type codeFunc struct {
	begin, end uint64
	// part: a part of a function that has been moved elsewhere, which is never
	// called, but jumped to.
	part bool
	// sized: where it ends is known, not only where the next begins.
	sized bool
	by    foundBy
	// builtin: it is one of V8's, see builtinCalls.
	builtin bool

	seeds    []flowEdge // jumps into it that are not calls
	exits    []flowEdge // such jumps out of it
	rows     []span
	ok       bool     // rows are right
	endless  bool     // it never returns
	pending  bool     // to be looked at
	mayLeave bool     // it returns or may do
	leaves   []uint64 // tail calls
}

// codeCall says that a function calls another.
type codeCall struct{ callee, caller int32 }

// find returns the number of the function that holds pc, or -1.
func (c *codeScan) find(pc uint64) int {
	i := sort.Search(len(c.funcs), func(i int) bool { return c.funcs[i].end > pc })
	if i < len(c.funcs) && c.funcs[i].begin <= pc {
		return i
	}
	return -1
}

// run looks at all functions and returns their rows, and those of functions with
// neither rules nor the size for that to be seen.
func (c *codeScan) run() (rows, small []span) {
	c.flow.noReturn, c.flow.entry, c.flow.function = c.noReturn, c.entry, c.isFunction
	visit := c.visit
	c.visit = nil
	c.settle()
	if c.visit = visit; visit != nil {
		for i := range c.funcs {
			if f := &c.funcs[i]; f.ok && !f.pending {
				c.function(i)
			}
		}
	}
	return c.results()
}

// settle looks at functions until nothing new is found, or as often as it may.
func (c *codeScan) settle() {
	// Those that cannot return go first, since others call them.
	for i := range c.funcs {
		f := &c.funcs[i]
		c.steps += maxScanSteps * int(f.end-f.begin)
		f.pending = c.load(f) && bytes.IndexByte(c.flow.code, 0xc3) < 0
	}
	c.round()
	for i := range c.funcs {
		f := &c.funcs[i]
		f.pending = f.pending || !f.ok
	}
	for range maxScanGrowth {
		for range maxScanRounds {
			if !c.round() {
				break
			}
		}
		if !c.grow() {
			break
		}
	}
}

// results returns what run does.
func (c *codeScan) results() (rows, small []span) {
	for i := range c.funcs {
		switch f := &c.funcs[i]; {
		case f.ok && !f.pending:
			rows = append(rows, f.rows...)
		case f.builtin:
			rows = append(rows, c.builtinCalls(f)...)
		case f.end-f.begin < padding:
			// The encoder would take it for padding, and let the rule before it
			// go on.
			small = append(small, span{f.begin, c.wide.rule(lost())}, span{f.end, 0})
		}
	}
	return rows, small
}

// round looks at all functions that are pending. It returns whether there were
// any.
func (c *codeScan) round() bool {
	any := false
	for i := range c.funcs {
		if c.funcs[i].pending {
			any = true
			c.function(i)
		}
	}
	if any {
		c.propagate()
	}
	return any
}

// function looks at one function.
func (c *codeScan) function(i int) {
	fn := &c.funcs[i]
	c.nrows -= len(fn.rows)
	c.edges -= len(fn.exits) + len(fn.leaves)
	fn.pending, fn.ok = false, false
	fn.rows, fn.exits, fn.leaves = nil, nil, nil
	if !c.follow(fn) || !c.leave(fn) || !c.flow.borneOut(fn.by) {
		fn.exits = nil
		return
	}
	c.note(fn)
	fn.rows = c.rows()
	c.nrows += len(fn.rows)
	c.edges += len(fn.exits) + len(fn.leaves)
	fn.ok = c.nrows <= maxScanRows && c.edges <= maxScanEdges
	for _, pc := range c.flow.calls {
		callee := c.find(pc)
		if callee < 0 || c.funcs[callee].begin != pc || c.funcs[callee].endless || len(c.callers) >= maxScanEdges {
			continue
		}
		call := codeCall{int32(callee), int32(i)}
		if n := len(c.callers); n == 0 || c.callers[n-1] != call {
			c.callers = append(c.callers, call)
		}
	}
}

// follow follows the flow through fn.
func (c *codeScan) follow(fn *codeFunc) bool {
	f := &c.flow
	if !c.load(fn) || bytes.HasPrefix(f.code, AMD64.sigreturnCode()) {
		return false
	}
	var seeds []flowEdge
	if !fn.part {
		seeds = append(seeds, flowEdge{fn.begin, codeEntry()})
	}
	if seeds = append(seeds, fn.seeds...); len(seeds) == 0 || len(seeds) > maxSeeds {
		return false
	}
	// Loops in which less is known than was thought are followed again.
	f.budget = min(c.steps, 16*len(f.code))
	c.steps -= f.budget
	ok := f.follow(seeds)
	c.steps += max(f.budget, 0)
	return ok
}

// load reads the code of fn.
func (c *codeScan) load(fn *codeFunc) bool {
	size := int(fn.end - fn.begin)
	if cap(c.buf) < size {
		c.buf = make([]byte, size)
	}
	c.flow.code, c.flow.begin = c.buf[:size], fn.begin
	return c.read(c.flow.code, fn.begin) == size
}

// leave sorts out the jumps out of a function. It returns false if one of them
// goes where nothing is known with the stack not as a call would find it.
func (c *codeScan) leave(fn *codeFunc) bool {
	f := &c.flow
	if len(f.exits) > maxExits {
		return false
	}
	fn.mayLeave = f.returned || len(f.switches) > 0 || len(f.dead) > 0
	for _, e := range f.exits {
		to := c.find(e.to)
		switch {
		case (e.state.returns() || e.state.root) && c.entry(e.to),
			// Nothing is known that could contradict what calls of it say.
			e.state.sp == regUnknown && to >= 0 && c.entry(e.to):
			fn.leaves = append(fn.leaves, e.to)
		case to < 0 || &c.funcs[to] == fn, e.state.ra != 0, e.state.root:
			// With the last two the target would have nothing in common with
			// those that call it.
			return false
		default:
			fn.exits = append(fn.exits, e)
		}
	}
	return true
}

// entry reports whether a function may begin at pc.
func (c *codeScan) entry(pc uint64) bool {
	i := c.find(pc)
	return i < 0 || c.funcs[i].begin == pc && !c.funcs[i].part
}

// propagate finds which functions are to be looked at again.
func (c *codeScan) propagate() {
	c.propagateEndless()
	seeds := map[int][]flowEdge{}
	for i := range c.funcs {
		for _, e := range c.funcs[i].exits {
			if to := c.find(e.to); len(seeds[to]) <= maxSeeds && !slices.Contains(seeds[to], e) {
				seeds[to] = append(seeds[to], e)
			}
		}
	}
	for i := range c.funcs {
		f := &c.funcs[i]
		if !slices.Equal(f.seeds, seeds[i]) {
			f.seeds, f.pending = seeds[i], true
		}
	}
}

// propagateEndless marks the functions that never return, and those that call
// them as pending.
func (c *codeScan) propagateEndless() {
	newly := map[int]bool{}
	for i := range c.funcs {
		f := &c.funcs[i]
		if !f.ok || f.endless || f.mayLeave || f.part {
			continue
		}
		f.endless = len(f.exits) == 0 && !slices.ContainsFunc(f.leaves, func(pc uint64) bool {
			return !c.noReturn(pc, &x86Inst{op: x86Call})
		})
		if f.endless {
			newly[i] = true
		}
	}
	for _, call := range c.callers {
		if newly[int(call.callee)] {
			c.funcs[call.caller].pending = true
		}
	}
}

// noReturn reports whether a call never returns.
func (c *codeScan) noReturn(target uint64, inst *x86Inst) bool {
	if inst.op == x86Call {
		if i := c.find(target); i >= 0 {
			if f := &c.funcs[i]; f.endless && f.begin == target {
				return true
			}
		}
	}
	return c.endless != nil && c.endless(target, inst)
}
