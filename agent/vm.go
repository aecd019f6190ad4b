// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"path"
	"time"

	"github.com/lowflame/lowflame/bpf/unwinder"
	"github.com/lowflame/lowflame/interp/hotspot"
	"github.com/lowflame/lowflame/process"
	"github.com/lowflame/lowflame/unwind"
)

// vm is the virtual machine that writes the code one image of a process runs. The
// event loop owns it, but for the machine while busy is set.
type vm struct {
	proc    *process.Process
	symbols hotspot.Symbols
	bias    uint64
	machine *machine

	// failed: its code is not understood, and walked as any other code in memory; or
	// not at all, once it is known that RBP is not a frame pointer in it. late: as
	// long as a job has not ended. stale until that is published.
	failed, late, stale bool
	errors              int       // in a row
	rows                int       // that machine keeps
	ended               time.Time // of the process; zero while it runs
	// ranges are the memory its code is in, chunks the tables of it, by address;
	// both nil before they have been read.
	ranges []hotspot.Range
	chunks map[uint64]*vmChunk

	busy     bool                  // a job is under way
	began    time.Time             // when the last one was queued
	covers   uint64                // began, as CLOCK_MONOTONIC ns: what samples from before show will be read
	next     time.Time             // when the next one may
	used     bool                  // it has been sampled since
	pause    time.Duration         // before next
	waiting  []*unwinder.RawSample // for the job to end
	since    time.Time             // that the first of them has been waiting
	unsolved int                   // samples that the last reading did not help
	settled  bool                  // no more of them come, until the next reading
}

// vmChunk is a piece of a virtual machine's code; table is nil if there is none.
type vmChunk struct {
	begin, end uint64
	table      *unwinder.InstalledTable
}

// isLibjvm reports whether a mapping may be of the library that a Java virtual
// machine is in; its symbols tell.
func isLibjvm(m *process.Mapping) bool {
	return m.Kind == process.KindFile && path.Base(m.Path) == "libjvm.so"
}

// given reports whether the code is given up, for now or for good.
func (v *vm) given() bool { return v.failed || v.late }

// chunkAt returns the piece of code memory that holds pc, clipped to what may be
// walked alike; false if pc is not in the virtual machine's code memory.
func (v *vm) chunkAt(pc uint64) (vmChunk, bool) {
	for _, r := range v.ranges {
		if pc < r.Begin || pc >= r.End {
			continue
		}
		begin := pc &^ (hotspot.ChunkBytes - 1)
		c := vmChunk{begin: max(begin, r.Begin), end: min(begin+hotspot.ChunkBytes, r.End)}
		if known := v.chunks[begin]; known != nil {
			c.table = known.table
		}
		return c, true
	}
	return vmChunk{}, false
}

// code is unwind.Space.At for a pc in a mapping without a file.
func (v *vm) code(m *process.Mapping, pc uint64) unwind.Code {
	code := unwind.Code{Begin: uint64(m.Begin), End: uint64(m.End)}
	switch {
	case v.given():
		if code.FPWalk = v.chunks == nil; !code.FPWalk {
			code.Table = new(unwind.Table) // no rule for any address
		}
		return code
	case v.chunks == nil:
		return code // no table yet
	}
	c, ok := v.chunkAt(pc)
	if !ok {
		// Between the ranges; walked one at a time.
		return unwind.Code{Begin: pc, End: pc + 1, FPWalk: true}
	}
	code.Begin, code.End = max(code.Begin, c.begin), min(code.End, c.end)
	code.Table = new(unwind.Table) // no rule for any address
	if c.table != nil {
		code.Table = c.table.Table
	}
	return code
}

// mappings appends what a mapping without a file is for the BPF program.
func (v *vm) mappings(out []unwinder.Mapping, m *process.Mapping) []unwinder.Mapping {
	at, end := uint64(m.Begin), uint64(m.End)
	whole := unwinder.Mapping{Begin: at, End: end, Kind: unwinder.MapFP}
	switch {
	case v.given():
		if v.chunks != nil {
			whole.Kind = unwinder.MapNoRule
		}
		return append(out, whole)
	case v.chunks == nil:
		whole.Kind = unwinder.MapMissing
		return append(out, whole)
	}
	for _, r := range v.ranges {
		if r.End <= at || r.Begin >= end {
			continue
		}
		if at < r.Begin {
			out = append(out, unwinder.Mapping{Begin: at, End: r.Begin, Kind: unwinder.MapFP})
			at = r.Begin
		}
		for at < min(r.End, end) {
			c, _ := v.chunkAt(at)
			one := unwinder.Mapping{Begin: at, End: min(c.end, end), Kind: unwinder.MapNoRule}
			if c.table != nil {
				one.Kind, one.Table = unwinder.MapTable, c.table
			}
			out = appendAlike(out, one)
			at = one.End
		}
	}
	if at < end {
		out = append(out, unwinder.Mapping{Begin: at, End: end, Kind: unwinder.MapFP})
	}
	return out
}

// appendAlike appends a mapping, joined with the last one if neither has rules: of
// memory that code has been made room for most is empty.
func appendAlike(out []unwinder.Mapping, m unwinder.Mapping) []unwinder.Mapping {
	if n := len(out); n > 0 && m.Kind == unwinder.MapNoRule && out[n-1].Kind == m.Kind && out[n-1].End == m.Begin {
		out[n-1].End = m.End
		return out
	}
	return append(out, m)
}
