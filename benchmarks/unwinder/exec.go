// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/agent"
	"github.com/lowflame/lowflame/benchmarks/measure"
	"github.com/lowflame/lowflame/process"
)

const (
	execCount = 250 // programs executed in a run
	execHz    = 199
	execMS    = "20" // CPU time each uses, so that it is alive when it can be walked
)

// measureExec measures how long after execve(2) the BPF program has the tables of all
// that a program has mapped, for a program whose files are known.
func measureExec(ctx context.Context, b *bench) error {
	child, err := buildC(ctx, youngSources, "testdata/young/child.c", filepath.Join(b.dir, "young"))
	if err != nil {
		return err
	}
	// What is known of root's files counts for every process; a user's file might be
	// another one that claims to be the same.
	const nobody = 65534
	for _, owner := range []int{0, nobody} {
		if err := os.Chown(child, owner, owner); err != nil {
			return err
		}
		for _, busy := range []int{0, 1} {
			if err := b.execUnder(ctx, child, owner, busy); err != nil {
				return err
			}
		}
	}
	return nil
}

// execUnder measures a program of the given user's, beside so many processes that
// keep a CPU busy.
func (b *bench) execUnder(ctx context.Context, child string, owner, busy int) error {
	stop, err := measure.Start(ctx, busy, child, "1000000000")
	if err != nil {
		return err
	}
	defer stop()
	quantiles := make(map[float64][]float64)
	for range b.runs {
		took, err := execRun(ctx, child)
		if err != nil {
			return err
		}
		slices.Sort(took)
		for _, q := range []float64{0.5, 0.9, 0.99} {
			quantiles[q] = append(quantiles[q], took[int(q*float64(len(took)-1))])
		}
	}
	name := fmt.Sprintf("file of user %d, %d CPUs busy", owner, busy)
	b.Demand(name+", p50", median(quantiles[0.5]), 5, false, "ms")
	for _, q := range []float64{0.9, 0.99} {
		b.Line("%-44s %12.3f ms", fmt.Sprintf("%s, p%g", name, 100*q), median(quantiles[q]))
	}
	return nil
}

// execRun returns for each of execCount programs the time from the kernel's record of
// the exec until its tables were usable, in milliseconds: infinite if it ended before.
func execRun(ctx context.Context, child string) ([]float64, error) {
	seen := published{at: make(map[uint32]uint64), began: make(map[uint32]uint64)}
	session, err := agent.Open(ctx, agent.Config{Frequency: execHz, Window: time.Second, Self: true, Published: seen.note})
	if err != nil {
		return nil, err
	}
	sampling, stop := context.WithCancel(ctx)
	defer stop()
	started, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- session.Run(sampling, func() { close(started) }, func(agent.Window) {}) }()
	select {
	case <-started:
	case err := <-ended:
		return nil, err
	}
	pids, err := execAll(ctx, child)
	stop()
	if runErr := <-ended; err == nil {
		err = runErr
	}
	if closeErr := session.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return nil, err
	}
	return seen.took(pids), nil
}

// execAll executes the program once to make its files known, and then execCount times
// at random moments.
func execAll(ctx context.Context, child string) (pids []uint32, err error) {
	for i := range execCount + 1 {
		ms := execMS
		if i == 0 {
			ms = "200"
		}
		cmd := exec.CommandContext(ctx, child, ms)
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("run %s: %w", child, err)
		}
		if i > 0 {
			pids = append(pids, uint32(cmd.Process.Pid))
		}
		time.Sleep(time.Duration(rand.Int64N(int64(20 * time.Millisecond))))
	}
	return pids, nil
}

// published remembers when processes were first walked with all of their tables.
type published struct {
	mu        sync.Mutex // guards what follows
	at, began map[uint32]uint64
}

// note is an agent.Config.Published.
func (s *published) note(p *process.Process, missing int) {
	// The C library is the last that the loader maps.
	whole := missing == 0 && slices.ContainsFunc(p.Mappings, func(m process.Mapping) bool {
		return path.Base(m.Path) == "libc.so.6"
	})
	if !whole {
		return
	}
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // cannot fail for this clock
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.began[p.PID] != p.Since { // of its parent, before the exec
		s.at[p.PID], s.began[p.PID] = uint64(now.Nano()), p.Since
	}
}

func (s *published) took(pids []uint32) []float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ms []float64
	for _, pid := range pids {
		at, ok := s.at[pid]
		if !ok {
			ms = append(ms, math.Inf(1))
			continue
		}
		ms = append(ms, float64(at-s.began[pid])/1e6)
	}
	return ms
}
