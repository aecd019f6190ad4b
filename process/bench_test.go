// SPDX-License-Identifier: Apache-2.0

package process

import (
	"os"
	"testing"

	"github.com/lowflame/lowflame/stack"
)

// BenchmarkRescan reads all of one process, this one.
func BenchmarkRescan(b *testing.B) {
	table := NewTable("/proc")
	pid := uint32(os.Getpid())
	for b.Loop() {
		if table.Rescan(pid); table.Live(pid) == nil {
			b.Fatal("not found")
		}
	}
}

// BenchmarkScan reads every process of the machine.
func BenchmarkScan(b *testing.B) {
	n := 0
	for b.Loop() {
		table := NewTable("/proc")
		if err := table.Scan(b.Context(), nil); err != nil {
			b.Fatal(err)
		}
		n = len(table.All())
	}
	b.ReportMetric(float64(n), "processes")
}

// BenchmarkApply is fork, exec, four mappings and exit, without /proc.
func BenchmarkApply(b *testing.B) {
	table := NewTable(b.TempDir())
	s := &story{}
	s.exec(9, "a")
	for i := range stack.Addr(6) {
		s.maps(9, fileMap(i<<16, i<<16+0x1000, 0, "/lib/x"))
	}
	table.Apply(s.events)
	b.ReportAllocs()
	for b.Loop() {
		s.events = s.events[:0]
		s.fork(10, 9)
		s.exec(10, "b")
		for i := range stack.Addr(4) {
			s.maps(10, fileMap(i<<16, i<<16+0x1000, 0, "/lib/x"))
		}
		s.exit(10, 10)
		table.Apply(s.events)
		table.Forget(s.now)
	}
	b.ReportMetric(float64(len(s.events)), "events/op")
	if n := len(table.procs); n != 2 { // what ended last is still known
		b.Fatalf("%d processes are left", n)
	}
}
