// SPDX-License-Identifier: Apache-2.0

// Package accuracy judges recordings of programs whose truth is known: whether
// stacks are whole, the expected stacks are there, and time is where it was spent.
package accuracy

import (
	"slices"
	"strings"
	"time"

	"github.com/google/pprof/profile"

	"github.com/lowflame/lowflame/benchmarks/workloads"
)

// Sample is a stack and how often it was caught.
type Sample struct {
	Frames []workloads.Frame // root first, inlined functions as frames of their own
	Count  int64
	// Truncated is why frames at the root are missing, "" if none are.
	Truncated    string
	Comm, Thread string
}

// Recording is what a profiler saw of one process.
type Recording struct {
	Samples []Sample
	Period  time.Duration // CPU time one count stands for
}

// kernelBase is the lowest kernel address on amd64 and arm64.
const kernelBase = 1 << 63

// FromProfile returns what p says about the process pid; all processes if pid is
// 0. p must be valid and have samples/count as first sample type.
func FromProfile(p *profile.Profile, pid int) Recording {
	rec := Recording{Period: time.Duration(p.Period)}
	for _, s := range p.Sample {
		if pid != 0 && !slices.Contains(s.NumLabel["pid"], int64(pid)) {
			continue
		}
		sample := Sample{Count: s.Value[0], Comm: first(s.Label["comm"]), Thread: first(s.Label["thread"])}
		for _, l := range slices.Backward(s.Location) {
			frames := framesOf(l)
			if reason, ok := strings.CutPrefix(frames[0].Function, "[truncated: "); ok {
				sample.Truncated = strings.TrimSuffix(reason, "]")
			}
			sample.Frames = append(sample.Frames, frames...)
		}
		rec.Samples = append(rec.Samples, sample)
	}
	return rec
}

// framesOf returns the functions at l, the outermost first; at least one frame.
func framesOf(l *profile.Location) []workloads.Frame {
	f := workloads.Frame{Kernel: l.Address >= kernelBase}
	if l.Mapping != nil {
		f.Binary = l.Mapping.File
	}
	if f.Binary == "[lowflame]" { // a made-up frame, whose address means nothing
		f.Kernel = false
	}
	if len(l.Line) == 0 {
		return []workloads.Frame{f}
	}
	var frames []workloads.Frame
	for _, line := range slices.Backward(l.Line) {
		if line.Function != nil {
			f.Function = line.Function.Name
		}
		frames = append(frames, f)
	}
	return frames
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// Total returns the number of samples.
func (r *Recording) Total() int64 {
	var n int64
	for _, s := range r.Samples {
		n += s.Count
	}
	return n
}

// user reports whether s caught the process in user mode or in a system call, so
// that it has a user stack to walk.
func (s *Sample) user() bool {
	return s.Truncated != "" || slices.ContainsFunc(s.Frames, func(f workloads.Frame) bool { return !f.Kernel })
}

// leaf returns the name of the innermost user function.
func (s *Sample) leaf() string {
	for _, f := range slices.Backward(s.Frames) {
		if !f.Kernel {
			return workloads.PlainName(f.Function)
		}
	}
	return ""
}

func (s *Sample) contains(function string) bool {
	return slices.ContainsFunc(s.Frames, func(f workloads.Frame) bool {
		return workloads.PlainName(f.Function) == function
	})
}

// counts reports whether s is one of the samples t is about.
func (s *Sample) counts(t *workloads.Truth) bool {
	if t.Under {
		return s.contains(t.Function)
	}
	return s.leaf() == t.Function
}
