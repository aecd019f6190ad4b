// SPDX-License-Identifier: Apache-2.0

package pprofexport

import (
	"fmt"
	"math"
	"math/bits"
	"strings"
	"time"

	"github.com/lowflame/lowflame/stack"
)

// Quality says how far a profile can be trusted and what it cost. The fields
// up to Gaps are measured by whoever takes the samples; Builder counts
// the rest.
type Quality struct {
	Duration time.Duration // wall time samples were taken for
	// Expected is how often sampling timers were to fire, 0 where nobody knows. A
	// CPU that a hypervisor takes away, or that keeps interrupts off, misses some.
	Expected uint64
	// Fired is how often sampling timers fired, Filtered how many of these hit
	// something that was not to be profiled. Drops counts samples that were to
	// be delivered and were not, by reason. Fired = samples + Filtered + Drops.
	Fired, Filtered uint64
	Drops           map[string]uint64
	CPU             time.Duration // CPU time lowflame and its BPF program used
	MemoryBytes     uint64        // largest resident memory of lowflame
	Gaps            Gaps

	Stops  [stack.NumStops]uint64 // samples by the reason their walk ended
	Frames uint64                 // frames, each as often as it was sampled
	Named  uint64                 // frames of these with at least one name
}

// Gaps is what timers that stopped have cost: those of CPUs that went offline and
// came back, and those that a fault in the kernel stopped.
type Gaps struct {
	Restarted uint64 // timers, also those of CPUs that came online
	CPUs      int    // that had a gap
	// Unsampled is the CPU time, idle or not, that was not sampled at most.
	Unsampled time.Duration
	// LowestHz is the lowest rate of a timer if that was lower than those of the
	// others, as when kernel.perf_event_max_sample_rate was lowered; else 0.
	// Samples of that CPU stand for more time than the profile says.
	LowestHz int
}

// Samples returns how many samples the profile holds.
func (q *Quality) Samples() uint64 {
	var n uint64
	for _, c := range q.Stops {
		n += c
	}
	return n
}

// Complete returns how many samples have a stack of which nothing is missing.
func (q *Quality) Complete() uint64 {
	var n uint64
	for s, c := range q.Stops {
		if stack.Stop(s).Complete() {
			n += c
		}
	}
	return n
}

// Dropped returns the sum of Drops.
func (q *Quality) Dropped() uint64 {
	var n uint64
	for _, c := range q.Drops {
		n += c
	}
	return n
}

// Unaccounted returns fires that are neither samples, filtered nor dropped. It
// is 0 when the accounting is right, and when Fired is not known.
func (q *Quality) Unaccounted() int64 {
	if q.Fired == 0 {
		return 0
	}
	return int64(q.Fired - q.Samples() - q.Filtered - q.Dropped())
}

// Lost returns how many samples are missing from the profile: Dropped, and
// whatever is unaccounted for.
func (q *Quality) Lost() uint64 {
	return q.Dropped() + uint64(max(0, q.Unaccounted()))
}

// String returns the quality line:
//
//	10.0 s · 2031 samples · 99.2 % complete stacks · 0 lost · 96.8 % symbolized · lowflame used 0.4 % of one CPU, 48 MiB
//
// "complete stacks" is the share of samples whose walk reached the outermost
// frame; "lost" is [Quality.Lost]; "symbolized" is the share of frames with a
// name, where a frame sampled twice counts twice and the functions inlined into
// a frame do not count. Both shares are rounded down, so that 100.0 % means all.
// The cost is rounded up: CPU time by wall time, and peak resident memory.
// Without samples there are no shares, and an unknown cost is left out. If timers
// had stopped, "up to 2.5 s of a CPU not sampled" follows "lost": [Gaps.Unsampled].
func (q *Quality) String() string {
	parts := []string{
		fmt.Sprintf("%.1f s", q.Duration.Seconds()),
		fmt.Sprintf("%d samples", q.Samples()),
	}
	if n := q.Samples(); n > 0 {
		parts = append(parts, percent(q.Complete(), n)+" complete stacks")
	}
	parts = append(parts, fmt.Sprintf("%d lost", q.Lost()))
	if q.Gaps.Unsampled > 0 {
		tenths := math.Ceil(10 * q.Gaps.Unsampled.Seconds())
		parts = append(parts, fmt.Sprintf("up to %.1f s of a CPU not sampled", tenths/10))
	}
	if q.Frames > 0 {
		parts = append(parts, percent(q.Named, q.Frames)+" symbolized")
	}
	var cost []string
	if q.CPU > 0 && q.Duration > 0 {
		tenths := math.Ceil(1000 * float64(q.CPU) / float64(q.Duration))
		cost = append(cost, fmt.Sprintf("%.1f %% of one CPU", tenths/10))
	}
	if q.MemoryBytes > 0 {
		cost = append(cost, fmt.Sprintf("%d MiB", (q.MemoryBytes-1)>>20+1))
	}
	if len(cost) > 0 {
		parts = append(parts, "lowflame used "+strings.Join(cost, ", "))
	}
	return strings.Join(parts, " · ")
}

// percent returns part of whole, rounded down to a tenth of a percent.
func percent(part, whole uint64) string {
	hi, lo := bits.Mul64(min(part, whole), 1000)
	tenths, _ := bits.Div64(hi%whole, lo, whole)
	return fmt.Sprintf("%d.%d %%", tenths/10, tenths%10)
}
