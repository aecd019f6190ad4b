// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/lowflame/lowflame/benchmarks/measure"
	"github.com/lowflame/lowflame/pprofexport"
)

//go:embed testdata/start
var startSources embed.FS

// settling is how long the idle processes are given until they are idle: starting
// Java virtual machines takes a while.
const settling = 8 * time.Second

// idle is a program that does nothing, and how many processes of it there are.
type idle struct {
	n       int
	command []string
}

// measureStart measures how long it takes to begin, with a hundred processes there
// and all CPUs busy, and what memory the BPF maps take then.
func measureStart(ctx context.Context, b *bench) error {
	lowflame, err := measure.Build(ctx, b.dir)
	if err != nil {
		return err
	}
	stop, err := b.startProcesses(ctx)
	if err != nil {
		return err
	}
	defer stop()
	undo, err := measure.CountRuns()
	if err != nil {
		return err
	}
	defer undo()
	var first, maps []float64
	for range b.runs {
		run, err := measure.Record(ctx, lowflame, "-a", "-d", "2s")
		if err != nil {
			return err
		}
		b.Line("quality  %s", pprofexport.Comment(run.Profile, "quality"))
		first = append(first, run.FirstSample.Seconds()*1000)
		maps = append(maps, float64(run.BPF.MapBytes)/(1<<20))
	}
	b.Demand("start of the process to the first sample", median(first), 500, false, "ms")
	b.Demand("memory of BPF maps", median(maps), 32, false, "MiB")
	return nil
}

// startProcesses starts the idle processes, and a busy one for each CPU.
func (b *bench) startProcesses(ctx context.Context) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	var stops []func()
	stop = func() {
		cancel()
		for _, one := range stops {
			one()
		}
	}
	all, err := buildIdle(ctx, b.dir)
	if err != nil {
		cancel()
		return nil, err
	}
	busy, err := buildC(ctx, youngSources, "testdata/young/child.c", filepath.Join(b.dir, "busy"))
	if err != nil {
		cancel()
		return nil, err
	}
	all = append(all, idle{runtime.NumCPU(), []string{busy, "1000000000"}})
	for _, p := range all {
		one, err := measure.Start(ctx, p.n, p.command...)
		if err != nil {
			stop()
			return nil, err
		}
		stops = append(stops, one)
	}
	time.Sleep(settling)
	return stop, nil
}

func buildIdle(ctx context.Context, dir string) ([]idle, error) {
	src := filepath.Join(dir, "idle-src")
	sub, err := fs.Sub(startSources, "testdata/start")
	if err == nil {
		err = os.CopyFS(src, sub)
	}
	if err != nil {
		return nil, fmt.Errorf("write idle programs: %w", err)
	}
	static, goProgram := filepath.Join(dir, "idle-static"), filepath.Join(dir, "idle-go")
	for _, command := range [][]string{
		{"gcc", "-O2", "-static", "-o", static, "idle.c"},
		{"go", "build", "-o", goProgram, "idle/main.go"},
		{"javac", "Idle.java"},
	} {
		cmd := exec.CommandContext(ctx, command[0], command[1:]...)
		cmd.Dir = src
		cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build idle programs: %v: %w\n%s", command, err, out)
		}
	}
	return []idle{
		{30, []string{"sleep", "1000000"}},
		{20, []string{"python3", filepath.Join(src, "idle.py")}},
		{15, []string{static}},
		{15, []string{goProgram}},
		{10, []string{"node", filepath.Join(src, "idle.js")}},
		{10, []string{"java", "-Xmx64m", "-cp", src, "Idle"}},
	}, nil
}
