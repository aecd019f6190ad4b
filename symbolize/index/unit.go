// SPDX-License-Identifier: Apache-2.0

package index

import (
	"slices"

	"github.com/lowflame/lowflame/symbolize/dwarf"
)

// unitReader turns units into pieces.
type unitReader struct {
	flat  flattener
	names []uint32 // number of the name of each scope
	files []uint32 // number of each file of the unit
	used  []bool   // files that are numbered or will be
	w     *Writer
	u     *dwarf.Unit
	cut   cutter
}

func (r *unitReader) run(w *Writer, u *dwarf.Unit) error {
	r.w, r.u = w, u
	if err := r.number(); err != nil {
		return err
	}
	scopes, lines := r.flat.run(u), u.Lines
	scope, row, addr := int32(none), place{}, uint64(0)
	for len(scopes) > 0 || len(lines) > 0 {
		addr = max(addr, nextAddr(scopes, lines))
		for len(scopes) > 0 && scopes[0].addr <= addr {
			scope, scopes = scopes[0].scope, scopes[1:]
		}
		for len(lines) > 0 && uint64(lines[0].Addr) <= addr {
			row = place{}
			if l := &lines[0]; !l.End {
				row = place{r.file(l.File), l.Line}
			}
			lines = lines[1:]
		}
		if len(lines) == 0 {
			row = place{} // a row ends where the next one begins
		}
		if err := r.cut.add(r, addr, scope, row); err != nil {
			return err
		}
	}
	err := r.cut.end(r, addr)
	r.w, r.u = nil, nil
	return err
}

// nextAddr returns where the next change is. Lines that are out of order count as at
// the address of the one before.
func nextAddr(scopes []innermost, lines []dwarf.Line) uint64 {
	switch {
	case len(scopes) == 0:
		return uint64(lines[0].Addr)
	case len(lines) == 0:
		return scopes[0].addr
	}
	return min(scopes[0].addr, uint64(lines[0].Addr))
}

// number gives numbers to the names and files of the unit that have a part in code.
func (r *unitReader) number() error {
	u := r.u
	r.names = slices.Grow(r.names[:0], len(u.Scopes))[:len(u.Scopes)]
	r.files = slices.Grow(r.files[:0], len(u.Files))[:len(u.Files)]
	r.used = slices.Grow(r.used[:0], len(u.Files))[:len(u.Files)]
	clear(r.files)
	clear(r.used)
	for i := range u.Scopes {
		s := &u.Scopes[i]
		r.w.names.find(s.Name, &r.names[i])
		r.useFile(s.DeclFile)
		r.useFile(s.CallFile)
	}
	for i := range u.Lines {
		r.useFile(u.Lines[i].File)
	}
	if err := r.w.names.flush(); err != nil {
		return err
	}
	return r.w.files.flush()
}

func (r *unitReader) useFile(i uint32) {
	if i < uint32(len(r.used)) && !r.used[i] {
		r.used[i] = true
		r.w.files.find(r.u.Files[i], &r.files[i])
	}
}

func (r *unitReader) file(i uint32) uint32 {
	if i < uint32(len(r.files)) {
		return r.files[i]
	}
	return 0
}

// cutter cuts the code of a unit into pieces: at gaps, where one function ends and
// another begins, and where a piece becomes too large.
type cutter struct {
	open       bool
	onlyLines  bool
	begin      uint64
	data       []byte
	addr       uint64 // of the last segment
	row        place  // of the last segment
	chain, was []int32
	calls      []call
}

// add says that code from addr on is of scope and row.
func (c *cutter) add(r *unitReader, addr uint64, scope int32, row place) error {
	if scope == none && row == (place{}) {
		return c.end(r, addr)
	}
	c.was, c.chain = c.chain, c.was[:0]
	for s := scope; s != none; s = parent(r.u.Scopes, int(s)) {
		c.chain = append(c.chain, s)
	}
	slices.Reverse(c.chain)
	if c.open && row == c.row && slices.Equal(c.chain, c.was) {
		return nil
	}
	if c.open && (len(c.data) >= partBytes || !sameFunction(c.chain, c.was)) {
		if err := c.end(r, addr); err != nil {
			return err
		}
	}
	if !c.open {
		c.open, c.begin, c.addr, c.data, c.was = true, addr, addr, c.data[:0], c.was[:0]
		c.onlyLines = scope == none
	}
	keep := 0
	for keep < min(len(c.chain), len(c.was)) && c.chain[keep] == c.was[keep] {
		keep++
	}
	c.calls = c.calls[:0]
	for _, s := range c.chain[keep:] {
		c.calls = append(c.calls, r.call(s))
	}
	s := segment{addr: addr, keep: keep, push: len(c.calls), file: row.file, line: row.line}
	c.data = appendSegment(c.data, &s, c.calls, c.addr)
	c.addr, c.row = addr, row
	return nil
}

func sameFunction(a, b []int32) bool {
	return len(a) == 0 && len(b) == 0 || len(a) > 0 && len(b) > 0 && a[0] == b[0]
}

// call returns what is told of a scope.
func (r *unitReader) call(i int32) call {
	s := &r.u.Scopes[i]
	c := call{name: r.names[i], start: s.DeclLine, declFile: r.file(s.DeclFile)}
	if parent(r.u.Scopes, int(i)) != none {
		c.callFile, c.callLine = r.file(s.CallFile), s.CallLine
	}
	return c
}

// end ends the piece at addr, if there is one.
func (c *cutter) end(r *unitReader, addr uint64) error {
	if !c.open {
		return nil
	}
	c.open = false
	if c.begin >= addr {
		return nil
	}
	p := piece{begin: c.begin, end: addr, rank: r.w.units, data: c.data}
	if c.onlyLines {
		p.rank |= onlyLines
	}
	return r.w.runs.add(&p)
}
