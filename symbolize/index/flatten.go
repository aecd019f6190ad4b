// SPDX-License-Identifier: Apache-2.0

package index

import (
	"cmp"
	"math"
	"slices"

	"github.com/lowflame/lowflame/symbolize/dwarf"
)

// maxDepth bounds how many calls deep inlining is told; what is deeper counts as
// code of the call that is not.
const maxDepth = 64

// none is no scope.
const none = -1

// flattener finds the innermost scope at each address of one unit.
//
// DWARF says which ranges a scope has, and little of how they relate. The rule is
// that scopes are painted over each other, each after the one it lies in and after
// what comes before it in the unit: a call hides what it was inlined into, a later
// function an earlier one. llvm-symbolizer does the same. What it takes does not
// depend on how ranges overlap.
type flattener struct {
	spans []span
	heap  []span // of those begun, the one painted last on top
	out   []innermost
	depth []uint8
	root  []int32 // the function a scope lies in

	firstChild, lastChild, next, order []int32
}

// span is one range of one scope.
type span struct {
	begin, end   uint64
	order, scope int32
}

// innermost is the scope from addr up to the next one's.
type innermost struct {
	addr  uint64
	scope int32
}

// run returns the innermost scopes of u, sorted, no two the same in a row, the last
// one none. They are valid until the next call.
func (f *flattener) run(u *dwarf.Unit) []innermost {
	f.arrange(u.Scopes)
	f.spans, f.heap, f.out = f.spans[:0], f.heap[:0], f.out[:0]
	for i := range u.Scopes {
		if f.depth[i] > maxDepth {
			continue
		}
		for _, r := range u.Scopes[i].Ranges {
			if r.Begin < r.End {
				f.spans = append(f.spans, span{uint64(r.Begin), uint64(r.End), f.order[i], int32(i)})
			}
		}
	}
	slices.SortFunc(f.spans, func(a, b span) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.order, b.order))
	})
	for _, s := range f.spans {
		f.advance(s.begin)
		f.push(s)
		f.set(s.begin, f.heap[0].scope)
	}
	f.advance(math.MaxUint64)
	return f.out
}

// arrange numbers the scopes in the order in which they are painted.
func (f *flattener) arrange(scopes []dwarf.Scope) {
	n := len(scopes)
	for _, s := range []*[]int32{&f.firstChild, &f.lastChild, &f.next, &f.order, &f.root} {
		*s = slices.Grow((*s)[:0], n)[:n]
	}
	f.depth = slices.Grow(f.depth[:0], n)[:n]
	sorted := true // as the scopes lie in the unit
	for i := range scopes {
		f.firstChild[i], f.lastChild[i], f.next[i] = none, none, none
		p := parent(scopes, i)
		if p == none {
			f.depth[i], f.root[i] = 1, int32(i)
			continue
		}
		f.depth[i], f.root[i] = min(f.depth[p]+1, maxDepth+1), f.root[p]
		sorted = sorted && encloses(scopes, p, int32(i)-1)
		if f.lastChild[p] == none {
			f.firstChild[p] = int32(i)
		} else {
			f.next[f.lastChild[p]] = int32(i)
		}
		f.lastChild[p] = int32(i)
	}
	if sorted {
		for i := range f.order {
			f.order[i] = int32(i)
		}
		return
	}
	f.number(scopes)
}

// parent returns the scope that scope i lies in, none for a function.
func parent(scopes []dwarf.Scope, i int) int32 {
	if p := scopes[i].Parent; p >= 0 && int(p) < i {
		return p
	}
	return none
}

// encloses reports whether scope in lies in scope out, near enough to see at once.
func encloses(scopes []dwarf.Scope, out, in int32) bool {
	for range maxDepth {
		if in == out {
			return true
		}
		if in = parent(scopes, int(in)); in == none {
			return false
		}
	}
	return false
}

// number walks the scopes depth first.
func (f *flattener) number(scopes []dwarf.Scope) {
	n := int32(0)
	for i := range scopes {
		if parent(scopes, i) != none {
			continue
		}
		at := int32(i)
		for {
			f.order[at] = n
			n++
			if f.firstChild[at] != none {
				at = f.firstChild[at]
				continue
			}
			for at != int32(i) && f.next[at] == none {
				at = parent(scopes, int(at))
			}
			if at == int32(i) {
				break
			}
			at = f.next[at]
		}
	}
}

// advance ends what ends up to limit.
func (f *flattener) advance(limit uint64) {
	for len(f.heap) > 0 {
		end := f.heap[0].end
		if end > limit {
			return
		}
		f.expire(end)
		if len(f.heap) == 0 {
			f.set(end, none)
		} else {
			f.set(end, f.heap[0].scope)
		}
	}
}

// expire removes from the top what ends at or before end.
func (f *flattener) expire(end uint64) {
	for len(f.heap) > 0 && f.heap[0].end <= end {
		f.pop()
	}
}

// set says that scope is the innermost from addr on.
func (f *flattener) set(addr uint64, scope int32) {
	if n := len(f.out); n > 0 && f.out[n-1].addr == addr {
		f.out = f.out[:n-1]
	}
	if n := len(f.out); n > 0 && f.out[n-1].scope == scope {
		return
	}
	f.out = append(f.out, innermost{addr, scope})
}

func (f *flattener) push(s span) {
	h := append(f.heap, s)
	for i := len(h) - 1; i > 0; {
		up := (i - 1) / 2
		if h[up].order >= h[i].order {
			break
		}
		h[up], h[i] = h[i], h[up]
		i = up
	}
	f.heap = h
}

func (f *flattener) pop() {
	h := f.heap
	last := len(h) - 1
	h[0] = h[last]
	h = h[:last]
	for i := 0; ; {
		c := 2*i + 1
		if c >= last {
			break
		}
		if c+1 < last && h[c+1].order > h[c].order {
			c++
		}
		if h[i].order >= h[c].order {
			break
		}
		h[i], h[c] = h[c], h[i]
		i = c
	}
	f.heap = h
}
