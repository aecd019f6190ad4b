// SPDX-License-Identifier: Apache-2.0

package symbolize

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/stack"
)

// addresses returns n random bytes of code of functions, larger ones more often.
func addresses(tb testing.TB, b *Binary, n int) []stack.LinkAddr {
	tb.Helper()
	type span struct {
		start stack.LinkAddr
		end   uint64 // sum of sizes up to here
	}
	var spans []span
	var sum uint64
	for _, which := range []objfile.SymTable{objfile.SymTab, objfile.DynSym} {
		syms, err := b.Object.Symbols(which)
		if err != nil {
			continue
		}
		err = syms.All(func(_ int, s objfile.Symbol) bool {
			if s.Type == 2 && s.Section != 0 && s.Size > 0 {
				sum += s.Size
				spans = append(spans, span{s.Value, sum})
			}
			return true
		})
		if err != nil {
			tb.Fatal(err)
		}
		if len(spans) > 0 {
			break
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	addrs := make([]stack.LinkAddr, n)
	for i := range addrs {
		x := rng.Uint64N(sum)
		lo, hi := 0, len(spans)-1
		for lo < hi {
			if mid := (lo + hi) / 2; spans[mid].end <= x {
				lo = mid + 1
			} else {
				hi = mid
			}
		}
		addrs[i] = spans[lo].start + stack.LinkAddr(spans[lo].end-1-x)
	}
	return addrs
}

var benchmarkFiles = []string{
	"/usr/bin/node", "/usr/lib/llvm-19/lib/libLLVM.so.1",
	"/usr/lib/jvm/java-17-openjdk-amd64/lib/server/libjvm.so",
	runtime.GOROOT() + "/bin/go", //nolint:staticcheck // tests run where they are built
}

// BenchmarkUserCold names 10,000 addresses all over a file, beginning with nothing.
func BenchmarkUserCold(b *testing.B) {
	for _, path := range benchmarkFiles {
		b.Run(filepath.Base(path), func(b *testing.B) {
			if _, err := os.Stat(path); err != nil {
				b.Skip(err)
			}
			bin := open(b, path)
			addrs := addresses(b, bin, 10_000)
			for b.Loop() {
				s := New(Config{})
				for _, a := range addrs {
					s.User(bin, a)
				}
				if st := s.Stats(); st.Unnamed > 100 {
					b.Fatalf("%+v", st)
				}
			}
		})
	}
}

func BenchmarkUserWarm(b *testing.B) {
	bin := open(b, benchmarkFiles[0])
	addrs := addresses(b, bin, 4096)
	s := New(Config{})
	for _, a := range addrs {
		s.User(bin, a)
	}
	i := 0
	for b.Loop() {
		if s.User(bin, addrs[i&4095]) == nil {
			b.Fatalf("no name for %#x", addrs[i&4095])
		}
		i++
	}
}

// BenchmarkHeap reports the heap after naming 10,000 addresses of each file, and of
// the kernel.
func BenchmarkHeap(b *testing.B) {
	var before, after runtime.MemStats
	var st Stats
	for b.Loop() {
		var bins []*Binary
		var addrs [][]stack.LinkAddr
		for _, path := range benchmarkFiles {
			if _, err := os.Stat(path); err == nil {
				bins = append(bins, open(b, path))
				addrs = append(addrs, addresses(b, bins[len(bins)-1], 10_000))
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&before)
		s := New(Config{})
		for i, bin := range bins {
			for _, a := range addrs[i] {
				s.User(bin, a)
			}
		}
		s.Kernel(0xffffffff81000000)
		s.Trim()
		runtime.GC()
		runtime.ReadMemStats(&after)
		if st = s.Stats(); st.Named == 0 {
			b.Fatalf("%+v", st)
		}
		runtime.KeepAlive(s)
		runtime.KeepAlive(bins)
	}
	b.ReportMetric(float64(int64(after.HeapAlloc)-int64(before.HeapAlloc)), "heap-B")
	b.ReportMetric(float64(st.CacheBytes), "cache-B")
	b.ReportMetric(float64(st.TableBytes), "tables-B")
}
