// SPDX-License-Identifier: Apache-2.0

// Unwinder measures the unwinder: what a sample costs, how large and how complete
// its tables are, and how soon a process can be walked. Every number is the median
// of several runs.
//
//	go run ./benchmarks/unwinder [-only cost,tables] [-runs 3]
//
// Needs root and a machine that does nothing else.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"

	"github.com/lowflame/lowflame/benchmarks/measure"
)

// section is a group of numbers that are measured together and kept in a file.
type section struct {
	name, about string
	run         func(context.Context, *bench) error
}

func sections() []section {
	return []section{
		{"cost", "what a sample costs, timed in the BPF program", measureCost},
		{"load", "what the kernel does to accept the BPF program", measureLoad},
		{"tables", "how large, complete and right unwind tables are, and how fast they are made", measureTables},
		{"start", "beginning to sample, 100 idle processes and all CPUs busy", measureStart},
		{"exec", "from execve to tables in BPF", measureExec},
		{"young", "what arrives of processes that live briefly", measureYoung},
	}
}

// bench is what every section measures with.
type bench struct {
	*measure.Report
	dir  string // for programs built and files written, removed at the end
	runs int    // of each measurement
}

func main() {
	only := flag.String("only", "", "sections to measure, separated by commas: "+strings.Join(names(), ", "))
	runs := flag.Int("runs", 3, "runs of each measurement; the median counts")
	results := flag.String("results", "benchmarks/results", "directory for the results")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	if err := run(ctx, *only, *runs, *results); err != nil {
		fmt.Fprintln(os.Stderr, "unwinder:", err)
		os.Exit(1)
	}
}

func names() []string {
	var names []string
	for _, s := range sections() {
		names = append(names, s.name)
	}
	return names
}

func run(ctx context.Context, only string, runs int, results string) error {
	if err := measure.NeedRoot(); err != nil {
		return err
	}
	chosen := names()
	if only != "" {
		chosen = strings.Split(only, ",")
	}
	for _, name := range chosen {
		if !slices.Contains(names(), name) {
			return fmt.Errorf("-only %s: there are %s", name, strings.Join(names(), ", "))
		}
	}
	var errs []error
	for _, s := range sections() {
		if slices.Contains(chosen, s.name) {
			errs = append(errs, measureSection(ctx, s, runs, results))
		}
	}
	return errors.Join(errs...)
}

func measureSection(ctx context.Context, s section, runs int, results string) error {
	dir, err := os.MkdirTemp("", "lowflame-unwinder-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{Report: &measure.Report{Out: os.Stdout}, dir: dir, runs: max(runs, 1)}
	b.Line("%s: %s; medians of %d runs", s.name, s.about, b.runs)
	b.Machine()
	if err := s.run(ctx, b); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	b.Line("")
	if err := b.Save(results, "unwinder-"+s.name+".txt"); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	return nil
}

// median returns the middle of values, which it sorts: of an even number the
// lower of the two.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[(len(values)-1)/2]
}
