// SPDX-License-Identifier: Apache-2.0

package unwind

// codeFlow follows the flow of control through one function at a time.
type codeFlow struct {
	code  []byte
	begin uint64
	// at has for each byte the number, plus one, of the state before the
	// instruction that begins there, and its size.
	at     []flowCell
	states []codeState
	index  map[codeState]uint32
	work   []flowItem
	// budget is how many instructions may still be decoded, of all functions.
	budget int
	// noReturn reports whether calls of an address never return.
	noReturn func(pc uint64, inst *x86Inst) bool
	// entry reports whether a function may begin at pc.
	entry func(pc uint64) bool
	// function reports whether one is known to begin at pc, of which entry says
	// that it may.
	function func(pc uint64) bool
	// dead are the calls in this function after which nothing can run, since
	// what follows them has another state.
	dead map[uint32]bool

	exits    []flowEdge // jumps out of the function
	calls    []uint64   // targets of calls
	refs     []uint64   // addresses taken
	switches []uint32   // states at jumps to a register or memory
	cleanRet bool       // a return was seen that finds the stack as the call left it
	blindRet bool       // and one of which that is not known
	returned bool       // a return, or a tail call through a pointer, was seen
	trial    *flowTrial
	// rooted: a state was taken for that of an outermost frame; noRoots: which
	// turned out to be wrong.
	rooted, noRoots bool
	// stubs: trials may have loops that push, in functions with a frame pointer.
	stubs bool
}

// flowCell is what is known of one byte of a function.
type flowCell struct {
	state uint32 // number plus one; 0 if no instruction known begins here
	size  uint8
	// after is set if the instruction is reached from the call before it, with
	// nothing but padding between; then call is where that is.
	after bool
	guess bool // the state is that of a trial
	call  uint32
}

// flowItem is a place to go on at.
type flowItem struct {
	off   uint32
	state uint32
}

// flowEdge is a jump to another function.
type flowEdge struct {
	to    uint64
	state codeState
}

const (
	// maxDead bounds how often a function is followed anew.
	maxDead = 64
	// maxStates bounds the states of one function; large ones have a hundred.
	maxStates = 1 << 13
)

// follow follows the flow from the seeds. It returns false if the function is
// not as compilers make them.
func (f *codeFlow) follow(seeds []flowEdge) bool {
	f.dead, f.noRoots = nil, false
	for {
		f.reset()
		for _, s := range seeds {
			f.push(uint32(s.to-f.begin), f.intern(s.state))
		}
		n := len(f.dead)
		if ok := f.drain() && f.guess(); ok {
			return true
		}
		if f.rooted && !f.noRoots {
			f.noRoots = true
			continue
		}
		if len(f.dead) == n || len(f.dead) > maxDead {
			return false
		}
	}
}

// reset forgets what was found.
func (f *codeFlow) reset() {
	f.at = zeroed(f.at, len(f.code))
	f.states = f.states[:0]
	clear(f.index)
	f.work, f.exits, f.calls, f.switches = f.work[:0], f.exits[:0], f.calls[:0], f.switches[:0]
	f.refs, f.cleanRet, f.blindRet = f.refs[:0], false, false
	f.returned, f.trial, f.rooted = false, nil, false
}

// zeroed returns n zero values, in the memory of s if there is room.
func zeroed[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	s = s[:n]
	clear(s)
	return s
}

func (f *codeFlow) push(off, state uint32) {
	f.work = append(f.work, flowItem{off, state})
}

// intern returns the number of a state.
func (f *codeFlow) intern(s codeState) uint32 {
	if n, ok := f.index[s]; ok {
		return n
	}
	if f.index == nil {
		f.index = map[codeState]uint32{}
	}
	n := uint32(len(f.states))
	f.states = append(f.states, s)
	f.index[s] = n
	return n
}

// drain follows all work. It returns false on a contradiction.
func (f *codeFlow) drain() bool {
	for len(f.work) > 0 {
		w := f.work[len(f.work)-1]
		f.work = f.work[:len(f.work)-1]
		if !f.path(w) {
			return false
		}
	}
	return true
}
