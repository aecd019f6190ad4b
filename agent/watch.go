// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	// again holds CPUs where that failed, for the next second; unwatched is the
	// last error logged of them.
	again     []int
	unwatched string
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

// retry has CPUs, if any, tried again in a second, and reports whether err is news.
func (r *restarted) retry(cpus []int, err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.again = append(r.again, cpus...)
	said := r.unwatched
	r.unwatched = ""
	if err != nil {
		r.unwatched = err.Error()
	}
	return err != nil && r.unwatched != said
}

// add has CPUs taken next, and those to be tried again. It reports whether there is
// any.
func (r *restarted) add(cpus []int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, cpu := range slices.Concat(cpus, r.again) {
		if !slices.Contains(r.cpus, cpu) {
			r.cpus = append(r.cpus, cpu)
		}
	}
	r.again = nil
	return len(r.cpus) > 0
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
	due := s.restarted.add(cpus)
	s.restarted.mu.Lock()
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
	if due {
		s.sideband.Wake()
	}
}

// reopen watches the processes on restarted CPUs afresh. It reports whether events
// may have been missed.
func (s *Session) reopen() bool {
	cpus := s.restarted.take()
	if len(cpus) == 0 {
		return false
	}
	var failed []int
	var errs []error
	for _, cpu := range cpus {
		// A CPU that has gone offline again is restarted again when it is back.
		if err := s.sideband.Reopen(cpu); err != nil && !errors.Is(err, unix.ENODEV) {
			failed, errs = append(failed, cpu), append(errs, err)
		}
	}
	if err := errors.Join(errs...); s.restarted.retry(failed, err) {
		level.Warn(s.cfg.Logger).Log("msg", "processes of a CPU are not watched now", "cpus", fmt.Sprint(failed), "err", err)
	}
	return true
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
