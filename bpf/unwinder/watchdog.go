// SPDX-License-Identifier: GPL-2.0

package unwinder

import (
	"maps"
	"slices"
	"time"
)

// watchdog tells from how often the events fired which of them are dead.
//
// An event dies when its CPU goes offline, and stays so when the CPU is back. On
// Linux 6.16 to 6.18 a cpu-clock event dies when it is throttled. In both cases
// neither its file descriptor nor PERF_EVENT_IOC_ENABLE tells; a new event works.
type watchdog struct {
	period time.Duration
	// limit is the time without a fire after which an event is dead.
	limit time.Duration
	cpus  map[int]*cpuHealth
	gaps  Gaps
}

// Gaps is what events that stopped have cost.
type Gaps struct {
	Reopened uint64 // events opened again, or for CPUs that came online
	// Unsampled is the CPU time that was not sampled at most, over all CPUs.
	Unsampled time.Duration
	CPUs      int // that had a gap
	// LowestHz is the lowest frequency an event was opened with: less than
	// Frequency where kernel.perf_event_max_sample_rate was lowered meanwhile.
	LowestHz int
}

// cpuHealth is what the watchdog knows of one CPU.
type cpuHealth struct {
	open  bool // has an event
	fired uint64
	clock time.Duration
	// quiet is the time since a check that saw the event fire, unsampled that and
	// what the last fires before do not account for.
	quiet, unsampled time.Duration
	gap              bool
}

// sighting is what is seen of one CPU that is online.
type sighting struct {
	fired uint64 // in all, since the program was loaded
	// clock is any clock that runs while the event should fire.
	clock time.Duration
}

// newWatchdog has an event dead that should have fired 20 times, but not before 2 s,
// as virtual CPUs do pause, and not after 8 s. The time a CPU works is short.
func newWatchdog(period time.Duration, event Event) *watchdog {
	least := 2 * time.Second
	if event == EventCycles {
		least = 500 * time.Millisecond
	}
	return &watchdog{
		period: period,
		limit:  min(max(20*period, least), 8*time.Second),
		cpus:   make(map[int]*cpuHealth),
	}
}

// check takes what is seen of the CPUs online and returns which events to close and
// then which to open, in order. A dead event is in both. away is the clock of CPUs
// that are offline, negative if it stands still then.
func (w *watchdog) check(seen map[int]sighting, away time.Duration) (toClose, toOpen []int) {
	for _, cpu := range slices.Sorted(maps.Keys(w.cpus)) {
		if _, online := seen[cpu]; online {
			continue
		}
		h := w.cpus[cpu]
		if h.open {
			toClose = append(toClose, cpu)
		}
		// The time a CPU is away is none that could be sampled.
		h.quiet, h.unsampled = 0, 0
		if away >= 0 {
			h.clock = away
		}
	}
	for _, cpu := range slices.Sorted(maps.Keys(seen)) {
		h, s := w.cpus[cpu], seen[cpu]
		if h == nil { // came online since the last check, and was never seen before
			w.cpus[cpu] = &cpuHealth{fired: s.fired, clock: s.clock}
			toOpen = append(toOpen, cpu)
			continue
		}
		h.look(s, w.period)
		switch {
		case !h.open:
			toOpen = append(toOpen, cpu)
		case h.quiet >= w.limit:
			toClose, toOpen = append(toClose, cpu), append(toOpen, cpu)
		}
	}
	return toClose, toOpen
}

func (h *cpuHealth) look(s sighting, period time.Duration) {
	fires := s.fired - h.fired
	elapsed := time.Duration(0)
	if h.clock >= 0 { // not the first look
		elapsed = max(s.clock-h.clock, 0)
	}
	h.fired, h.clock = s.fired, s.clock
	if fires > 0 {
		h.quiet = 0
		h.unsampled = max(elapsed-time.Duration(min(fires, uint64(elapsed/period)))*period, 0)
		return
	}
	h.quiet += elapsed
	h.unsampled += elapsed
}

// opened notes that a CPU has an event. first is that of Start.
func (w *watchdog) opened(cpu, hz int, first bool) {
	h := w.cpus[cpu]
	if h == nil {
		h = &cpuHealth{clock: -1}
		w.cpus[cpu] = h
	}
	if !first {
		w.gaps.Reopened++
		w.gaps.Unsampled += h.unsampled
		if !h.gap {
			h.gap = true
			w.gaps.CPUs++
		}
	}
	h.open, h.quiet, h.unsampled = true, 0, 0
	if w.gaps.LowestHz == 0 || hz < w.gaps.LowestHz {
		w.gaps.LowestHz = hz
	}
}

// closed notes that a CPU has no event any more.
func (w *watchdog) closed(cpu int) { w.cpus[cpu].open = false }

// total is the gaps so far, with those that have not ended.
func (w *watchdog) total() Gaps {
	g := w.gaps
	for _, h := range w.cpus {
		if h.unsampled > 0 && (!h.open || h.quiet >= 20*w.period) {
			g.Unsampled += h.unsampled
			if !h.gap {
				g.CPUs++
			}
		}
	}
	return g
}
