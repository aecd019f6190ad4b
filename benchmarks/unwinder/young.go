// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/pprof/profile"

	"github.com/lowflame/lowflame/benchmarks/accuracy"
	"github.com/lowflame/lowflame/benchmarks/measure"
)

//go:embed testdata/young
var youngSources embed.FS

// lifetimes are how long the processes of each class live, in milliseconds of CPU
// time since their fork, with the percentage of it that must arrive.
var lifetimes = []struct{ ms, percent int }{{5, 90}, {15, 95}, {50, 98}, {150, 99}}

const (
	youngHz = 999
	// youngCPU is the CPU time of all processes of a class together, in a run.
	youngCPU = 4 * time.Second
)

// youngPrograms are the compiled programs of this section.
type youngPrograms struct{ lowflame, driver, child string }

// measureYoung counts the samples of processes that live briefly.
func measureYoung(ctx context.Context, b *bench) error {
	programs, err := buildYoung(ctx, b.dir)
	if err != nil {
		return err
	}
	b.Line("share of the CPU time of processes, as wait4 says, for which samples at %d Hz with a named leaf arrived", youngHz)
	for _, mode := range []string{"whole machine", "command"} {
		for _, l := range lifetimes {
			if err := b.youngClass(ctx, programs, mode, l.ms, l.percent); err != nil {
				return err
			}
		}
	}
	return nil
}

func buildYoung(ctx context.Context, dir string) (p youngPrograms, err error) {
	if p.driver, err = buildC(ctx, youngSources, "testdata/young/driver.c", filepath.Join(dir, "driver")); err != nil {
		return p, err
	}
	if p.child, err = buildC(ctx, youngSources, "testdata/young/child.c", filepath.Join(dir, "young")); err != nil {
		return p, err
	}
	p.lowflame, err = measure.Build(ctx, dir)
	return p, err
}

// youngClass measures one lifetime in one mode.
func (b *bench) youngClass(ctx context.Context, p youngPrograms, mode string, ms, percent int) error {
	var shares, taken, named []float64
	var last youngCount
	for range b.runs {
		n, err := b.youngRun(ctx, p, mode, ms)
		if err != nil {
			return err
		}
		shares = append(shares, 100*n.share(n.named))
		taken = append(taken, 100*n.share(n.samples))
		named = append(named, 100*float64(n.named)/float64(max(n.samples, 1)))
		last = n
	}
	name := fmt.Sprintf("%s, %d ms", mode, ms)
	b.Demand(name+", of the CPU time", median(shares), float64(percent), true, "%")
	// CPU time that the host takes away is sampled, and not in what wait4 says: it
	// must not make up for samples that were lost.
	b.Demand(name+", of the samples", median(named), float64(percent), true, "%")
	b.Line("    samples for %.2f %% of the CPU time; last run: %d processes, %.3f s, %d samples, standard error %.2f points%s",
		median(taken), len(last.used), last.cpu().Seconds(), last.samples, 100*last.standardError(), accuracy.Top(last.missing, 4))
	return nil
}

func (b *bench) youngRun(ctx context.Context, p youngPrograms, mode string, ms int) (youngCount, error) {
	out := filepath.Join(b.dir, "children")
	driver := []string{p.driver, p.child, strconv.Itoa(ms), strconv.FormatInt(youngCPU.Milliseconds(), 10), out}
	rate := []string{"-F", strconv.Itoa(youngHz)}
	var run *measure.Run
	var err error
	var began time.Time
	if mode == "command" {
		run, err = measure.Record(ctx, p.lowflame, append(append(rate, "--"), driver...)...)
	} else {
		run, err = measure.RecordDuring(ctx, p.lowflame, func() error {
			began = time.Now()
			if msg, err := exec.CommandContext(ctx, driver[0], driver[1:]...).CombinedOutput(); err != nil {
				return fmt.Errorf("driver of young processes: %w\n%s", err, msg)
			}
			return nil
		}, append(rate, "-a")...)
	}
	if err != nil {
		return youngCount{}, err
	}
	if !began.IsZero() && began.UnixNano() < run.Profile.TimeNanos {
		return youngCount{}, errors.New("processes began before sampling did: is the machine busy?")
	}
	text, err := os.ReadFile(out)
	if err != nil {
		return youngCount{}, err
	}
	return countYoung(run.Profile, string(text))
}

// youngCount is what a profile has of some processes.
type youngCount struct {
	used    map[int64]time.Duration // CPU time by PID
	period  time.Duration
	samples int64
	named   int64            // of these, with a named leaf
	missing map[string]int64 // of these, without, by what the leaf is
}

// countYoung counts the samples of the processes in children, lines of a PID and its
// CPU time in microseconds.
func countYoung(p *profile.Profile, children string) (youngCount, error) {
	n := youngCount{used: make(map[int64]time.Duration), period: time.Duration(p.Period), missing: make(map[string]int64)}
	for line := range strings.Lines(children) {
		var pid, micros int64
		if _, err := fmt.Sscan(line, &pid, &micros); err != nil {
			return n, fmt.Errorf("driver of young processes wrote %q: %w", line, err)
		}
		n.used[pid] += time.Duration(micros) * time.Microsecond
	}
	for _, s := range p.Sample {
		pids := s.NumLabel["pid"]
		if len(pids) != 1 {
			continue
		}
		if _, ok := n.used[pids[0]]; !ok {
			continue
		}
		n.samples += s.Value[0]
		if leaf := s.Location[0]; len(leaf.Line) > 0 && leaf.Line[0].Function.Name != "" && !ownFrame(leaf) {
			n.named += s.Value[0]
		} else {
			n.missing[describeLeaf(s)] += s.Value[0]
		}
	}
	return n, nil
}

// ownFrame reports whether a frame is lowflame's, which names what is missing.
func ownFrame(l *profile.Location) bool { return l.Mapping != nil && l.Mapping.File == "[lowflame]" }

func describeLeaf(s *profile.Sample) string {
	file := "no mapping"
	if m := s.Location[0].Mapping; m != nil && m.File != "" {
		file = m.File
	}
	return "no name in " + file + strings.Join(append([]string{""}, s.Label["stop"]...), " ")
}

func (n *youngCount) cpu() time.Duration {
	var all time.Duration
	for _, d := range n.used {
		all += d
	}
	return all
}

// share is the part of the CPU time that so many samples stand for.
func (n *youngCount) share(samples int64) float64 {
	return float64(time.Duration(samples)*n.period) / float64(n.cpu())
}

// standardError of share(named): that of counting clock ticks, at a phase that is
// not known, in stretches of the processes' length (a tick more or less for each), and
// that of a tick being named or not.
func (n *youngCount) standardError() float64 {
	var ticks float64 // variance of their number
	for _, d := range n.used {
		_, part := math.Modf(float64(d) / float64(n.period))
		ticks += part * (1 - part)
	}
	named := float64(n.named) / float64(max(n.samples, 1))
	return math.Sqrt(ticks+float64(n.samples)*named*(1-named)) * float64(n.period) / float64(n.cpu())
}
