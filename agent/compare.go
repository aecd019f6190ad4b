// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"sync"

	"github.com/lowflame/lowflame/stack"
)

// comparer brings together what the BPF program and this process made of the same
// sample. Methods are safe for concurrent use.
type comparer struct {
	use func(bpf, walked *stack.Sample)

	mu          sync.Mutex // guards the maps; held while use runs
	bpf, walked map[twin]*stack.Sample
}

// twin is what two walks of one sample have in common.
type twin struct {
	pid  uint32
	time uint64
}

func newComparer(use func(bpf, walked *stack.Sample)) *comparer {
	return &comparer{use: use, bpf: make(map[twin]*stack.Sample), walked: make(map[twin]*stack.Sample)}
}

// addBPF takes samples that the program walked.
func (c *comparer) addBPF(samples []stack.Sample) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range samples {
		s := samples[i] // a copy: the other is resolved meanwhile
		key := twin{s.PID, s.Time}
		if other := c.walked[key]; other != nil {
			delete(c.walked, key)
			c.use(&s, other)
			continue
		}
		if s.Stop != stack.StopKthread {
			c.bpf[key] = &s
		}
	}
}

// addWalked takes a sample that was walked here.
func (c *comparer) addWalked(s *stack.Sample) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := twin{s.PID, s.Time}
	if other := c.bpf[key]; other != nil {
		delete(c.bpf, key)
		c.use(other, s)
		return
	}
	c.walked[key] = s
}
