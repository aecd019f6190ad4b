// SPDX-License-Identifier: Apache-2.0

package unwind

import "slices"

// flowTrial tells whether a guess about the state at an instruction that no
// known flow reaches is borne out.
type flowTrial struct {
	set    []uint32 // offsets given a state
	agreed bool     // it meets code whose state is known, or returns
	// What to go back to.
	exits, calls, switches int
	returned               bool
}

// guess finds the states of instructions that only jumps through tables lead to.
// They have the state of one of those jumps; it is taken for true if with it,
// and no other, they return properly or meet code that is known.
func (f *codeFlow) guess() bool {
	for found := true; found && len(f.switches) > 0; {
		found = false
		slices.Sort(f.switches)
		f.switches = slices.Compact(f.switches)
		f.budget -= len(f.code) / 8
		for off := f.unreached(0); off < uint32(len(f.code)); off = f.unreached(off) {
			if f.budget -= 8; f.budget < 0 {
				return false
			}
			if f.try(off) {
				found = true
				continue
			}
			for off < uint32(len(f.code)) && f.at[off].state == 0 {
				off++
			}
		}
	}
	return true
}

// unreached returns where the first instruction from off on is that no flow
// reaches, but for padding.
func (f *codeFlow) unreached(off uint32) uint32 {
	for off < uint32(len(f.code)) {
		if c := f.at[off]; c.state != 0 {
			off += uint32(max(c.size, 1))
			continue
		}
		in, ok := decodeX86(f.code[off:])
		if !ok || in.op != x86Nop && in.op != x86Trap {
			break
		}
		off += uint32(in.size)
	}
	return off
}

// try looks for the state at off.
func (f *codeFlow) try(off uint32) bool {
	match, n := uint32(0), 0
	known := len(f.switches)
	for _, state := range f.switches[:known] {
		ok := f.trialAt(off, state)
		f.undo()
		if ok {
			match = state
			n++
		}
	}
	if n != 1 {
		return false
	}
	ok := f.trialAt(off, match)
	for _, off := range f.trial.set {
		f.at[off].guess = false
	}
	f.trial = nil
	return ok
}

// trialAt follows the flow from off with a state that may be wrong.
func (f *codeFlow) trialAt(off, state uint32) bool {
	f.trial = &flowTrial{
		exits: len(f.exits), calls: len(f.calls), switches: len(f.switches), returned: f.returned,
	}
	f.push(off, state)
	ok := f.drain()
	f.work = f.work[:0]
	return ok && f.trial.agreed
}

// undo takes back a trial.
func (f *codeFlow) undo() {
	t := f.trial
	for _, off := range t.set {
		f.at[off] = flowCell{}
	}
	f.exits, f.calls, f.switches = f.exits[:t.exits], f.calls[:t.calls], f.switches[:t.switches]
	f.returned = t.returned
	f.trial = nil
}
