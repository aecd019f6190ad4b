// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/go-kit/log/level"

	"github.com/lowflame/lowflame/bpf/unwinder"
	"github.com/lowflame/lowflame/stack"
)

// rawCounts follows raw samples from the kernel to the window they end in.
type rawCounts struct {
	// taken counts those handed over by the kernel, done those walked.
	taken, done atomic.Uint64
	// fired is how many the BPF program sent in the windows drained. Those it walked,
	// too, are in none of what follows: they are no samples of their own.
	fired uint64

	mu        sync.Mutex // guards what follows
	walked    []stack.Sample
	queued    uint64 // taken
	delivered uint64 // by take
}

// take returns what was walked since the last call.
func (c *rawCounts) take() []stack.Sample {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.walked
	c.walked = nil
	c.delivered += uint64(len(w))
	return w
}

// takeLast is take for the last time: it also returns how many there are that will
// not be delivered. flushed says that the kernel has none left.
func (c *rawCounts) takeLast(flushed bool) (walked []stack.Sample, lost uint64) {
	walked = c.take()
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.queued
	if !flushed {
		all = max(all, c.fired)
	}
	return walked, all - c.delivered
}

// queueRaw hands a raw sample to the event loop. It blocks when the loop is
// behind: the kernel's ring holds the rest, and what does not fit there is
// counted with its stop instead.
func (s *Session) queueRaw(ctx context.Context, r *unwinder.RawSample) {
	s.raws.taken.Add(1)
	if !r.Walked {
		s.raws.mu.Lock()
		s.raws.queued++
		s.raws.mu.Unlock()
	}
	select {
	case s.raw <- r:
		s.sideband.Wake()
	case <-ctx.Done():
	}
}

// walkDone passes a raw sample on, walked.
func (s *Session) walkDone(r *unwinder.RawSample, sample *stack.Sample) {
	if r.Walked {
		s.comparer.addWalked(sample)
	} else {
		s.raws.mu.Lock()
		s.raws.walked = append(s.raws.walked, *sample)
		s.raws.mu.Unlock()
	}
	s.raws.done.Add(1)
}

// drainRaw waits for the raw samples still under way, but not for ever: what is not
// walked by then counts as lost.
func (s *Session) drainRaw(ctx context.Context, use func(Window)) error {
	// The kernel is not rid of them while the event loop takes none.
	limited, cancel := context.WithTimeout(ctx, awaitLimit)
	defer cancel()
	err := s.unwinder.FlushRaw(limited)
	if err != nil && (!errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil) {
		return err
	}
	s.await(ctx, func() bool { return s.raws.done.Load() == s.raws.taken.Load() })
	walked, lost := s.raws.takeLast(err == nil)
	if lost > 0 {
		level.Warn(s.cfg.Logger).Log("msg", "samples are lost: they were not walked in time", "samples", lost)
	}
	s.emit(walked, Window{NotWalked: lost}, use)
	return nil
}
