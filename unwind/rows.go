// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"iter"

	"github.com/lowflame/lowflame/stack"
)

// Row is a stretch of addresses that one rule holds for.
type Row struct {
	// Begin and End are the link-time addresses it covers: [Begin, End).
	Begin, End stack.LinkAddr
	Rule       Rule
	// Piece is the one it is in, which has its wide rule.
	Piece *Piece
}

// Rows returns the rows of the table, lowest first. Neighbours differ: filler
// rows and what else repeats the rule in force is left out. Addresses between
// two rows that do not meet, and in rows of KindNone, have no rule.
func (t *Table) Rows() iter.Seq[Row] {
	return func(yield func(Row) bool) {
		for i := range t.Pieces {
			if !t.Pieces[i].rows(yield) {
				return
			}
		}
	}
}

// rows passes on the rows of the piece. It returns false if yield did.
func (p *Piece) rows(yield func(Row) bool) bool {
	cur, more := Row{Begin: p.Start, Piece: p}, true
	p.each(func(pc uint64, r Rule) {
		at := min(stack.LinkAddr(pc), p.End)
		if r == cur.Rule || !more {
			return
		}
		if cur.End = at; at > cur.Begin {
			more = yield(cur)
		}
		cur.Begin, cur.Rule = at, r
	})
	if cur.End = p.End; more && p.End > cur.Begin {
		more = yield(cur)
	}
	return more
}
