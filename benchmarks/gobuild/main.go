// SPDX-License-Identifier: Apache-2.0

// Gobuild records the whole machine while Go builds its standard library again
// and again: hundreds of short processes, each new to the profiler. It prints how
// complete the stacks are, how many frames have names, whether every fire of the
// timers is accounted for, and what the recording cost.
//
//	go run ./benchmarks/gobuild [-packages std] [-d 30s] [-F 199]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/lowflame/lowflame/benchmarks/accuracy"
	"github.com/lowflame/lowflame/benchmarks/measure"
	"github.com/lowflame/lowflame/pprofexport"
)

// What the recording must reach, percent.
const (
	minComplete = 98
	minNamed    = 99 // of the frames in binaries that have symbols
)

func main() {
	packages := flag.String("packages", "std", "what to build")
	duration := flag.Duration("d", 30*time.Second, "length of the recording")
	hz := flag.Int("F", 199, "samples a second and CPU")
	results := flag.String("results", "benchmarks/results", "directory for the result")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	report := &measure.Report{Out: os.Stdout}
	report.Line("gobuild: record -a -F %d -d %v during go build -a %s", *hz, *duration, *packages)
	report.Machine()
	run, err := record(ctx, *packages, "-a", "-F", fmt.Sprint(*hz), "-d", duration.String())
	if err == nil {
		judge(report, run)
		err = report.Save(*results, "gobuild.txt")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gobuild:", err)
		os.Exit(1)
	}
}

func record(ctx context.Context, packages string, args ...string) (*measure.Run, error) {
	if err := measure.NeedRoot(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "lowflame-gobuild-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	lowflame, err := measure.Build(ctx, dir)
	if err != nil {
		return nil, err
	}
	undo, err := measure.CountRuns()
	if err != nil {
		return nil, err
	}
	defer undo()

	building, stop := context.WithCancel(ctx)
	built := make(chan error, 1)
	go func() {
		_, err := measure.GoBuild(building, packages)
		built <- err
	}()
	run, err := measure.Record(ctx, lowflame, args...)
	stop()
	if buildErr := <-built; err == nil {
		err = buildErr
	}
	return run, err
}

func judge(report *measure.Report, run *measure.Run) {
	p := run.Profile
	report.Line("quality  %s", pprofexport.Comment(p, "quality"))
	for _, key := range []string{"fires", "stops", "drops", "frames"} {
		report.Line("%-8s %s", key, pprofexport.Comment(p, key))
	}
	for _, problem := range accuracy.CheckProfile(p) {
		report.Problem(problem)
	}
	for _, problem := range accuracy.ReadAccounting(p).Check(p) {
		report.Problem(problem)
	}
	complete, truncated := completeness(p)
	report.Demand("complete stacks", complete, minComplete, true, "%")
	report.Line("most frequent incomplete stacks:%s", accuracy.Top(truncated, 10))
	judgeNames(report, p)
	report.Cost(run)
}
