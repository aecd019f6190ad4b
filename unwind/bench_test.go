// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"testing"

	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/stack"
)

var libLLVM = []string{"/usr/lib/llvm-*/lib/libLLVM-*.so.1", "/usr/lib/x86_64-linux-gnu/libLLVM*.so*"}

// BenchmarkBuild parses and encodes the .eh_frame of a large library, in one
// thread, from memory.
func BenchmarkBuild(b *testing.B) {
	src := elfSources(b, library(b, libLLVM...))
	src.debug = nil
	want := tableOf(b, src)
	b.SetBytes(int64(len(src.eh.data)))
	b.ReportAllocs()
	for b.Loop() {
		if got := tableOf(b, src); words(got) != words(want) || words(got) < 1000 {
			b.Fatalf("table of %d words, want %d", words(got), words(want))
		}
	}
	b.ReportMetric(float64(4*words(want)), "table-bytes")
}

// BenchmarkParse is BenchmarkBuild without the encoder.
func BenchmarkParse(b *testing.B) {
	src := elfSources(b, library(b, libLLVM...))
	b.SetBytes(int64(len(src.eh.data)))
	var rows int
	for b.Loop() {
		rows = 0
		c := src.eh.reader(src, ".eh_frame", func(uint64, *frameState) { rows++ })
		c.run(parseHdr(src.eh.hdr, src.eh.hdrAddr, src.eh.addr))
		if rows < 100_000 || c.err != nil {
			b.Fatalf("%d rows, error %v", rows, c.err)
		}
	}
	b.ReportMetric(float64(rows), "rows")
}

// BenchmarkLookup looks addresses up all over the text of a large library.
func BenchmarkLookup(b *testing.B) {
	src := elfSources(b, library(b, libLLVM...))
	src.debug = nil
	t := tableOf(b, src)
	p := &t.Pieces[0]
	size := uint64(p.End - p.Start)
	pc, found := uint64(0), 0
	n := 0
	for b.Loop() {
		pc = (pc*6364136223846793005 + 1442695040888963407)
		if r, _ := t.Lookup(p.Start + stack.LinkAddr(pc%size)); r.Kind() != KindNone {
			found++
		}
		n++
	}
	if found < n/2 {
		b.Fatalf("%d of %d addresses have a rule", found, n)
	}
}

func words(t *Table) int {
	n := 0
	for i := range t.Pieces {
		n += len(t.Pieces[i].Words)
	}
	return n
}

// BenchmarkBuildFile makes the tables of whole files: from call frame information
// alone, and with what their code tells.
func BenchmarkBuildFile(b *testing.B) {
	builds := map[string]func(*objfile.Object) (*Table, error){"cfi": BuildCFI, "first": BuildFirst, "all": Build}
	for name, patterns := range map[string][]string{"libLLVM": libLLVM, "node": {"/usr/bin/node"}} {
		for what, build := range builds {
			b.Run(name+"/"+what, func(b *testing.B) {
				o, file, err := objfile.OpenFile(library(b, patterns...))
				if err != nil {
					b.Fatal(err)
				}
				defer file.Close()
				frames, _, _, _, err := o.EHFrame()
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(int64(len(frames)))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := build(o); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
