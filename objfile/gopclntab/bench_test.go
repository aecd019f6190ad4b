// SPDX-License-Identifier: Apache-2.0

package gopclntab

import (
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lowflame/lowflame/stack"
)

// bigProgram returns a Go program of 25 MB.
func bigProgram(b *testing.B) string {
	b.Helper()
	out, err := exec.Command("go", "env", "GOTOOLDIR").Output()
	if err != nil {
		b.Skip("no Go compiler to take as an example")
	}
	return filepath.Join(strings.TrimSpace(string(out)), "compile")
}

// BenchmarkLines10k is a cold table and 10,000 random addresses.
func BenchmarkLines10k(b *testing.B) {
	path := bigProgram(b)
	o, table := openFile(b, path)
	addrs := addresses(b, table, 10000)
	b.ReportAllocs()
	lines, start := 0, cpuTime(b)
	for b.Loop() {
		table, err := Open(o)
		if err != nil {
			b.Fatal(err)
		}
		lines = 0
		for _, addr := range addrs {
			got, err := table.Lines(addr)
			if err != nil || len(got) == 0 {
				b.Fatalf("Lines(%#x) = %v, %v", addr, got, err)
			}
			lines += len(got)
		}
	}
	if lines < 12000 {
		b.Errorf("%d lines", lines)
	}
	b.ReportMetric(float64(lines), "lines/op")
	b.ReportMetric(float64((cpuTime(b)-start).Microseconds())/1000/float64(b.N), "cpu-ms/op")
}

// cpuTime is what this process has used, by all its threads.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkLinesHot is the same address again.
func BenchmarkLinesHot(b *testing.B) {
	_, table := openFile(b, bigProgram(b))
	f, err := table.Func(table.NumFuncs() / 2)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if got, err := table.Lines(f.Entry); err != nil || len(got) == 0 {
			b.Fatal(got, err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	o, _ := openFile(b, bigProgram(b))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Open(o); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAllSPDeltas is what building an unwind table reads.
func BenchmarkAllSPDeltas(b *testing.B) {
	_, table := openFile(b, bigProgram(b))
	b.ReportAllocs()
	rows := 0
	for b.Loop() {
		rows = 0
		for i := range table.NumFuncs() {
			f, err := table.Func(i)
			if err != nil {
				b.Fatal(err)
			}
			if err := table.SPDeltas(f, func(stack.LinkAddr, int32) bool { rows++; return true }); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(rows), "rows/op")
	b.ReportMetric(float64(table.NumFuncs()), "funcs/op")
}

// A table keeps little in memory, however much was asked.
func TestHeap(t *testing.T) {
	_, file := builds[0].compile(t, "go")
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	_, table := openFile(t, file)
	for _, addr := range addresses(t, table, 5000) {
		if _, err := table.Lines(addr); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grew := int64(after.HeapAlloc) - int64(before.HeapAlloc); grew > 1<<20 {
		t.Errorf("%d bytes on the heap", grew)
	} else {
		t.Logf("%d bytes on the heap", grew)
	}
	runtime.KeepAlive(table)
}
