// SPDX-License-Identifier: Apache-2.0

package objfile

import (
	"os"
	"testing"
)

// bigFile opens a large program that is on this machine.
func bigFile(b *testing.B) *Object {
	b.Helper()
	for _, path := range []string{"/usr/bin/node", "/usr/local/go/bin/go", "/usr/bin/perl", "/bin/sh"} {
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		b.Cleanup(func() { f.Close() })
		info, err := f.Stat()
		if err != nil {
			b.Fatal(err)
		}
		o, err := Open(f, info.Size())
		if err != nil {
			b.Fatal(err)
		}
		b.Logf("%s: %d bytes", path, info.Size())
		return o
	}
	b.Skip("no ELF file to read")
	return nil
}

func BenchmarkOpen(b *testing.B) {
	o := bigFile(b)
	b.ReportAllocs()
	for b.Loop() {
		again, err := Open(o.File(), o.Size())
		if err != nil || again.BuildID != o.BuildID {
			b.Fatal(again, err)
		}
	}
}

func BenchmarkSymbolsWithNames(b *testing.B) {
	o := bigFile(b)
	syms, err := o.Symbols(SymTab)
	if err != nil {
		if syms, err = o.Symbols(DynSym); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	bytes := 0
	for b.Loop() {
		bytes = 0
		names := syms.Names()
		if err := syms.All(func(_ int, s Symbol) bool {
			name, err := names.Bytes(s.Name)
			if err != nil {
				b.Fatal(err)
			}
			bytes += len(name)
			return true
		}); err != nil {
			b.Fatal(err)
		}
	}
	if bytes == 0 {
		b.Error("no names")
	}
	b.ReportMetric(float64(syms.Len), "symbols/op")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(syms.Len), "ns/symbol")
}
