// SPDX-License-Identifier: Apache-2.0

package unwind

import "errors"

// Shape of the run dictionary. Prologues and epilogues change the rule every
// few bytes, and in few patterns.
const (
	maxRun = 8 // rows in one run
	// runGap is the most bytes between two rows of a run in tables too large to
	// look for the best runs; larger values gain nothing there.
	runGap = 4

	// padding is the size of a stretch without rules from which code may be in
	// it. Functions are aligned to 16 bytes, and what is between them never
	// runs; rows for it would make tables a fifth larger.
	padding = 16
	// smallText is the size of text up to which that does not matter. The
	// vDSO, where a signal trampoline takes 12 bytes, is that small.
	smallText = 1 << 16
	// fillGap is the distance at which a filler row repeats the rule in force.
	fillGap = 0xff00
	// splitGap is the size of a stretch without rules from which a new piece
	// is cheaper than filler rows.
	splitGap = 1 << 20
	// maxTableWords bounds a whole table: 64 MiB. libLLVM needs 1 MiB.
	maxTableWords = 1 << 24
)

// ErrTooBig is returned when a table would be larger than any real binary's.
var ErrTooBig = errors.New("unwind table too big")

// span is one row of the packed table: a rule and where it begins to hold.
type span struct {
	pc   uint64
	rule Rule
}

// encoder packs rows into pieces. Rows come in order of PC; of rows with one
// PC the last counts.
type encoder struct {
	table   Table
	wide    *wideSet
	pending span // the last row added, which the next may still replace
	started bool // pending holds a row
	last    Rule // rule in force before pending
	// block has the rows since the last end, as long as they are few enough for
	// bestRuns; large: they were more, and runs are made as rows come.
	block   []span
	large   bool
	run     [maxRun]span
	runLen  int
	piece   pieceEncoder
	words   int    // in finished pieces
	padding uint64 // see sources.padding
	pads    []gap  // stretches without rules shorter than that, and
	none    []gap  // all others
	err     error
}

// add takes the next row.
func (e *encoder) add(pc uint64, r Rule) {
	// Stretches without rules are known by where they end.
	if r.Kind() == KindNone && e.pending.rule.Kind() == KindNone && (!e.started || pc > e.pending.pc) {
		return
	}
	if e.started && pc > e.pending.pc {
		e.commit(e.pending, pc)
	} else if !e.started && pc > 0 {
		e.none = append(e.none, gap{0, pc})
	}
	if !e.started || pc >= e.pending.pc {
		e.pending, e.started = span{pc, r}, true
	}
}

// finish returns the table. The last row ends it; its rule, which ought to be
// KindNone, is not used. With ErrTooBig the table holds what fitted.
func (e *encoder) finish() (*Table, error) {
	e.none = append(e.none, gap{e.pending.pc, 1<<64 - 1})
	e.end(e.pending.pc)
	return &e.table, e.err
}

// commit encodes row s, which holds up to next.
func (e *encoder) commit(s span, next uint64) {
	if s.rule == e.last || e.err != nil {
		return
	}
	if s.rule.Kind() == KindNone {
		if next-s.pc < e.padding {
			e.pads = append(e.pads, gap{s.pc, next})
			return
		}
		e.none = append(e.none, gap{s.pc, next})
		if next-s.pc >= splitGap {
			e.end(s.pc)
			return
		}
	}
	e.last = s.rule
	if e.large {
		e.collect(s)
		return
	}
	e.block = append(e.block, s)
	if len(e.block) > maxBest {
		e.large = true
		for _, s := range e.block {
			e.collect(s)
		}
		e.block = nil
	}
}

// collect adds a row to the run being made, or begins another.
func (e *encoder) collect(s span) {
	if n := e.runLen; n > 0 && n < maxRun && s.pc-e.run[n-1].pc <= runGap {
		e.run[n] = s
		e.runLen++
		return
	}
	e.flush(s.pc)
	e.run[0] = s
	e.runLen = 1
}

// end closes the piece being made at pc.
func (e *encoder) end(pc uint64) {
	rest := e.block
	for _, n := range bestRuns(e.block) {
		run := rest[:n]
		rest = rest[n:]
		next := pc
		if len(rest) > 0 {
			next = rest[0].pc
		}
		e.emit(run, next)
	}
	e.block = e.block[:0]
	e.flush(pc)
	if e.piece.open && e.err == nil {
		e.closePiece(pc)
	}
	e.last = MakeRule(KindNone, 0, 0)
}

// flush writes the run collected; the next row or the end of the piece is at next.
func (e *encoder) flush(next uint64) {
	if e.runLen > 0 {
		e.emit(e.run[:e.runLen], next)
		e.runLen = 0
	}
}

// emit writes a run, and fillers up to next.
func (e *encoder) emit(run []span, next uint64) {
	at, rule := run[0].pc, run[len(run)-1].rule
	e.put(run)
	for next-at >= 1<<16 && e.err == nil {
		at += fillGap
		e.put([]span{{at, rule}})
	}
}

// put writes one run, into a new piece if the present one is full.
func (e *encoder) put(run []span) {
	p := &e.piece
	pc := run[0].pc
	if p.open && !p.room(pc) {
		e.closePiece(pc)
	}
	if !p.open {
		p.reset(pc)
	}
	if e.words+p.size() > maxTableWords {
		e.err = ErrTooBig
		return
	}
	p.put(run)
}

func (e *encoder) closePiece(end uint64) {
	piece := e.piece.finish(end, e.wide.rules)
	e.words += len(piece.Words)
	e.table.Pieces = append(e.table.Pieces, piece)
	e.piece.open = false
}

// wideSet numbers the wide rules of a table.
type wideSet struct {
	index map[Wide]uint16
	rules []Wide
}

// rule makes a packed rule of what a pack function returned.
func (s *wideSet) rule(r Rule, w Wide) Rule {
	if r.Kind() == KindWide {
		return MakeRule(KindWide, 0, s.add(w))
	}
	return r
}

// add returns the number of w. When there are too many, w counts as lost.
func (s *wideSet) add(w Wide) uint16 {
	if n, ok := s.index[w]; ok {
		return n
	}
	if s.index == nil {
		_, none := lost()
		s.index = map[Wide]uint16{none: 0}
		s.rules = []Wide{none}
		return s.add(w)
	}
	if len(s.rules) == 1<<16 {
		return 0
	}
	n := uint16(len(s.rules))
	s.rules = append(s.rules, w)
	s.index[w] = n
	return n
}
