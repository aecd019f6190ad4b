// SPDX-License-Identifier: Apache-2.0

package process

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lowflame/lowflame/stack"
)

func fileMap(begin, end stack.Addr, off stack.FileOff, path string) Mapping {
	return Mapping{Begin: begin, End: end, Off: off, Path: path}
}

func TestOverlay(t *testing.T) {
	a := fileMap(10, 50, 100, "/a")
	jit := func(begin, end stack.Addr) Mapping { return Mapping{Begin: begin, End: end, Kind: KindAnon} }
	for _, tt := range []struct {
		name            string
		old, adds, want []Mapping
	}{
		{"first", nil, []Mapping{a}, []Mapping{a}},
		{"nothing", []Mapping{a}, nil, []Mapping{a}},
		{"before and after", []Mapping{a}, []Mapping{fileMap(50, 60, 0, "/c"), fileMap(1, 10, 0, "/b")},
			[]Mapping{fileMap(1, 10, 0, "/b"), a, fileMap(50, 60, 0, "/c")}},
		{"in the middle", []Mapping{a}, []Mapping{fileMap(20, 30, 0, "/b")},
			[]Mapping{fileMap(10, 20, 100, "/a"), fileMap(20, 30, 0, "/b"), fileMap(30, 50, 120, "/a")}},
		{"the beginning", []Mapping{a}, []Mapping{fileMap(5, 30, 0, "/b")}, []Mapping{fileMap(5, 30, 0, "/b"), fileMap(30, 50, 120, "/a")}},
		{"the end", []Mapping{a}, []Mapping{fileMap(30, 70, 0, "/b")}, []Mapping{fileMap(10, 30, 100, "/a"), fileMap(30, 70, 0, "/b")}},
		{"all", []Mapping{a}, []Mapping{fileMap(10, 50, 0, "/b")}, []Mapping{fileMap(10, 50, 0, "/b")}},
		{"later ones win", nil, []Mapping{a, fileMap(0, 100, 0, "/b"), fileMap(40, 60, 0, "/c")},
			[]Mapping{fileMap(0, 40, 0, "/b"), fileMap(40, 60, 0, "/c"), fileMap(60, 100, 60, "/b")}},
		{"two in one", []Mapping{a}, []Mapping{fileMap(20, 25, 0, "/b"), fileMap(30, 35, 0, "/c")},
			[]Mapping{fileMap(10, 20, 100, "/a"), fileMap(20, 25, 0, "/b"), fileMap(25, 30, 115, "/a"), fileMap(30, 35, 0, "/c"), fileMap(35, 50, 125, "/a")}},
		{"pages of a JIT join", []Mapping{jit(10, 20)}, []Mapping{jit(20, 30), jit(40, 50)}, []Mapping{jit(10, 30), jit(40, 50)}},
		{"part of a JIT again", []Mapping{jit(10, 50)}, []Mapping{jit(20, 30)}, []Mapping{jit(10, 50)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			old := slices.Clone(tt.old)
			if d := cmp.Diff(tt.want, overlay(tt.old, tt.adds)); d != "" {
				t.Error(d)
			}
			if !slices.Equal(old, tt.old) {
				t.Error("the old mappings were written to")
			}
		})
	}
}

// TestOverlayRandom compares with a painting of one byte after the other.
func TestOverlayRandom(t *testing.T) {
	const size = 64
	rng := rand.New(rand.NewPCG(1, 2))
	var painted [size]Mapping // the mapping of each byte, cut to that byte
	var ms []Mapping
	for range 3000 {
		var adds []Mapping
		for range 1 + rng.IntN(4) {
			begin := stack.Addr(rng.IntN(size - 1))
			m := fileMap(begin, begin+1+stack.Addr(rng.IntN(int(size-begin-1)+1)), stack.FileOff(rng.IntN(1000)), "/"+strconv.Itoa(rng.IntN(3)))
			if rng.IntN(3) == 0 {
				m = Mapping{Begin: m.Begin, End: m.End, Kind: KindAnon}
			}
			m.End = min(m.End, size)
			adds = append(adds, m)
			for a := m.Begin; a < m.End; a++ {
				painted[a] = m.from(a).upTo(a + 1)
			}
		}
		ms = overlay(ms, adds)
		checkSorted(t, ms)
		var got [size]Mapping
		for _, m := range ms {
			for a := m.Begin; a < m.End; a++ {
				got[a] = m.from(a).upTo(a + 1)
			}
		}
		if got != painted {
			t.Fatalf("after %v: %v", adds, ms)
		}
	}
}

// BenchmarkOverlay adds a batch of mappings to a process with very many.
func BenchmarkOverlay(b *testing.B) {
	var old, adds []Mapping
	for i := range stack.Addr(maxMappings - maxAdds) {
		old = append(old, fileMap(i*16, i*16+8, 0, "/a"))
	}
	for i := range stack.Addr(maxAdds) {
		adds = append(adds, fileMap(i*256+8, i*256+12, 0, "/b"))
	}
	for b.Loop() {
		if n := len(overlay(old, adds)); n != maxMappings {
			b.Fatal(n)
		}
	}
}
