// SPDX-License-Identifier: GPL-2.0

package unwinder

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/lowflame/lowflame/unwind"
)

// TestSpans takes and gives at random and checks that no unit is in two hands,
// and that all of it comes back as one.
func TestSpans(t *testing.T) {
	const size = 1000
	rng := rand.New(rand.NewPCG(1, 2))
	free := spans{{0, size}}
	var used [size]bool
	var held []span
	for range 20000 {
		if n := uint32(rng.IntN(60)); rng.IntN(2) == 0 {
			off, ok := free.take(n)
			if !ok {
				continue
			}
			for i := off; i < off+n; i++ {
				if used[i] {
					t.Fatalf("unit %d handed out twice", i)
				}
				used[i] = true
			}
			held = append(held, span{off, n})
		} else if len(held) > 0 {
			i := rng.IntN(len(held))
			for u := held[i].off; u < held[i].off+held[i].n; u++ {
				used[u] = false
			}
			free.give(held[i])
			held = append(held[:i], held[i+1:]...)
		}
	}
	for _, s := range held {
		free.give(s)
	}
	if diff := cmp.Diff(spans{{0, size}}, free, cmp.AllowUnexported(span{})); diff != "" {
		t.Errorf("free space after everything was given back (-want +got):\n%s", diff)
	}
}

func TestExpand(t *testing.T) {
	table := &InstalledTable{
		Table: &unwind.Table{Pieces: []unwind.Piece{
			{Start: 0x1000, End: 0x3000, Shift: 8, Row: 10, Dict: 20, Wide: 30},
			{Start: 0x4000, End: 0x5000, Shift: 9, Row: 1, Dict: 2, Wide: 3},
		}},
		places: []place{{0, span{100, 50}}, {1, span{200, 50}}},
	}
	const bias = 0x10000
	got := expand([]Mapping{
		{Begin: 0x8000, End: 0x9000, Kind: MapFP},
		{Begin: bias + 0x2000, End: bias + 0x6000, Bias: bias, Kind: MapTable, Table: table},
		{Begin: 0x90000, End: 0x91000, Kind: MapMissing},
	})
	want := []bpfUnwMapping{
		{Begin: 0x8000, End: 0x9000, Kind: uint8(MapFP)},
		{Begin: bias + 0x2000, End: bias + 0x3000, Base: bias + 0x1000, Idx: 100, Row: 110, Dict: 120, Wide: 130, Shift: 8, Kind: uint8(MapTable)},
		{Begin: bias + 0x3000, End: bias + 0x4000, Kind: uint8(MapNoRule)},
		{Begin: bias + 0x4000, End: bias + 0x5000, Base: bias + 0x4000, Idx: 200, Row: 201, Dict: 202, Wide: 203, Shard: 1, Shift: 9, Kind: uint8(MapTable)},
		{Begin: bias + 0x5000, End: bias + 0x6000, Kind: uint8(MapNoRule)},
		{Begin: 0x90000, End: 0x91000, Kind: uint8(MapMissing)},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(bpfUnwMapping{}), cmpopts.IgnoreFields(bpfUnwMapping{}, "_")); diff != "" {
		t.Errorf("expand (-want +got):\n%s", diff)
	}
}
