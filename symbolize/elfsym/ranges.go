// SPDX-License-Identifier: Apache-2.0

package elfsym

import (
	"math"
	"slices"

	"github.com/lowflame/lowflame/stack"
)

// table turns the candidates into the ranges of a Table.
func (b *builder) table() *Table {
	b.pick()
	syms := b.syms
	t := &Table{Truncated: b.truncated}
	if len(syms) == 0 {
		return t
	}
	t.base = syms[0].addr
	t.funcs = make([]function, 0, len(syms)+len(syms)/16)
	s := sweep{t: t, pos: t.base}
	for i := range syms {
		next := stack.LinkAddr(math.MaxUint64)
		if i+1 < len(syms) {
			next = syms[i+1].addr
		}
		s.add(&syms[i], b.end(&syms[i], next))
	}
	s.advance(math.MaxUint64)
	if cap(t.funcs) > len(t.funcs)+len(t.funcs)/16 {
		t.funcs = slices.Clone(t.funcs)
	}
	return t
}

// end returns the end of a symbol: as its size says, or where the next begins or
// the section ends.
func (b *builder) end(s *symbol, next stack.LinkAddr) stack.LinkAddr {
	c, ok := b.codeAt(s.addr)
	if !ok {
		return s.addr
	}
	if s.size != 0 {
		return min(clampEnd(s.addr, uint64(s.size)), c.end)
	}
	return min(next, c.end)
}

// sweep goes through symbols in order of address and gives each byte to the
// innermost symbol, the one that began last.
type sweep struct {
	t    *Table
	pos  stack.LinkAddr
	open []openRange // begun; the last may have ended
}

type openRange struct {
	end  stack.LinkAddr
	name nameRef
}

// maxNesting bounds open; real symbols nest two or three deep.
const maxNesting = 64

func (s *sweep) add(sym *symbol, end stack.LinkAddr) {
	s.advance(sym.addr)
	if n := len(s.open); n > 0 {
		if sym.class&untyped != 0 && sym.class&sizeless != 0 {
			return // a label inside a function
		}
		if sym.class&sizeless != 0 {
			end = min(end, s.open[n-1].end)
		}
		if n >= maxNesting {
			return
		}
	}
	if end > sym.addr {
		s.open = append(s.open, openRange{end, sym.name})
	}
}

// advance writes the ranges up to limit and leaves open what goes on behind it.
func (s *sweep) advance(limit stack.LinkAddr) {
	for len(s.open) > 0 {
		top := s.open[len(s.open)-1]
		if top.end > s.pos {
			to := min(limit, top.end)
			s.emit(to, top.name)
			s.pos = max(s.pos, to)
			if top.end > limit {
				return
			}
		}
		s.open = s.open[:len(s.open)-1]
	}
	s.pos = max(s.pos, limit)
}

func (s *sweep) emit(to stack.LinkAddr, name nameRef) {
	off, size := uint64(s.pos-s.t.base), uint64(to)-uint64(s.pos)
	if to <= s.pos || off+size > math.MaxUint32 {
		return
	}
	if n := len(s.t.funcs); n > 0 {
		last := &s.t.funcs[n-1]
		if last.name == name && uint64(last.off)+uint64(last.size) == off {
			last.size += uint32(size)
			return
		}
	}
	s.t.funcs = append(s.t.funcs, function{off: uint32(off), size: uint32(size), name: name})
}
