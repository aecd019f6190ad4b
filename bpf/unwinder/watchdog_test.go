// SPDX-License-Identifier: GPL-2.0

package unwinder

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// machine is a watchdog and CPUs whose events fire as told.
type machine struct {
	t      *testing.T
	dog    *watchdog
	clock  time.Duration
	fired  map[int]uint64
	opened []string // "SECONDS:CPU"
	closed []string
}

func newMachine(t *testing.T, hz, cpus int) *machine {
	m := &machine{t: t, dog: newWatchdog(time.Second/time.Duration(hz), EventCPUClock), fired: make(map[int]uint64)}
	for cpu := range cpus {
		m.dog.opened(cpu, hz, true)
	}
	return m
}

// second lets a second pass in which the CPUs given, those online, fire so often.
func (m *machine) second(fires map[int]uint64) {
	m.clock += time.Second
	seen := make(map[int]sighting)
	for cpu, n := range fires {
		m.fired[cpu] += n
		seen[cpu] = sighting{fired: m.fired[cpu], clock: m.clock}
	}
	toClose, toOpen := m.dog.check(seen, m.clock)
	for _, cpu := range toClose {
		m.dog.closed(cpu)
		m.closed = append(m.closed, fmt.Sprintf("%.0f:%d", m.clock.Seconds(), cpu))
	}
	for _, cpu := range toOpen {
		m.dog.opened(cpu, 100, false)
		m.opened = append(m.opened, fmt.Sprintf("%.0f:%d", m.clock.Seconds(), cpu))
	}
}

func (m *machine) expect(opened, closed string, gaps Gaps) {
	m.t.Helper()
	if got := strings.Join(m.opened, " "); got != opened {
		m.t.Errorf("opened %q, want %q", got, opened)
	}
	if got := strings.Join(m.closed, " "); got != closed {
		m.t.Errorf("closed %q, want %q", got, closed)
	}
	if got := m.dog.total(); got != gaps {
		m.t.Errorf("gaps %+v, want %+v", got, gaps)
	}
}

func TestWatchdog(t *testing.T) {
	type second map[int]uint64
	both := second{0: 100, 1: 100}
	for _, tt := range []struct {
		name           string
		hz             int
		seconds        []second
		opened, closed string
		gaps           Gaps
	}{
		{"all is well", 100, []second{both, both, both, both}, "", "", Gaps{LowestHz: 100}},
		{"a hypervisor takes most of a CPU", 100, []second{both, {0: 100, 1: 3}, {0: 100, 1: 1}, {0: 100, 1: 1}, {0: 100, 1: 1}},
			"", "", Gaps{LowestHz: 100}},
		{"a second without a fire, then as before", 100, []second{both, {0: 100, 1: 0}, both, both}, "", "", Gaps{LowestHz: 100}},
		{"an event dies 0.4 s after a check and is opened again 2 s after the next", 100,
			[]second{both, {0: 100, 1: 40}, {0: 100, 1: 0}, {0: 100, 1: 0}, both},
			"4:1", "4:1", Gaps{Reopened: 1, CPUs: 1, Unsampled: 2600 * time.Millisecond, LowestHz: 100}},
		{"it is dead at the end", 100, []second{both, {0: 100, 1: 40}, {0: 100, 1: 0}},
			"", "", Gaps{CPUs: 1, Unsampled: 1600 * time.Millisecond, LowestHz: 100}},
		{"it dies again and again", 100,
			[]second{both, {0: 100, 1: 0}, {0: 100, 1: 0}, {0: 100, 1: 0}, {0: 100, 1: 0}, both},
			"3:1 5:1", "3:1 5:1", Gaps{Reopened: 2, CPUs: 1, Unsampled: 4 * time.Second, LowestHz: 100}},
		{"a CPU is offline for ten seconds, which are not missed; when it came back is not known", 100,
			append(slices.Repeat([]second{{0: 100}}, 10), second{0: 100, 1: 0}, both),
			"11:1", "1:1", Gaps{Reopened: 1, CPUs: 1, Unsampled: time.Second, LowestHz: 100}},
		{"a CPU comes online", 100, []second{both, {0: 100, 1: 100, 2: 0}, {0: 100, 1: 100, 2: 99}},
			"2:2", "", Gaps{Reopened: 1, CPUs: 1, LowestHz: 100}},
		{"one fire a second is not watched as closely", 1,
			[]second{{0: 1, 1: 1}, {0: 1, 1: 0}, {0: 1, 1: 0}, {0: 1, 1: 0}, {0: 1, 1: 1}},
			"", "", Gaps{LowestHz: 1}},
		{"nor ever left dead for ten", 1,
			append([]second{{0: 1, 1: 1}}, slices.Repeat([]second{{0: 1, 1: 0}}, 8)...),
			"9:1", "9:1", Gaps{Reopened: 1, CPUs: 1, Unsampled: 8 * time.Second, LowestHz: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t, tt.hz, 2)
			for _, s := range tt.seconds {
				m.second(s)
			}
			m.expect(tt.opened, tt.closed, tt.gaps)
		})
	}
}

// TestWatchdogIdle has an event that does not fire on an idle CPU: its clock is the
// time the CPU works.
func TestWatchdogIdle(t *testing.T) {
	dog := newWatchdog(10*time.Millisecond, EventCycles)
	dog.opened(0, 100, true)
	var fired uint64
	check := func(busy time.Duration) []int {
		_, toOpen := dog.check(map[int]sighting{0: {fired: fired, clock: busy}}, -1)
		return toOpen
	}
	fired = 500
	check(5 * time.Second)
	for range 60 { // a minute of 10 ms each
		if again := check(5*time.Second + 10*time.Millisecond); len(again) > 0 {
			t.Fatal("an idle CPU is taken for dead")
		}
	}
	if again := check(5*time.Second + 400*time.Millisecond); len(again) > 0 {
		t.Fatal("dead after 0.4 s of work")
	}
	if again := check(5*time.Second + 500*time.Millisecond); len(again) != 1 {
		t.Fatal("half a second of work without a fire, and not dead")
	}
}

// TestWatchdogRefused has an event that cannot be opened at first.
func TestWatchdogRefused(t *testing.T) {
	dog := newWatchdog(10*time.Millisecond, EventCPUClock)
	dog.opened(0, 100, true)
	for i := range 6 {
		_, toOpen := dog.check(map[int]sighting{0: {clock: time.Duration(i) * time.Second}}, 0)
		if i == 2 {
			dog.closed(0)
		}
		if (len(toOpen) > 0) != (i >= 2) {
			t.Errorf("second %d: open %v", i, toOpen)
		}
	}
	if got, want := dog.total(), (Gaps{CPUs: 1, Unsampled: 5 * time.Second, LowestHz: 100}); got != want {
		t.Errorf("gaps %+v, want %+v", got, want)
	}
	dog.opened(0, 50, false)
	if got, want := dog.total(), (Gaps{Reopened: 1, CPUs: 1, Unsampled: 5 * time.Second, LowestHz: 50}); got != want {
		t.Errorf("gaps %+v, want %+v", got, want)
	}
}
