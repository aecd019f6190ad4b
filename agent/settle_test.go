// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os"
	"testing"

	"github.com/lowflame/lowflame/bpf/unwinder"
	"github.com/lowflame/lowflame/process"
	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/unwind"
)

// TestSampleInNoMapping has samples of a process lie in none of its mappings: the
// process is read anew, and given up only when it has been there for a while.
func TestSampleInNoMapping(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("sampling needs root")
	}
	pid, _ := sleeper(t)
	s := openSession(t, Config{})
	began := monotonic()
	// An exec whose mappings are not told.
	s.apply([]process.Event{{Kind: process.EventExec, PID: pid, TID: pid, Time: began, Comm: "sh"}})
	sample := func(at uint64) {
		s.walk(&unwinder.RawSample{
			Sample: stack.Sample{PID: pid, Time: at, Count: 1, Trace: stack.Trace{Stop: stack.StopNoMapping}},
			Regs:   unwind.Regs{PC: 16, AllValid: true},
		})
	}
	mappings := func() int { return len(s.table.Live(pid).Mappings) }
	if n := mappings(); n != 0 {
		t.Fatalf("%d mappings that were not told", n)
	}
	sample(began + rereadAge)
	if mappings() != 0 || s.publisher.settled() {
		t.Errorf("inside of the exec: %d mappings, settled %v", mappings(), s.publisher.settled())
	}
	sample(began + rereadAge + 1)
	if mappings() == 0 || s.publisher.settled() {
		t.Errorf("after the exec: %d mappings, settled %v", mappings(), s.publisher.settled())
	}
	sample(s.table.Live(pid).Known + settleAge)
	if s.publisher.settled() {
		t.Error("settled when just read")
	}
	sample(s.table.Live(pid).Known + settleAge + 1)
	if !s.publisher.settled() {
		t.Error("not settled in the end")
	}
	m := process.Mapping{Begin: 1 << 44, End: 1<<44 + 4096, Kind: process.KindAnon, Path: "//anon"}
	s.apply([]process.Event{{Kind: process.EventMap, PID: pid, TID: pid, Time: monotonic(), Map: m}})
	if s.publisher.settled() {
		t.Error("settled though something was mapped since")
	}
}
