// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/go-kit/log/level"
	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/pprofexport"
)

// restarted holds the CPUs whose process events are to be watched afresh. Only the
// event loop may do that.
type restarted struct {
	mu   sync.Mutex // guards what follows
	cpus []int
	// failed is the last error logged: what does not get better is logged once.
	failed string
}

func (r *restarted) take() []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	cpus := r.cpus
	r.cpus = nil
	return cpus
}

// watchEvery is how often is looked for CPUs that are not sampled any more. A window
// is no measure: it may have to wait for the event loop.
const watchEvery = time.Second

func (s *Session) runWatch(ctx context.Context) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.watch()
		case <-ctx.Done():
			return nil
		}
	}
}

// watch restarts the sampling of CPUs where it has stopped. What else watches such
// a CPU has stopped too, or is as well restarted.
func (s *Session) watch() {
	cpus, err := s.unwinder.Watch(time.Now())
	s.restarted.mu.Lock()
	s.restarted.cpus = append(s.restarted.cpus, cpus...)
	said := s.restarted.failed
	s.restarted.failed = ""
	if err != nil {
		s.restarted.failed = err.Error()
	}
	s.restarted.mu.Unlock()
	if err != nil && err.Error() != said {
		level.Warn(s.cfg.Logger).Log("msg", "a CPU is not sampled now", "err", err)
	}
	for _, cpu := range cpus {
		level.Info(s.cfg.Logger).Log("msg", "sampling of a CPU was restarted", "cpu", cpu)
	}
	if len(cpus) > 0 {
		s.sideband.Wake()
	}
}

// reopen watches the processes on restarted CPUs afresh. It reports whether events
// may have been missed.
func (s *Session) reopen() bool {
	cpus := s.restarted.take()
	for _, cpu := range cpus {
		// A CPU that has gone offline again is restarted again when it is back.
		if err := s.sideband.Reopen(cpu); err != nil && !errors.Is(err, unix.ENODEV) {
			level.Warn(s.cfg.Logger).Log("msg", "processes of a CPU are not watched now", "cpu", cpu, "err", err)
		}
	}
	return len(cpus) > 0
}

// expected is how often the timers were to fire so far, 0 if that is not known.
func (s *Session) expected() uint64 {
	ns, err := s.unwinder.TimerNS()
	if err != nil {
		return 0
	}
	return uint64(float64(ns) * float64(s.Frequency()) / 1e9)
}

func (s *Session) gaps() pprofexport.Gaps {
	g := s.unwinder.Gaps()
	q := pprofexport.Gaps{Restarted: g.Reopened, CPUs: g.CPUs, Unsampled: g.Unsampled}
	if g.LowestHz < s.Frequency() {
		q.LowestHz = g.LowestHz
	}
	return q
}
