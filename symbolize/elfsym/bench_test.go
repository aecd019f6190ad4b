// SPDX-License-Identifier: Apache-2.0

package elfsym

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/stack"
)

// large returns programs and libraries with many functions.
func large(tb testing.TB) []string {
	return []string{
		"/usr/bin/node", "/usr/lib/llvm-19/lib/libLLVM.so.1", libjvm(tb), libc(tb),
		filepath.Join(runtime.GOROOT(), "bin/go"), //nolint:staticcheck // tests run where they are built
	}
}

func BenchmarkBuild(b *testing.B) {
	for _, path := range large(b) {
		b.Run(filepath.Base(path), func(b *testing.B) {
			if _, err := os.Stat(path); err != nil {
				b.Skip(err)
			}
			o := open(b, path)
			n := 0
			for _, which := range []objfile.SymTable{objfile.SymTab, objfile.DynSym} {
				if s, err := o.Symbols(which); err == nil {
					n += s.Len
				}
			}
			b.ReportAllocs()
			var t *Table
			for b.Loop() {
				var err error
				if t, err = Build(o); err != nil || t.Len() < 1000 {
					b.Fatalf("%d ranges, %v", t.Len(), err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n)*1e5/1e6, "ms/100k-symbols")
			b.ReportMetric(float64(t.Bytes())/float64(t.Len()), "B/func")
			b.ReportMetric(float64(t.Bytes()), "heap-B")
			b.ReportMetric(float64(n), "symbols")
		})
	}
}

func BenchmarkLookup(b *testing.B) {
	for _, path := range large(b)[:2] {
		b.Run(filepath.Base(path), func(b *testing.B) {
			if _, err := os.Stat(path); err != nil {
				b.Skip(err)
			}
			_, t := build(b, path)
			rng := rand.New(rand.NewPCG(1, 2))
			addrs := make([]stack.LinkAddr, 1<<16)
			for i := range addrs {
				f := t.funcs[rng.IntN(len(t.funcs))]
				addrs[i] = t.base + stack.LinkAddr(f.off+rng.Uint32N(f.size))
			}
			i := 0
			for b.Loop() {
				if _, ok := t.Lookup(addrs[i&0xffff]); !ok {
					b.Fatalf("nothing at %#x", addrs[i&0xffff])
				}
				i++
			}
		})
	}
}

func BenchmarkName(b *testing.B) {
	o, t := build(b, libc(b))
	rng := rand.New(rand.NewPCG(1, 2))
	for b.Loop() {
		f, ok := t.Lookup(t.base + stack.LinkAddr(t.funcs[rng.IntN(len(t.funcs))].off))
		if !ok {
			b.Fatal("a function does not contain its start")
		}
		if name, err := t.Name(o, f); err != nil || name == "" {
			b.Fatalf("name %q, %v", name, err)
		}
	}
}
