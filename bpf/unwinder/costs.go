// SPDX-License-Identifier: GPL-2.0

package unwinder

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// The histograms, enum unw_cost of abi.h.
const (
	costWalk = iota
	costFrame
	costSample
	costBaseline
	numCosts
)

const costBuckets = 4096

// Costs is what the program measured of itself since Open, with Config.Measure.
type Costs struct {
	// Walk is the time of walking a user stack, Frame the same by user frame.
	Walk, Frame Histogram
	// Sample is the time of a whole sample with a user stack: both stacks, the
	// count, and the frames' way to the ring if they are new.
	Sample Histogram
	// Baseline is the time of bpf_get_stack(BPF_F_USER_STACK), for the processes
	// given to AddBaseline.
	Baseline Histogram
}

// Histogram counts times.
type Histogram struct {
	N      uint64 // times
	SumNS  uint64
	Frames uint64 // user frames walked in these times
	// Buckets counts by time: bucket i the times from i*BucketNS ns on. The last
	// holds all that were longer, too.
	Buckets  []uint32
	BucketNS uint64
}

// Quantile is the time in ns that a share q of all were at most; 0 without any.
// It is as exact as a bucket is wide.
func (h *Histogram) Quantile(q float64) float64 {
	rank := uint64(q * float64(h.N))
	var below uint64
	for i, n := range h.Buckets {
		if n > 0 && below+uint64(n) > rank {
			within := (float64(rank-below) + 0.5) / float64(n)
			return (float64(i) + within) * float64(h.BucketNS)
		}
		below += uint64(n)
	}
	return 0
}

// Costs reads what the program measured. Config.Measure is set.
func (u *Unwinder) Costs() (Costs, error) {
	var c Costs
	for _, one := range []struct {
		which    uint32
		bucketNS uint64
		to       *Histogram
	}{
		{costWalk, 16, &c.Walk},
		{costFrame, 1, &c.Frame},
		{costSample, 16, &c.Sample},
		{costBaseline, 16, &c.Baseline},
	} {
		var perCPU []bpfUnwHistogram
		if err := u.objs.UnwCosts.Lookup(one.which, &perCPU); err != nil {
			return Costs{}, fmt.Errorf("read what samples cost: %w", err)
		}
		one.to.BucketNS = one.bucketNS
		one.to.Buckets = make([]uint32, costBuckets)
		for i := range perCPU {
			one.to.add(&perCPU[i])
		}
	}
	return c, nil
}

func (h *Histogram) add(o *bpfUnwHistogram) {
	h.N += o.N
	h.SumNS += o.Sum
	h.Frames += o.Frames
	for i, n := range o.Buckets {
		h.Buckets[i] += n
	}
}

// sizeCosts makes the map of costs one word a CPU unless it is used: 64 KiB.
func sizeCosts(m *ebpf.MapSpec, used bool) {
	if used {
		m.MaxEntries = numCosts
		return
	}
	// The program, with no way left to use it, does not mind.
	m.ValueSize, m.Key, m.Value = 8, nil, nil
}
