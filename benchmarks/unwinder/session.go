// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/lowflame/lowflame/agent"
	"github.com/lowflame/lowflame/bpf/unwinder"
	"github.com/lowflame/lowflame/stack"
)

// sampled is what a session saw of programs that were started under it.
type sampled struct {
	costs        unwinder.Costs
	user         int64             // samples with a user stack
	complete     int64             // of those, walked to the outermost frame
	instructions map[string]uint32 // that the verifier walked, by program
	load, open   time.Duration     // to load the program; with learning what runs
}

// sampleRunning samples programs, which it starts, until they end. The kernel walks
// the one at index baseline for comparison, if that is not negative.
func (b *bench) sampleRunning(ctx context.Context, cfg agent.Config, baseline int, commands ...[]string) (*sampled, error) {
	var waits []func() error
	for i, command := range commands {
		cmd, wait, err := b.start(ctx, command)
		if err != nil {
			return nil, err
		}
		waits = append(waits, wait)
		if i == baseline {
			cfg.Baseline = append(cfg.Baseline, uint32(cmd.Process.Pid))
		} else {
			cfg.PIDs = append(cfg.PIDs, uint32(cmd.Process.Pid))
		}
	}
	return b.sample(ctx, cfg, nil, func() error {
		var errs []error
		for _, wait := range waits {
			errs = append(errs, wait())
		}
		return errors.Join(errs...)
	})
}

// sampleWhole samples a program from its first instruction to its last. Tables of the
// files in known are made before.
func (b *bench) sampleWhole(ctx context.Context, cfg agent.Config, known []string, command ...string) (*sampled, error) {
	cfg.PIDs, cfg.Follow = []uint32{uint32(os.Getpid())}, true
	return b.sample(ctx, cfg, known, func() error {
		_, wait, err := b.start(ctx, command)
		if err != nil {
			return err
		}
		return wait()
	})
}

// sample runs a session until done returns.
func (b *bench) sample(ctx context.Context, cfg agent.Config, known []string, done func() error) (*sampled, error) {
	cfg.Window = time.Second
	began := time.Now()
	session, err := agent.Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	s := &sampled{load: session.LoadTime(), open: time.Since(began), instructions: session.VerifiedInstructions()}
	for _, path := range known {
		session.Preload(path)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	err = session.Run(ctx, func() {
		go func() {
			defer cancel()
			ended <- done()
		}()
	}, s.count)
	cancel()
	if err == nil {
		err = <-ended
	}
	if err == nil && cfg.Measure {
		s.costs, err = session.Costs()
	}
	return s, errors.Join(err, session.Close())
}

// count counts the samples of a window that have a user stack.
func (s *sampled) count(w agent.Window) {
	for i := range w.Samples {
		one := &w.Samples[i]
		if one.Stop == stack.StopKthread || one.Stop == stack.StopExec {
			continue
		}
		s.user += one.Count
		if one.Stop.Complete() {
			s.complete += one.Count
		}
	}
}

// start starts a command in the section's directory and returns how to wait for it.
func (b *bench) start(ctx context.Context, command []string) (*exec.Cmd, func() error, error) {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = b.dir
	out := &output{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("start %s: %w", command[0], err)
	}
	return cmd, func() error {
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("%v: %w\n%s", command, err, out.text)
		}
		return nil
	}, nil
}

// output keeps the end of what a command prints.
type output struct{ text []byte }

func (o *output) Write(p []byte) (int, error) {
	o.text = append(o.text, p...)
	o.text = o.text[max(0, len(o.text)-4096):]
	return len(p), nil
}
