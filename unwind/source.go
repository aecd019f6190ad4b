// SPDX-License-Identifier: Apache-2.0

package unwind

import "github.com/lowflame/lowflame/stack"

// sources is all a table is made of, in order of trust, but for what is found out
// about code that has no rows here.
type sources struct {
	arch Arch
	// goRows are the rows of Go text, which ends with one of KindNone. They win:
	// the Go linker's DWARF says nothing of frame pointers.
	goRows []span
	eh     *section
	debug  *section // .debug_frame: for code .eh_frame lacks
	segs   []gap    // executable segments
	wide   wideSet  // of all rows
}

// code returns where the executable segment that holds pc ends, 0 if none does.
func (src *sources) code(pc uint64) uint64 {
	for _, s := range src.segs {
		if pc >= s.begin && pc < s.end {
			return s.end
		}
	}
	return 0
}

// section is call frame information in memory.
type section struct {
	data    []byte
	addr    uint64 // link-time address of data, .eh_frame only
	hdr     []byte // .eh_frame_hdr, or nil
	hdrAddr uint64
}

// reader returns a parser of s.
func (s *section) reader(src *sources, name string, row func(uint64, *frameState)) *cfi {
	c := &cfi{
		section: name,
		debug:   name == ".debug_frame",
		data:    s.data,
		addr:    s.addr,
		machine: src.arch.machine(),
		code:    src.code,
		row:     row,
	}
	if n := len(src.goRows); n > 0 && c.debug {
		// Go programs have an entry for every Go function there.
		c.skip = gap{src.goRows[0].pc, src.goRows[n-1].pc}
	}
	return c
}

// padding is the size of a stretch without rules below which the rule before it
// goes on.
func (src *sources) padding() uint64 {
	text := uint64(0)
	for _, s := range src.segs {
		text += s.end - s.begin
	}
	if text > smallText {
		return padding
	}
	return 0
}

// first is a table of what sources say, and what they do not say anything of.
type first struct {
	table *Table
	entry gap   // the code at the entry point; it has its rules, see entryRows
	none  []gap // stretches without rules
	pads  []gap // those in which the table lets the rule before them go on
}

// first builds the table of all sources. The error is a *CFIError or ErrTooBig;
// the table has what could be used.
func (src *sources) first(entry gap) (first, error) {
	e := src.encoder()
	m := merger{low: entryRows(entry), add: e.add}
	row := m.row
	if len(m.low) == 0 {
		row = e.add
	}
	err := src.each(row)
	m.until(1<<64 - 1)
	t, tooBig := e.finish()
	return first{t, entry, e.none, e.pads}, firstError(tooBig, err)
}

// with builds the table of f and, where that has no rules or those of the entry
// point, of found.
func (src *sources) with(f *first, found []span) (*Table, error) {
	e := src.encoder()
	m := merger{low: overlay(found, entryRows(f.entry)), add: e.add}
	f.rows(src, m.row)
	m.until(1<<64 - 1)
	return e.finish()
}

func (src *sources) encoder() *encoder {
	e := &encoder{table: Table{Arch: src.arch}, wide: &src.wide, padding: src.padding()}
	if src.eh != nil && e.padding > 0 {
		// Growing these bit by bit takes a tenth of the time of making a large table.
		frames := len(src.eh.data) / frameBytes
		e.pads = make([]gap, 0, frames)
		e.piece.rows = make([]uint32, 0, min(4*frames, MaxPieceWords/2))
		e.piece.dict.words = make([]uint32, 0, min(frames, maxDict))
	}
	return e
}

// frameBytes is less than functions take of .eh_frame in large files, on average.
const frameBytes = 48

// rows passes on the rows that f was made of, but for those of the entry point.
func (f *first) rows(src *sources, pass func(uint64, Rule)) {
	last := Rule(0)
	add := func(pc uint64, r Rule) {
		if r != last {
			pass(pc, r)
			last = r
		}
	}
	end := stack.LinkAddr(0)
	pads := f.pads
	for row := range f.table.Rows() {
		if row.Begin != end {
			add(uint64(end), 0)
		}
		end = row.End
		r := row.Rule
		if r.Kind() == KindWide {
			r = MakeRule(KindWide, 0, src.wide.add(row.Piece.WideRule(r.Off())))
		}
		g := f.afterEntry(gap{uint64(row.Begin), uint64(row.End)}, r, add)
		if g.begin < g.end {
			add(g.begin, r)
		}
		for ; len(pads) > 0 && pads[0].begin < g.end; pads = pads[1:] {
			if p := pads[0].within(g); p.begin < p.end {
				add(p.begin, 0)
				if p.end < g.end {
					add(p.end, r)
				}
			}
		}
	}
	add(uint64(end), 0)
}

// afterEntry returns what of row g, of rule r, lies after the code at the entry
// point, or all of g if that has nothing to do with it. It passes on the rest.
func (f *first) afterEntry(g gap, r Rule, add func(uint64, Rule)) gap {
	known := g.within(f.entry)
	if r.Kind() != KindEnd || known.begin >= known.end {
		return g
	}
	if g.begin < known.begin {
		add(g.begin, r)
	}
	add(known.begin, 0)
	return gap{known.end, g.end}
}

// gaps returns the parts of executable segments that f has no rule for, lowest
// first.
func (f *first) gaps(segs []gap) []gap {
	var out []gap
	for _, g := range f.none {
		for _, s := range segs {
			if in := g.within(s); in.begin < in.end {
				out = append(out, in)
			}
		}
	}
	return out
}

// each passes on the rows of all sources, in order. The error is a *CFIError; what
// could be used is passed on all the same.
func (src *sources) each(add func(uint64, Rule)) error {
	if src.debug == nil && len(src.goRows) == 0 {
		// The usual case needs no list of rows.
		return src.read(src.eh, ".eh_frame", add)
	}
	eh, err := src.collect(src.eh, ".eh_frame")
	debug, err2 := src.collect(src.debug, ".debug_frame")
	for _, s := range overlay(overlay(src.goRows, eh), debug) {
		add(s.pc, s.rule)
	}
	return firstError(err, err2)
}

// merger passes on rows that come in order, and where they have no rule those of
// low.
type merger struct {
	low       []span
	add       func(uint64, Rule)
	high, cur Rule // in force
}

func (m *merger) row(pc uint64, r Rule) {
	if len(m.low) == 0 && m.cur.Kind() == KindNone {
		m.add(pc, r)
		return
	}
	m.until(pc)
	if len(m.low) > 0 && m.low[0].pc == pc {
		m.cur, m.low = m.low[0].rule, m.low[1:]
	}
	m.high = r
	if r.Kind() == KindNone {
		r = m.cur
	}
	m.add(pc, r)
}

// until passes on the rows of low before pc.
func (m *merger) until(pc uint64) {
	for len(m.low) > 0 && m.low[0].pc < pc {
		m.cur = m.low[0].rule
		if m.high.Kind() == KindNone {
			m.add(m.low[0].pc, m.cur)
		}
		m.low = m.low[1:]
	}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// read packs the rows of a section and passes them on.
func (src *sources) read(s *section, name string, add func(uint64, Rule)) error {
	if s == nil {
		return nil
	}
	m := src.arch.machine()
	m.data = s.data
	c := s.reader(src, name, func(pc uint64, st *frameState) {
		if st == nil {
			add(pc, 0)
		} else if r, ok := m.usual(st); ok {
			add(pc, r)
		} else {
			add(pc, m.pack(st, &src.wide))
		}
	})
	c.run(parseHdr(s.hdr, s.hdrAddr, s.addr))
	if c.err != nil {
		return c.err
	}
	return nil
}

// collect lists the rows of a section.
func (src *sources) collect(s *section, name string) ([]span, error) {
	var rows []span
	err := src.read(s, name, func(pc uint64, r Rule) {
		switch n := len(rows); {
		case n > 0 && rows[n-1].pc == pc:
			rows[n-1].rule = r
		case n > 0 && rows[n-1].rule == r:
		case n < maxRows:
			rows = append(rows, span{pc, r})
		}
	})
	return rows, err
}

// maxRows bounds what collect keeps of one section.
const maxRows = 1 << 24

// overlay returns the rows of high, and where that has none those of low.
func overlay(high, low []span) []span {
	if len(high) == 0 {
		return low
	}
	if len(low) == 0 {
		return high
	}
	out := make([]span, 0, len(high)+len(low))
	var h, l Rule
	for len(high) > 0 || len(low) > 0 {
		var pc uint64
		switch {
		case len(low) == 0 || len(high) > 0 && high[0].pc < low[0].pc:
			pc, h, high = high[0].pc, high[0].rule, high[1:]
		case len(high) == 0 || low[0].pc < high[0].pc:
			pc, l, low = low[0].pc, low[0].rule, low[1:]
		default:
			pc, h, l, high, low = high[0].pc, high[0].rule, low[0].rule, high[1:], low[1:]
		}
		rule := h
		if h.Kind() == KindNone {
			rule = l
		}
		out = append(out, span{pc, rule})
	}
	return out
}
