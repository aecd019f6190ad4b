// SPDX-License-Identifier: GPL-2.0

package unwinder

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestChoose holds on machines with a counter of cycles, and on those without.
func TestChoose(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("perf_event_open on a CPU needs root")
	}
	cpus, err := OnlineCPUs()
	if err != nil {
		t.Fatal(err)
	}
	have := tryCycles(cpus)
	t.Logf("cycles: %v", have)
	best := EventCPUClock
	if have == nil {
		best = EventCycles
	}
	for wanted, want := range map[Event]Event{"": best, EventCPUClock: EventCPUClock, EventCycles: EventCycles, "instructions": ""} {
		got, err := choose(wanted, cpus)
		if wanted == EventCycles && have != nil {
			if err == nil || !strings.Contains(err.Error(), "cpu-clock") {
				t.Errorf("%q is %q, %v; want an error that says what to use", wanted, got, err)
			}
			continue
		}
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q is %q, %v; want %q", wanted, got, err, want)
		}
	}
}

func TestParseBusy(t *testing.T) {
	const text = `cpu  9 9 9 9 9 9 9 9 0 0
cpu0 100 20 3 5000 70 4 50 999 0 0
cpu2 1 0 0 5000 0 0 0 0 0 0
cpu3 1 0 0 5
cpux 1 1 1 1 1 1 1 1
intr 12345 0 9
`
	want := map[int]time.Duration{0: 1770 * time.Millisecond, 2: 10 * time.Millisecond}
	if diff := cmp.Diff(want, parseBusy(text)); diff != "" {
		t.Error(diff)
	}
	now, err := busyTimes()
	if err != nil {
		t.Fatal(err)
	}
	cpus, err := OnlineCPUs()
	if err != nil {
		t.Fatal(err)
	}
	for _, cpu := range cpus {
		if now[cpu] <= 0 {
			t.Errorf("CPU %d has never been busy: %v", cpu, now)
		}
	}
}
