// SPDX-License-Identifier: Apache-2.0

// Overhead measures what a recording of the whole machine costs while all CPUs
// are busy and a hundred idle processes are there: CPU time, memory, memory of
// BPF maps, and the time until sampling begins.
//
//	go run ./benchmarks/overhead [-load burn|gobuild] [-d 10s] [-F 199]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"time"

	"github.com/lowflame/lowflame/benchmarks/accuracy"
	"github.com/lowflame/lowflame/benchmarks/measure"
	"github.com/lowflame/lowflame/benchmarks/workloads"
	"github.com/lowflame/lowflame/pprofexport"
)

func main() {
	load := flag.String("load", "burn", "what keeps the CPUs busy: burn (a program per CPU, stacks of 50 frames) or gobuild")
	duration := flag.Duration("d", 10*time.Second, "length of the recording")
	hz := flag.Int("F", 199, "samples a second and CPU")
	idle := flag.Int("idle", 100, "idle processes")
	results := flag.String("results", "benchmarks/results", "directory for the result")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	b := benchmark{load: *load, duration: *duration, hz: *hz, idle: *idle}
	if err := b.run(ctx, *results); err != nil {
		fmt.Fprintln(os.Stderr, "overhead:", err)
		os.Exit(1)
	}
}

type benchmark struct {
	load     string
	duration time.Duration
	hz, idle int
}

func (b *benchmark) run(ctx context.Context, results string) error {
	if err := measure.NeedRoot(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "lowflame-overhead-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	lowflame, err := measure.Build(ctx, dir)
	if err != nil {
		return err
	}
	stop, err := b.startLoad(ctx, dir)
	if err != nil {
		return err
	}
	defer stop()
	undo, err := measure.CountRuns()
	if err != nil {
		return err
	}
	defer undo()

	report := &measure.Report{Out: os.Stdout}
	report.Line("overhead: record -a -F %d -d %v, load %s, %d idle processes", b.hz, b.duration, b.load, b.idle)
	report.Machine()
	run, err := measure.Record(ctx, lowflame, "-a", "-F", fmt.Sprint(b.hz), "-d", b.duration.String())
	if err != nil {
		return err
	}
	report.Line("quality  %s", pprofexport.Comment(run.Profile, "quality"))
	report.Cost(run)
	// Under full load every CPU fires within a period of the beginning.
	begin := time.Unix(0, run.Profile.TimeNanos).Sub(run.Started) + time.Second/time.Duration(b.hz)
	report.Demand("time until the first sample", begin.Seconds(), 1, false, "s")
	for _, problem := range accuracy.ReadAccounting(run.Profile).Check(run.Profile) {
		report.Problem(problem)
	}
	return report.Save(results, "overhead-"+b.load+".txt")
}

// startLoad starts the idle and the busy processes and gives them a moment.
func (b *benchmark) startLoad(ctx context.Context, dir string) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	stopIdle, err := measure.Start(ctx, b.idle, "sleep", "1000")
	if err != nil {
		cancel()
		return nil, err
	}
	stopBusy, err := b.startBusy(ctx, dir)
	if err != nil {
		cancel()
		stopIdle()
		return nil, err
	}
	time.Sleep(time.Second)
	return func() {
		cancel()
		stopBusy()
		stopIdle()
	}, nil
}

func (b *benchmark) startBusy(ctx context.Context, dir string) (stop func(), err error) {
	switch b.load {
	case "burn":
		program, err := burner(ctx, dir)
		if err != nil {
			return nil, err
		}
		return measure.Start(ctx, runtime.NumCPU(), program.Command(1000)...)
	case "gobuild":
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if _, err := measure.GoBuild(ctx, "std"); err != nil {
				fmt.Fprintln(os.Stderr, "overhead:", err)
			}
		}()
		return func() { <-ended }, nil
	}
	return nil, fmt.Errorf("no load %q: burn or gobuild", b.load)
}

func burner(ctx context.Context, dir string) (workloads.Program, error) {
	tools := workloads.Native()
	src, err := workloads.Extract(dir)
	if err != nil {
		return workloads.Program{}, err
	}
	for _, w := range workloads.All(tools) {
		if w.Name == "recursion-50" {
			return w.BuildIn(ctx, tools, src, dir)
		}
	}
	return workloads.Program{}, fmt.Errorf("no workload recursion-50")
}
