// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/lowflame/lowflame/stack"
)

// encode packs rows, and returns the table and the wide rules they may name.
func encode(tb testing.TB, rows []span, wides []Wide) (*Table, error) {
	tb.Helper()
	w := wideSet{index: map[Wide]uint16{}, rules: wides}
	e := encoder{wide: &w}
	for _, r := range rows {
		e.add(r.pc, r.rule)
	}
	return e.finish()
}

// checkTable compares a table with the rows it was made of: both ends of each
// row, and a PC within. Rows ascend and end with KindNone.
func checkTable(tb testing.TB, t *Table, rows []span, wides []Wide) {
	tb.Helper()
	bad := 0
	for i := 0; i+1 < len(rows); i++ {
		from, to := rows[i].pc, rows[i+1].pc
		for _, pc := range []uint64{from, from + (to-from)/2, to - 1} {
			got, p := t.Lookup(stack.LinkAddr(pc))
			want := rows[i].rule
			same := got == want
			if got.Kind() == KindWide && want.Kind() == KindWide {
				same = p.WideRule(got.Off()) == wides[want.Off()]
			}
			if !same && bad < 5 {
				bad++
				tb.Errorf("rule at %#x is %#x, want %#x", pc, got, want)
			}
		}
	}
	for i := range t.Pieces {
		checkPiece(tb, &t.Pieces[i])
		if i > 0 && t.Pieces[i].Start < t.Pieces[i-1].End {
			tb.Errorf("pieces %d and %d overlap", i-1, i)
		}
	}
}

// checkPiece checks what table.go says of a piece.
func checkPiece(tb testing.TB, p *Piece) {
	tb.Helper()
	pages := (uint64(p.End-p.Start)-1)>>p.Shift + 1
	if len(p.Words) > MaxPieceWords || p.Shift < 8 || p.Shift > 16 || p.End <= p.Start ||
		uint64(p.Row) != pages+1 || p.Row >= p.Dict || p.Dict >= p.Wide || int(p.Wide) > len(p.Words) || (len(p.Words)-int(p.Wide))%WideWords != 0 {
		tb.Fatalf("piece %#x-%#x: %d words, row %d dict %d wide %d shift %d", p.Start, p.End, len(p.Words), p.Row, p.Dict, p.Wide, p.Shift)
	}
	pc, last := uint64(0), uint32(0)
	rows := p.Words[p.Row:p.Dict]
	for i, row := range rows {
		pc += uint64(uint16(row - last))
		last = row
		if i == 0 && row&0xffff != 0 {
			tb.Errorf("first row is not at the start")
		}
		if page := pc >> p.Shift; int(p.Words[page]) > i || int(p.Words[page+1]) <= i {
			tb.Fatalf("row %d at +%#x is not in rows [%d, %d) of its page", i, pc, p.Words[page], p.Words[page+1])
		}
	}
	if rest := uint64(p.End-p.Start) - pc; rest > 1<<16 {
		tb.Errorf("last row is %#x bytes before the end", rest)
	}
}

// randomRows makes rows with n distinct rules, in bursts as prologues make them.
func randomRows(r *rand.Rand, count, n int, wides int) []span {
	rows := make([]span, 0, count)
	pc := uint64(0x1000)
	for range count {
		rule := MakeRule(KindSP, uint8(r.IntN(16)), uint16(r.IntN(n)))
		switch {
		case wides > 0 && r.IntN(10) == 0:
			rule = MakeRule(KindWide, 0, uint16(r.IntN(wides)))
		case r.IntN(20) == 0:
			rule = 0
		}
		rows = append(rows, span{pc, rule})
		switch r.IntN(100) {
		case 0:
			pc += uint64(r.IntN(1 << 18)) // needs fillers
		case 1:
			pc += 1 << 16
		case 2, 3, 4, 5, 6, 7, 8, 9:
			pc += uint64(r.IntN(200))
		}
		pc += uint64(1 + r.IntN(5))
	}
	return append(rows, span{pc, 0})
}

func TestEncode(t *testing.T) {
	wides := make([]Wide, 2000)
	for i := range wides {
		wides[i] = Wide{Reg: uint8(i % 33), Deref: i%2 == 0, Index: uint8(1-i%2) * uint8(i%34), RA: Where(i % 5), FP: Where(i % 4), CFAOff: int32(-i), Add: int32(i), RAArg: int32(i * 7), FPArg: int32(-i * 3)}
	}
	tests := []struct {
		name                string
		count, rules, wides int
		pieces              int // at least
	}{
		{"few", 10, 3, 0, 1},
		{"one row", 1, 3, 0, 1},
		{"the most that bestRuns cuts", maxBest, 20, 0, 1},
		{"rare rules that bestRuns cuts", maxBest / 2, 65536, len(wides), 1},
		{"many, few rules", 200_000, 20, 0, 1},
		{"more runs than the dictionary holds", 300_000, 2000, 0, 2},
		{"more rules than the dictionary holds", 400_000, 65536, 0, 2},
		{"wide rules in every piece", 500_000, 500, len(wides), 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rows := randomRows(rand.New(rand.NewPCG(1, 2)), tt.count, tt.rules, tt.wides)
			table, err := encode(t, rows, wides)
			if err != nil {
				t.Fatal(err)
			}
			if len(table.Pieces) < tt.pieces {
				t.Errorf("%d pieces, want at least %d", len(table.Pieces), tt.pieces)
			}
			checkTable(t, table, rows, wides)
		})
	}
}

// TestBestRuns: functions alike but for their size share all their runs, although
// their rows are further apart than runGap, and what occurs once costs no run.
func TestBestRuns(t *testing.T) {
	const funcs = 1000
	var rows []span
	pc := uint64(0x1000)
	for i := range uint64(funcs) {
		for n, gap := range []uint64{0, 4, 13, 40} {
			pc += gap
			rows = append(rows, span{pc, MakeRule(KindSP, uint8(n), uint16(n+1))})
		}
		pc += 300 + 16*i
		rows = append(rows, span{pc, MakeRule(KindFP, 0, uint16(1000+i))})
		pc += 100
	}
	rows = append(rows, span{pc, 0})
	table, err := encode(t, rows, nil)
	if err != nil {
		t.Fatal(err)
	}
	checkTable(t, table, rows, nil)
	p := &table.Pieces[0]
	if n := p.Dict - p.Row; n != 2*funcs {
		t.Errorf("%d rows, want %d", n, 2*funcs)
	}
	if n := p.Wide - p.Dict; n != funcs+4 {
		t.Errorf("%d words in the dictionary, want %d", n, funcs+4)
	}
}

// TestTableRows: what comes out is what went in, without fillers and repetitions.
func TestTableRows(t *testing.T) {
	rows := randomRows(rand.New(rand.NewPCG(3, 4)), 100_000, 300, 0)
	table, err := encode(t, rows, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got, want []span
	for i, s := range rows {
		if n := len(want); n == 0 || want[n-1].rule != s.rule {
			if s.rule != 0 || i > 0 && i < len(rows)-1 {
				want = append(want, s)
			}
		}
	}
	end := stack.LinkAddr(0)
	for r := range table.Rows() {
		if end != 0 && r.Begin > end { // between two pieces
			got = append(got, span{uint64(end), 0})
		}
		got = append(got, span{uint64(r.Begin), r.Rule})
		end = r.End
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d rows, want %d", len(got), len(want))
	}
	if last := rows[len(rows)-1].pc; uint64(end) != last {
		t.Errorf("rows end at %#x, want %#x", end, last)
	}
	for r := range table.Rows() {
		if r.Begin > table.Pieces[0].Start { // stops when told
			break
		}
	}
}

// TestEncodeGaps: a long stretch of a rule is repeated, a long stretch without
// any splits the table, and what is outside has no rule.
func TestEncodeGaps(t *testing.T) {
	rows := []span{
		{0x1000, MakeRule(KindSP, 0, 1)}, // 10 MiB of one rule
		{0xa01000, MakeRule(KindSP, 0, 2)},
		{0xa01010, 0}, // 16 MiB of none
		{0x1a01010, MakeRule(KindSP, 0, 3)},
		{0x1a01020, 0}, // not long enough for a new piece
		{0x1a11020, MakeRule(KindSP, 0, 4)},
		{0x1a11030, 0},
	}
	table, err := encode(t, rows, nil)
	if err != nil {
		t.Fatal(err)
	}
	checkTable(t, table, rows, nil)
	if len(table.Pieces) != 2 {
		t.Errorf("%d pieces, want 2", len(table.Pieces))
	}
	for _, pc := range []stack.LinkAddr{0, 0xfff, 0x1000000, 0x1a11030, 1 << 63} {
		if r, _ := table.Lookup(pc); r != 0 {
			t.Errorf("rule %#x at %#x, want none", r, pc)
		}
	}
}

// TestEncodeNone: what has no rule is known, however many rows say so and wherever
// they are.
func TestEncodeNone(t *testing.T) {
	e := encoder{wide: &wideSet{}, padding: padding}
	r := MakeRule(KindSP, 0, 1)
	for _, s := range []span{{0x1000, 0}, {0x1100, 0}, {0x1200, r}, {0x1300, 0}, {0x1304, 0}, {0x1400, 0}, {0x1500, r}, {0x1600, 0}, {0x1604, r}, {0x1700, 0}, {0x1800, 0}} {
		e.add(s.pc, s.rule)
	}
	if _, err := e.finish(); err != nil {
		t.Fatal(err)
	}
	if want := []gap{{0, 0x1200}, {0x1300, 0x1500}, {0x1700, 1<<64 - 1}}; !slices.Equal(e.none, want) {
		t.Errorf("without rules are %#x, want %#x", e.none, want)
	}
	if want := []gap{{0x1600, 0x1604}}; !slices.Equal(e.pads, want) {
		t.Errorf("padding is %#x, want %#x", e.pads, want)
	}
}

// TestEncodeTooBig: rows that cover more than any binary has are refused.
func TestEncodeTooBig(t *testing.T) {
	e := encoder{wide: &wideSet{}}
	e.add(0, MakeRule(KindSP, 0, 1))
	e.add(1<<60, 0)
	if _, err := e.finish(); err != ErrTooBig {
		t.Errorf("error %v, want ErrTooBig", err)
	}
}

// TestPadding: the few bytes between functions keep the rule before them, in
// large files only.
func TestPadding(t *testing.T) {
	for padding, want := range map[uint64]Kind{0: KindNone, padding: KindSP} {
		e := encoder{wide: &wideSet{}, padding: padding}
		e.add(0x1000, MakeRule(KindSP, 0, 1))
		e.add(0x1018, 0)
		e.add(0x1020, MakeRule(KindSP, 0, 2))
		e.add(0x1028, 0)
		e.add(0x1038, MakeRule(KindSP, 0, 3))
		e.add(0x1040, 0)
		table, err := e.finish()
		if err != nil {
			t.Fatal(err)
		}
		for pc, kind := range map[stack.LinkAddr]Kind{0x101f: want, 0x1020: KindSP, 0x1028: KindNone, 0x1037: KindNone} {
			if r, _ := table.Lookup(pc); r.Kind() != kind {
				t.Errorf("padding %d: kind %d at %#x, want %d", padding, r.Kind(), pc, kind)
			}
		}
	}
}

// FuzzTable encodes rows made of the input and looks them all up.
func FuzzTable(f *testing.F) {
	f.Add([]byte{1, 0x11, 0, 4, 0x12, 0, 200, 0, 0, 3, 0x11, 0})
	f.Add([]byte{255, 7, 1, 255, 7, 2, 255, 0x31, 3, 254, 0, 0, 253, 0x11, 9, 1, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		wides := make([]Wide, 256)
		for i := range wides {
			wides[i].CFAOff = int32(i)
		}
		var rows []span
		pc := uint64(0x1000)
		for ; len(in) >= 3; in = in[3:] {
			gap := uint64(in[0])
			if gap > 250 {
				gap = 1 << (gap - 240) // up to 32 KiB
			} else if gap == 250 {
				gap = 3 << 20
			}
			pc += gap + 1
			rule := Rule(in[1]) | Rule(in[2])<<8
			if rule.Kind() == KindNone {
				rule = 0
			}
			rows = append(rows, span{pc, rule})
		}
		if len(rows) == 0 {
			return
		}
		rows = append(rows, span{pc + 1, 0})
		table, err := encode(t, rows, wides)
		if err != nil {
			t.Fatal(err)
		}
		checkTable(t, table, rows, wides)
	})
}

// FuzzLookup looks addresses up in words that no encoder made.
func FuzzLookup(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0x11, 0, 0}, uint32(2), uint32(3), uint32(4), uint8(8), uint64(5))
	f.Fuzz(func(t *testing.T, in []byte, row, dict, wide uint32, shift uint8, pc uint64) {
		p := Piece{Start: 0, End: 1 << 40, Shift: shift, Row: row, Dict: dict, Wide: wide}
		for ; len(in) >= 4; in = in[4:] {
			p.Words = append(p.Words, uint32(in[0])|uint32(in[1])<<8|uint32(in[2])<<16|uint32(in[3])<<24)
		}
		r := p.Lookup(stack.LinkAddr(pc))
		_ = fmt.Sprint(r, p.WideRule(r.Off()))
	})
}
