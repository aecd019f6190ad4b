// SPDX-License-Identifier: Apache-2.0

package unwind

import "github.com/lowflame/lowflame/stack"

// MaxPieceWords is the most u32 words one Piece may have: a 1 MiB shard of the
// BPF program's tables.
const MaxPieceWords = 1 << 18

// MaxPageRows is the most rows one page of a Piece may have: the BPF program's
// search goes no further.
const MaxPageRows = 1<<12 - 1

// Table is the unwind table of one binary: pieces sorted by Start, not
// overlapping. PCs outside every piece have no rule. Immutable once built;
// safe for concurrent use.
type Table struct {
	Arch   Arch
	Pieces []Piece
	// Partial: code without call frame information has not been looked at, see
	// BuildFirst.
	Partial bool
}

// Piece is a part of a table that fits one shard. Its words are four arrays of
// little-endian u32 in this order:
//
//	idx[pages+1]  first row of each page of 1<<Shift bytes from Start
//	row[n]        pc16 | run16<<16, sorted by PC; pc16 is the low half of PC-Start
//	dict[m]       runs: head is count8 | rule24<<8, then count-1 words
//	              delta8 | rule24<<8, deltas ascending, bytes from the row's PC
//	wide[w]       WideWords words each
//
// run16 is the word index of a run's head in dict. Two neighbouring rows are
// less than 1<<16 bytes apart (filler rows repeat the rule in force), so the
// distance from a row to a PC it covers is always (pc16(PC)-pc16(row))&0xffff.
// The row for a PC is the last one at or before it, which may be the last row of
// an earlier page: idx gives each page's first row, and a PC before it belongs
// to row idx[page]-1. The first row is always at Start.
type Piece struct {
	// Start and End bound the link-time addresses covered.
	Start, End stack.LinkAddr
	// Shift is log2 of the page size in bytes, 8..16.
	Shift uint8
	// Words holds the four arrays; Row, Dict and Wide are word offsets of the
	// last three in it.
	Words           []uint32
	Row, Dict, Wide uint32
}

// Find returns the piece that covers pc, or nil.
func (t *Table) Find(pc stack.LinkAddr) *Piece {
	lo, hi := 0, len(t.Pieces)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if t.Pieces[mid].End <= pc {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(t.Pieces) && t.Pieces[lo].Start <= pc {
		return &t.Pieces[lo]
	}
	return nil
}
