// SPDX-License-Identifier: Apache-2.0

package accuracy

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/lowflame/lowflame/benchmarks/workloads"
)

// What a recording must reach. A count of samples of a share p in n has a
// standard error of at most sqrt(p(1-p)/n), 1.2 points for 1500 samples, and much
// less here, where a unit of work lasts several sampling periods.
const (
	MinComplete = 0.995 // of the samples with a user stack
	MaxShareOff = 0.03  // measured share of a function against the truth
	MinOnChain  = 0.99  // of a function's samples have exactly the expected stack
	MinPresent  = 0.005 // of all samples have each further expected stack
	// Samples × period against the CPU time used: a hypervisor that takes the CPU
	// away makes the one longer and not the other.
	MaxCountOff = 0.20
)

// Result is what [Check] found.
type Result struct {
	Samples  int64
	User     int64   // samples with a user stack
	Complete float64 // share of User
	Stopped  int64   // of User: cut off, for a reason that is right
	Wrong    int64   // stacks that contradict the truth
	Shares   []Share
	// Problems are sentences, one per expectation that was not met.
	Problems []string
}

// Share compares one truth with the recording.
type Share struct {
	Function       string
	Truth, Measure float64
	OnChain        float64 // share of the function's samples with the expected stack
}

// String returns the numbers in one line.
func (r *Result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d samples, %.2f %% complete, %d wrong", r.Samples, 100*r.Complete, r.Wrong)
	if r.Stopped > 0 {
		fmt.Fprintf(&b, ", %d cut off where they have to be", r.Stopped)
	}
	for _, s := range r.Shares {
		fmt.Fprintf(&b, "; %s %.2f %% (truth %.2f %%), %.2f %% on its stack",
			s.Function, 100*s.Measure, 100*s.Truth, 100*s.OnChain)
	}
	return b.String()
}

func (r *Result) problem(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

// Check compares a recording of a workload with what the workload says of itself.
// rec holds only samples of that process. Stacks may be cut off for the reasons in
// stops.
func Check(rec Recording, truth *workloads.Report, stops ...string) *Result {
	r := &Result{Samples: rec.Total()}
	if r.Samples == 0 {
		r.problem("no samples of process %d", truth.PID)
		return r
	}
	r.checkCount(rec, truth)
	r.checkComplete(rec, stops)
	r.checkWrong(rec, truth)
	for i := range truth.Truth {
		r.checkTruth(rec, &truth.Truth[i], stops)
	}
	for _, chain := range truth.Present {
		r.checkPresent(rec, chain)
	}
	return r
}

func (r *Result) checkCount(rec Recording, truth *workloads.Report) {
	sampled := float64(r.Samples) * float64(rec.Period)
	if off := sampled/float64(truth.CPUNS) - 1; math.Abs(off) > MaxCountOff {
		r.problem("%d samples of %v are %.3f s, the process used %.3f s (%+.1f %%)",
			r.Samples, rec.Period, sampled/1e9, float64(truth.CPUNS)/1e9, 100*off)
	}
}

func (r *Result) checkComplete(rec Recording, stops []string) {
	var truncated int64
	reasons := make(map[string]int64)
	for _, s := range rec.Samples {
		if !s.user() {
			continue
		}
		r.User += s.Count
		if slices.Contains(stops, s.Truncated) {
			r.Stopped += s.Count
		} else if s.Truncated != "" {
			truncated += s.Count
			reasons[s.Truncated+": "+Format(s.Frames)] += s.Count
		}
	}
	if r.User == 0 {
		r.problem("no sample has a user stack")
		return
	}
	r.Complete = 1 - float64(truncated)/float64(r.User)
	if r.Complete < MinComplete {
		r.problem("%.2f %% of %d user stacks complete, want %.1f %%%s",
			100*r.Complete, r.User, 100*MinComplete, Top(reasons, 5))
	}
}

func (r *Result) checkTruth(rec Recording, t *workloads.Truth, stops []string) {
	var counted, on int64
	others := make(map[string]int64)
	for _, s := range rec.Samples {
		if !s.counts(t) {
			continue
		}
		counted += s.Count
		if t.Chain.Match(s.Frames) || slices.Contains(stops, s.Truncated) && t.Chain.MatchTail(s.known()) {
			on += s.Count
		} else {
			others[Format(s.Frames)] += s.Count
		}
	}
	share := Share{Function: t.Function, Truth: t.Share, Measure: float64(counted) / float64(r.Samples), OnChain: 1}
	if math.Abs(share.Measure-share.Truth) > MaxShareOff {
		r.problem("%s has %.2f %% of the samples, the truth is %.2f %%%s",
			t.Function, 100*share.Measure, 100*share.Truth, Top(rec.leaves(), 8))
	}
	if counted > 0 {
		share.OnChain = float64(on) / float64(counted)
	}
	if share.OnChain < MinOnChain {
		r.problem("%.2f %% of the samples of %s have the stack %v, want %.0f %%%s",
			100*share.OnChain, t.Function, t.Chain, 100*MinOnChain, Top(others, 5))
	}
	r.Shares = append(r.Shares, share)
}

func (r *Result) checkPresent(rec Recording, chain workloads.Chain) {
	var n int64
	for _, s := range rec.Samples {
		if chain.Match(s.Frames) {
			n += s.Count
		}
	}
	if share := float64(n) / float64(r.Samples); share < MinPresent {
		r.problem("%.2f %% of the samples have the stack %v, want at least %.1f %%", 100*share, chain, 100*MinPresent)
	}
}

// leaves counts samples by their innermost user function.
func (r *Recording) leaves() map[string]int64 {
	n := make(map[string]int64)
	for _, s := range r.Samples {
		n["in "+s.leaf()] += s.Count
	}
	return n
}

// Format returns a stack in one line, root first; equal neighbours become one
// with a count.
func Format(frames []workloads.Frame) string {
	var parts []string
	for i := 0; i < len(frames); {
		n := 1
		for i+n < len(frames) && frames[i+n] == frames[i] {
			n++
		}
		name := frames[i].Function
		if name == "" {
			name = "?@" + frames[i].Binary
		}
		if n > 1 {
			name = fmt.Sprintf("%s*%d", name, n)
		}
		parts = append(parts, name)
		i += n
	}
	const most = 40
	if len(parts) > most {
		parts = slices.Concat(parts[:most/2], []string{fmt.Sprintf("(%d more)", len(parts)-most)}, parts[len(parts)-most/2:])
	}
	return strings.Join(parts, " → ")
}

// Top returns the n most frequent of counts, a line each, beginning with a line
// feed.
func Top(counts map[string]int64, n int) string {
	type entry struct {
		text  string
		count int64
	}
	var all []entry
	for text, count := range counts {
		all = append(all, entry{text, count})
	}
	slices.SortFunc(all, func(a, b entry) int {
		return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.text, b.text))
	})
	var b strings.Builder
	for _, e := range all[:min(n, len(all))] {
		fmt.Fprintf(&b, "\n\t%6d × %s", e.count, e.text)
	}
	return b.String()
}
