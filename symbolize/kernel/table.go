// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/lowflame/lowflame/stack"
)

const (
	// chunkBytes is the size of an arena's pieces: pieces, rather than one slice
	// that doubles, keep what the table costs near what it holds.
	chunkBytes = 64 << 10
	// maxGuess is how far a function reaches of which neither a neighbour nor
	// its module tells the end.
	maxGuess = 64 << 10
	// maxGuessBPF is the same for BPF programs, which can be long.
	maxGuessBPF = 1 << 20
)

// arena holds zero-terminated names. A place is chunk<<16 | offset.
type arena struct {
	chunks [][]byte
}

// add stores name, of at most maxName bytes, and returns its place.
func (a *arena) add(name []byte) uint32 {
	if n := len(a.chunks); n == 0 || len(a.chunks[n-1])+len(name)+1 > chunkBytes {
		a.chunks = append(a.chunks, make([]byte, 0, chunkBytes))
	}
	c := &a.chunks[len(a.chunks)-1]
	at := uint32(len(a.chunks)-1)<<16 | uint32(len(*c))
	*c = append(append(*c, name...), 0)
	return at
}

func (a *arena) at(place uint32) []byte {
	b := a.chunks[place>>16][place&0xffff:]
	return b[:bytes.IndexByte(b, 0)]
}

// table is the functions of the kernel and its modules, sorted by address, in
// 8 bytes each and their names.
type table struct {
	spans []span
	offs  []uint32 // start, in bytes from the base of the span
	names []uint32 // place of the name
	text  arena
	core  [2]stack.Addr // _stext and _etext
}

// span is a run of functions of one module, each of which ends where the next
// begins.
type span struct {
	base, limit stack.Addr // limit ends the last function
	first, n    int        // its functions in table.offs
	module      uint16     // index into rawTable.modules while the table is made
	known       bool       // limit is the end of a section or module, no guess
	name        string     // of the module, with brackets
}

// build makes the table out of raw, which it uses up, and returns the code made
// at run time apart, for that comes and goes by events.
func build(raw *rawTable, mods []module) (*table, []Symbol) {
	raw.sort()
	dyn := raw.takeDynamic()
	t := &table{
		text:  raw.names,
		core:  raw.text,
		offs:  make([]uint32, 0, len(raw.entries)),
		names: make([]uint32, 0, len(raw.entries)),
	}
	ends := raw.ends(mods)
	for _, e := range raw.entries {
		limit, known := ends.of(e)
		if limit <= e.addr {
			continue // the marker at the end of a section
		}
		s := t.last()
		if s == nil || !s.continues(e, limit, known) {
			if s != nil {
				s.limit = min(s.limit, e.addr)
			}
			t.spans = append(t.spans, span{
				base: e.addr, first: len(t.offs),
				module: e.module, name: bracket(raw.modules[e.module]), known: known,
			})
			s = t.last()
		}
		s.n++
		s.limit = limit
		t.offs = append(t.offs, uint32(e.addr-s.base))
		t.names = append(t.names, e.name)
	}
	return t, dyn
}

// sort orders the functions by address and keeps the best name of each address.
func (t *rawTable) sort() {
	slices.SortFunc(t.entries, func(a, b entry) int {
		if a.addr != b.addr {
			return cmp.Compare(a.addr, b.addr)
		}
		an, bn := string(t.names.at(a.name)), string(t.names.at(b.name))
		return cmp.Or(
			cmp.Compare(rank(a.typ, an), rank(b.typ, bn)),
			cmp.Compare(len(an), len(bn)),
			cmp.Compare(an, bn))
	})
	t.entries = slices.CompactFunc(t.entries, func(a, b entry) bool { return a.addr == b.addr })
}

// takeDynamic removes the code made at run time and returns it, each function
// ending at the next of any kind, or at a guess.
func (t *rawTable) takeDynamic() []Symbol {
	var dyn []Symbol
	kept := t.entries[:0]
	for i, e := range t.entries {
		mod, guess := t.modules[e.module], stack.Addr(maxGuess)
		switch {
		case mod == "bpf":
			guess = maxGuessBPF
		case !strings.HasPrefix(mod, "__builtin__"):
			kept = append(kept, e)
			continue
		}
		s := Symbol{
			Name: string(t.names.at(e.name)), Module: bracket(mod),
			Start: e.addr, End: end(e.addr, uint64(guess)),
		}
		if i+1 < len(t.entries) {
			s.End = min(s.End, t.entries[i+1].addr)
		}
		dyn = append(dyn, s)
	}
	t.entries = kept
	return dyn
}

// bracket returns the module name to show: Core for the kernel and for what
// belongs to it ("__builtin__ftrace").
func bracket(mod string) string {
	if mod == "" || strings.HasPrefix(mod, "__builtin__") {
		return Core
	}
	return "[" + mod + "]"
}

// ends knows where code must end.
type ends struct {
	ranges  [2][2]stack.Addr // the kernel's own text and init text
	modules [][2]stack.Addr  // by module index; zero if not known
}

func (t *rawTable) ends(mods []module) ends {
	e := ends{
		ranges:  [2][2]stack.Addr{t.text, t.init},
		modules: make([][2]stack.Addr, len(t.modules)),
	}
	for _, m := range mods {
		if i := slices.Index(t.modules, m.name); i > 0 && m.start != 0 {
			e.modules[i] = [2]stack.Addr{m.start, end(m.start, m.size)}
		}
	}
	return e
}

// of returns the address that e cannot reach beyond, and whether that is known
// rather than guessed. At the end marker of a section it returns e's address.
func (x *ends) of(e entry) (stack.Addr, bool) {
	in := func(r [2]stack.Addr) bool { return r[0] <= e.addr && e.addr < r[1] }
	if e.module != 0 {
		if r := x.modules[e.module]; in(r) {
			return r[1], true
		}
		return end(e.addr, maxGuess), false
	}
	for _, r := range x.ranges {
		if in(r) || e.addr == r[1] {
			return r[1], true
		}
	}
	return end(e.addr, maxGuess), false
}

func (t *table) last() *span {
	if len(t.spans) == 0 {
		return nil
	}
	return &t.spans[len(t.spans)-1]
}

// continues reports whether e begins where the last function of s ends.
func (s *span) continues(e entry, limit stack.Addr, known bool) bool {
	if s.module != e.module || s.known != known || e.addr-s.base > math.MaxUint32 {
		return false
	}
	if known {
		return s.limit == limit
	}
	return e.addr <= s.limit
}

// find returns the function that contains addr, or else the module it is in.
func (t *table) find(addr stack.Addr) (Symbol, bool) {
	i, ok := slices.BinarySearchFunc(t.spans, addr, func(s span, a stack.Addr) int {
		return cmp.Compare(s.base, a)
	})
	if !ok {
		i--
	}
	if i < 0 || addr >= t.spans[i].limit {
		return Symbol{Module: Core}, false
	}
	s := &t.spans[i]
	offs := t.offs[s.first : s.first+s.n]
	j, ok := slices.BinarySearch(offs, uint32(min(addr-s.base, math.MaxUint32)))
	if !ok {
		j--
	}
	sym := Symbol{
		Name:   string(t.text.at(t.names[s.first+j])),
		Module: s.name,
		Start:  s.base + stack.Addr(offs[j]),
		End:    s.limit,
	}
	if j+1 < len(offs) {
		sym.End = s.base + stack.Addr(offs[j+1])
	}
	return sym, true
}

func (t *table) bytes() uint64 {
	return uint64(cap(t.offs)+cap(t.names))*4 + uint64(cap(t.spans))*72 +
		uint64(len(t.text.chunks))*chunkBytes
}
