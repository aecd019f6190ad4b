// SPDX-License-Identifier: Apache-2.0

package unwind

import "github.com/lowflame/lowflame/stack"

// Lookup returns the rule for pc, a link-time address: a rule of KindNone if
// the piece does not cover it. It never panics, whatever is in p.Words.
func (p *Piece) Lookup(pc stack.LinkAddr) Rule {
	if pc < p.Start || pc >= p.End {
		return 0
	}
	rel := uint64(pc - p.Start)
	page := rel >> (p.Shift & 63)
	if page+1 >= uint64(p.Row) || p.Row > p.Dict || uint64(p.Dict) >= uint64(len(p.Words)) {
		return 0
	}
	rows := p.Words[p.Row:p.Dict]
	lo, hi := p.Words[page], p.Words[page+1]
	if lo > hi || uint64(hi) > uint64(len(rows)) {
		return 0
	}
	// Last row of the page at or before pc, else the row before the page.
	low := uint32(uint16(rel))
	for lo < hi {
		mid := (lo + hi) / 2
		if rows[mid]&0xffff <= low {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == 0 {
		return 0
	}
	row := rows[lo-1]
	return p.inRun(row>>16, uint32(uint16(low-row)))
}

// inRun returns the rule delta bytes into the run at word head of the
// dictionary.
func (p *Piece) inRun(head, delta uint32) Rule {
	dict := p.Words[p.Dict:]
	if uint64(head) >= uint64(len(dict)) {
		return 0
	}
	run := dict[head:]
	n := min(run[0]&0xff, uint32(len(run)), maxRun)
	rule := run[0] >> 8
	for _, w := range run[min(1, n):n] {
		if w&0xff > delta {
			break
		}
		rule = w >> 8
	}
	return Rule(rule)
}

// WideRule returns wide rule i, the operand of a KindWide rule; for a number
// out of range a rule whose return address is lost.
func (p *Piece) WideRule(i uint16) Wide {
	at := uint64(p.Wide) + uint64(i)*WideWords
	if at+WideWords > uint64(len(p.Words)) {
		_, w := lost()
		return w
	}
	w := p.Words[at : at+WideWords]
	load := uint8(w[0] >> 8)
	return Wide{
		Reg:    uint8(w[0]),
		Deref:  load != 0,
		Index:  max(load, 1) - 1,
		RA:     Where(w[0] >> 16),
		FP:     Where(w[0] >> 24),
		CFAOff: int32(w[1]),
		Add:    int32(w[2]),
		RAArg:  int32(w[3]),
		FPArg:  int32(w[4]),
	}
}

// Lookup returns the rule for pc, and the piece it is in for wide rules, or nil.
func (t *Table) Lookup(pc stack.LinkAddr) (Rule, *Piece) {
	p := t.Find(pc)
	if p == nil {
		return 0, nil
	}
	return p.Lookup(pc), p
}
