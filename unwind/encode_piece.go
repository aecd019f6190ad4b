// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"slices"

	"github.com/lowflame/lowflame/stack"
)

const (
	// maxDict is how many words run16 can address. Runs stop being added at
	// maxDictRuns, so that the rest is there for single rows.
	maxDict     = 1 << 16
	maxDictRuns = maxDict - 1<<12

	minShift, maxShift = 8, 16
	// rowsPerPage is the average to aim for: a search then takes two or three
	// steps and the index costs a quarter of the rows. Twice that in pieces of up
	// to smallPiece rows, of which the cache holds more than one step costs.
	rowsPerPage = 4
	smallPiece  = 1 << 14
)

// pieceEncoder makes one piece.
type pieceEncoder struct {
	open  bool
	start uint64
	rows  []uint32
	dict  dict
	local map[uint16]uint16 // number of a wide rule in the table → in the piece
	wides []uint16          // and back
}

// reset begins a piece at start.
func (p *pieceEncoder) reset(start uint64) {
	p.open = true
	p.start = start
	p.rows, p.wides = p.rows[:0], p.wides[:0]
	clear(p.local)
	p.dict.reset()
}

// size is how many words the piece has, but for its index.
func (p *pieceEncoder) size() int {
	return len(p.rows) + len(p.dict.words) + len(p.wides)*WideWords
}

// maxPages is the most index pages that finish picks for a piece that ends at end.
func (p *pieceEncoder) maxPages(end uint64, perPage int) uint64 {
	return max(uint64(len(p.rows)/perPage), (end-p.start)>>maxShift+1)
}

// room reports whether one more run at pc fits, whatever is in it.
func (p *pieceEncoder) room(pc uint64) bool {
	const worst = maxRun /* rows */ + maxRun /* dict */ + maxRun*WideWords
	// The piece may end up to 1<<16 bytes after its last row.
	index := p.maxPages(pc+1<<17, rowsPerPage) + maxRun/rowsPerPage + 2
	return uint64(p.size())+index+worst <= MaxPieceWords && len(p.dict.words)+maxRun <= maxDict
}

// put adds a run.
func (p *pieceEncoder) put(run []span) {
	var key [maxRun]uint32
	for i, s := range run {
		key[i] = uint32(s.pc-run[0].pc) | uint32(p.rule(s.rule))<<8
	}
	head := key[0]
	key[0] |= uint32(len(run))
	if n, ok := p.dict.add(key[:len(run)], maxDictRuns); ok {
		p.row(run[0].pc, n)
		return
	}
	key[0] = head
	for i, s := range run {
		n, _ := p.dict.add([]uint32{key[i]&^0xff | 1}, maxDict) // room made sure
		p.row(s.pc, n)
	}
}

func (p *pieceEncoder) row(pc uint64, run uint16) {
	p.rows = append(p.rows, uint32(uint16(pc-p.start))|uint32(run)<<16)
}

// rule gives a wide rule its number in the piece.
func (p *pieceEncoder) rule(r Rule) Rule {
	if r.Kind() != KindWide {
		return r
	}
	n, ok := p.local[r.Off()]
	if !ok {
		n = uint16(len(p.wides))
		if p.local == nil {
			p.local = make(map[uint16]uint16)
		}
		p.local[r.Off()] = n
		p.wides = append(p.wides, r.Off())
	}
	return MakeRule(KindWide, 0, n)
}

// finish returns the piece, which ends at end; all are the table's wide rules.
func (p *pieceEncoder) finish(end uint64, all []Wide) Piece {
	length := end - p.start
	shift, perPage := uint8(minShift), rowsPerPage
	if len(p.rows) <= smallPiece {
		perPage *= 2
	}
	for shift < maxShift && (length-1)>>shift+1 > p.maxPages(end, perPage) {
		shift++
	}
	for p.densest(shift) > MaxPageRows { // at minShift there are 256 at most
		shift--
	}
	pages := int((length-1)>>shift + 1)
	piece := Piece{
		Start: stack.LinkAddr(p.start),
		End:   stack.LinkAddr(end),
		Shift: shift,
		Words: make([]uint32, 0, pages+1+p.size()),
		Row:   uint32(pages + 1),
		Dict:  uint32(pages + 1 + len(p.rows)),
		Wide:  uint32(pages + 1 + len(p.rows) + len(p.dict.words)),
	}
	piece.Words = p.index(piece.Words, pages, shift)
	piece.Words = append(piece.Words, p.rows...)
	piece.Words = append(piece.Words, p.dict.words...)
	for _, n := range p.wides {
		w := all[n].words()
		piece.Words = append(piece.Words, w[:]...)
	}
	return piece
}

// densest returns the most rows that a page of 1<<shift bytes has.
func (p *pieceEncoder) densest(shift uint8) int {
	if len(p.rows) <= MaxPageRows {
		return len(p.rows)
	}
	most, rows, pc, page := 0, 0, uint64(0), uint64(0)
	for _, row := range p.rows {
		pc += uint64(uint16(row) - uint16(pc))
		if pc>>shift != page {
			rows, page = 0, pc>>shift
		}
		rows++
		most = max(most, rows)
	}
	return most
}

// index appends the number of each page's first row to words, and the number of
// rows.
func (p *pieceEncoder) index(words []uint32, pages int, shift uint8) []uint32 {
	pc := uint64(0)
	for i, row := range p.rows {
		pc += uint64(uint16(row) - uint16(pc))
		for len(words) < pages && uint64(len(words))<<shift <= pc {
			words = append(words, uint32(i))
		}
	}
	for len(words) <= pages {
		words = append(words, uint32(len(p.rows)))
	}
	return words
}

// words encodes w as rule.go says.
func (w Wide) words() [WideWords]uint32 {
	deref := uint32(0)
	if w.Deref {
		deref = 1 + uint32(w.Index)
	}
	return [WideWords]uint32{
		uint32(w.Reg) | deref<<8 | uint32(w.RA)<<16 | uint32(w.FP)<<24,
		uint32(w.CFAOff), uint32(w.Add), uint32(w.RAArg), uint32(w.FPArg),
	}
}

// dict stores each run once. It is an open-addressed hash table over the words
// themselves: building strings or arrays for a Go map takes most of the time
// of making a table.
type dict struct {
	words []uint32
	slots []uint32 // index into words, plus one
	used  int
}

func (d *dict) reset() {
	d.words = d.words[:0]
	clear(d.slots)
	d.used = 0
}

// add returns where run is, adding it if that does not take the words beyond
// limit.
func (d *dict) add(run []uint32, limit int) (uint16, bool) {
	if 2*d.used >= len(d.slots) {
		d.grow()
	}
	mask := uint32(len(d.slots) - 1)
	i := hashRun(run) & mask
	for ; d.slots[i] != 0; i = (i + 1) & mask {
		at := d.slots[i] - 1
		// The head's count makes unequal lengths differ in the first word.
		if d.words[at] == run[0] && slices.Equal(d.words[at:int(at)+len(run)], run) {
			return uint16(at), true
		}
	}
	if len(d.words)+len(run) > limit {
		return 0, false
	}
	at := len(d.words)
	d.words = append(d.words, run...)
	d.slots[i] = uint32(at + 1)
	d.used++
	return uint16(at), true
}

// grow doubles the slots.
func (d *dict) grow() {
	old := d.slots
	d.slots = make([]uint32, max(1024, 2*len(old)))
	mask := uint32(len(d.slots) - 1)
	for _, s := range old {
		if s == 0 {
			continue
		}
		n := d.words[s-1] & 0xff
		i := hashRun(d.words[s-1:s-1+n]) & mask
		for d.slots[i] != 0 {
			i = (i + 1) & mask
		}
		d.slots[i] = s
	}
}

// hashRun mixes the words of a run.
func hashRun(run []uint32) uint32 {
	h := uint64(14695981039346656037)
	for _, w := range run {
		h = (h ^ uint64(w)) * 0x9e3779b97f4a7c15
		h ^= h >> 29
	}
	return uint32(h >> 32)
}
