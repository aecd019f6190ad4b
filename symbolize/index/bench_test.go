// SPDX-License-Identifier: Apache-2.0

package index

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/lowflame/lowflame/stack"
)

// BenchmarkLookup looks up addresses at random, most of whose blocks are not cached.
func BenchmarkLookup(b *testing.B) {
	m := &model{}
	s := shape{scopes: 400, lines: 2000, space: 1 << 20, tame: true}
	for i := range uint64(50) {
		m.units = append(m.units, randomUnit(rand.New(rand.NewPCG(i, 1)), s))
	}
	data := m.write(b)
	x, err := Open(bytes.NewReader(data), int64(len(data)), NewBlocks(64<<10))
	if err != nil {
		b.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	var lines []Line
	named := 0
	for b.Loop() {
		lines, err = x.Lookup(stack.LinkAddr(rnd.Uint64N(s.space)), lines[:0])
		if err != nil {
			b.Fatal(err)
		}
		named += min(len(lines), 1)
	}
	if named == 0 {
		b.Error("nothing was found")
	}
	b.ReportMetric(float64(len(data)), "bytes/index")
}

// BenchmarkWrite writes an index of units that overlap.
func BenchmarkWrite(b *testing.B) {
	s := shape{scopes: 400, lines: 2000, space: 1 << 20, tame: true}
	u := randomUnit(rand.New(rand.NewPCG(1, 1)), s)
	for b.Loop() {
		w, err := Create(discard{}, Config{TempDir: b.TempDir()})
		if err != nil {
			b.Fatal(err)
		}
		for range 20 {
			if err := w.AddUnit(u); err != nil {
				b.Fatal(err)
			}
		}
		if err := w.Finish(); err != nil {
			b.Fatal(err)
		}
	}
}
