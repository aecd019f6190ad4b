// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/lowflame/lowflame/agent"
	"github.com/lowflame/lowflame/bpf/unwinder"
	"github.com/lowflame/lowflame/internal/preflight"
	"github.com/lowflame/lowflame/pprofexport"
	"github.com/lowflame/lowflame/pprofexport/file"
	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/symbolize"
)

type recordCmd struct {
	PID           []uint32      `short:"p" sep:"," placeholder:"PID,…" help:"Record these processes, all their threads."`
	All           bool          `short:"a" help:"Record the whole machine."`
	Frequency     int           `short:"F" default:"199" placeholder:"HZ" help:"Samples a second and CPU (${default})."`
	Event         string        `placeholder:"EVENT" enum:",cycles,cpu-clock" default:"" help:"What to take samples by: cycles, counted in hardware, or cpu-clock, a timer. Otherwise cycles where they can be counted."`
	Duration      time.Duration `short:"d" placeholder:"DURATION" help:"Stop after this long, such as 10s; a command is then ended with SIGTERM. Otherwise until the command or the processes end, or Ctrl-C."`
	Output        string        `short:"o" placeholder:"FILE" help:"File to write (profile.pb.gz, or as --format says); - is standard output, and the command's own goes to standard error."`
	Format        string        `placeholder:"FORMAT" help:"pprof, folded, speedscope or flamegraph-html. Otherwise as the file name ends: .pb.gz, .folded, .speedscope.json, .html."`
	Follow        *bool         `negatable:"" help:"Record child processes too (on with -- CMD, off with -p)."`
	Threads       bool          `help:"Tell threads apart: adds the label tid."`
	ExcludeKernel bool          `help:"Leave kernel stacks out."`
	ExcludeIdle   bool          `negatable:"" default:"true" help:"Leave idle CPUs out (on)."`
	Cgroup        []string      `sep:"," placeholder:"DIR,…" help:"Record only what is in these cgroups or below: directories of the cgroup v2 hierarchy, at most 16."`
	Demangle      string        `enum:"simplified,full,none" default:"simplified" placeholder:"HOW" help:"Names of C++ and Rust: simplified, without parameters and at most 256 bytes; full; or none, as in the file (${default})."`
	Self          bool          `help:"Record lowflame itself too."`
	Symbols       string        `default:"full" enum:"full,names,none" placeholder:"WHAT" help:"What to say of functions in files: full, with lines and inlined calls, from an index of debugging information that is made at the end where there is none; names alone, from symbol tables; or none: lowflame symbolize finds them later (${default})."`
	SymbolsWait   time.Duration `default:"30s" placeholder:"DURATION" help:"How long indexes may take at the end; Ctrl-C ends it too. What is left has names alone (${default})."`
	indexFlags
	Top      int      `default:"10" placeholder:"N" help:"Functions to list at the end (${default})."`
	Quiet    bool     `short:"q" help:"No progress, no list of functions."`
	LogLevel string   `default:"warn" enum:"debug,info,warn,error" placeholder:"LEVEL" help:"How much to log on standard error: debug, info, warn or error (${default})."`
	Command  []string `arg:"" optional:"" passthrough:"partial" name:"CMD" help:"Command to run and record, after --."`
}

const window = time.Second // between two drains

func (c *recordCmd) Run() error {
	format, err := c.check()
	if err != nil {
		return usageError{err}
	}
	if err := c.record(format); err != nil {
		var status exitStatus
		if len(c.Command) > 0 && !errors.As(err, &status) {
			fmt.Fprintf(os.Stderr, "lowflame: %v\n", err)
			return exitStatus(exitOwnFailure)
		}
		return err
	}
	return nil
}

// check refuses what cannot work before anything is started.
func (c *recordCmd) check() (file.Format, error) {
	if len(c.Command) > 0 && c.Command[0] == "--" {
		c.Command = c.Command[1:]
	}
	chosen := 0
	for _, is := range []bool{c.All || len(c.Cgroup) > 0 && len(c.PID)+len(c.Command) == 0, len(c.PID) > 0, len(c.Command) > 0} {
		if is {
			chosen++
		}
	}
	if chosen != 1 {
		return "", errors.New("say what to record, one of: -a for the whole machine, -p PID, --cgroup DIR, or -- CMD")
	}
	if c.Frequency < 1 || c.Frequency > 100_000 {
		return "", fmt.Errorf("-F %d: give 1 to 100000 samples a second", c.Frequency)
	}
	if c.Duration < 0 {
		return "", fmt.Errorf("-d %v: a duration cannot be negative", c.Duration)
	}
	for _, pid := range c.PID {
		if err := agent.CheckPID(pid); err != nil {
			return "", fmt.Errorf("-p: %w", err)
		}
	}
	return c.checkOutput()
}

// checkOutput finds out how and where to write, before anything is recorded.
func (c *recordCmd) checkOutput() (file.Format, error) {
	name := c.Output
	if name == "" {
		name = file.Pprof.DefaultName()
	}
	format, err := file.ParseFormat(c.Format, name)
	if err != nil {
		return "", err
	}
	if c.Output == "" {
		c.Output = format.DefaultName()
	}
	if c.Output == "-" && format == file.Pprof && isTerminal(os.Stdout) {
		return "", errors.New("-o -: standard output is a terminal; pprof is binary")
	}
	return format, file.CheckWritable(c.Output)
}

func (c *recordCmd) record(format file.Format) error {
	if err := preflight.Required(); err != nil {
		return err
	}
	demangle, err := symbolize.ParseDemangle(c.Demangle)
	if err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer cancel()
	context.AfterFunc(ctx, cancel) // a second Ctrl-C ends lowflame as it is
	cfg := agent.Config{
		Frequency: c.Frequency, Event: unwinder.Event(c.Event), Window: window, PIDs: c.PID, Threads: c.Threads, NoKernel: c.ExcludeKernel, Idle: !c.ExcludeIdle, Cgroups: c.Cgroup, Self: c.Self,
		NoSymbols: c.Symbols == "none", Demangle: demangle,
		Follow: c.Follow != nil && *c.Follow, Logger: newLogger(c.LogLevel),
	}
	var cmd *child
	if len(c.Command) > 0 {
		var err error
		if cmd, err = startChild(c.Command, c.Output == "-"); err != nil {
			return err
		}
		cfg.PIDs, cfg.Follow = []uint32{cmd.pid()}, c.Follow == nil || *c.Follow
	}
	session, err := agent.Open(ctx, cfg)
	if err != nil {
		if cmd != nil {
			cmd.abandon()
		}
		if ctx.Err() != nil {
			fmt.Fprintln(os.Stderr, "lowflame: interrupted before sampling began; nothing was written")
			return exitStatus(exitSignalShift + int(syscall.SIGINT))
		}
		return err
	}
	if cmd != nil {
		session.Preload(cmd.path)
	}
	status, err := c.run(ctx, session, cmd, format)
	if err := errors.Join(err, session.Close()); err != nil {
		return err
	}
	if status != 0 {
		return exitStatus(status)
	}
	return nil
}

// run records until it is time to stop and writes the profile. It returns the
// command's exit status.
func (c *recordCmd) run(ctx context.Context, session *agent.Session, cmd *child, format file.Format) (status int, err error) {
	rec := agent.NewRecording(session, pprofexport.Info{Version: version(), Command: os.Args})
	if got := session.Frequency(); got != c.Frequency {
		fmt.Fprintf(os.Stderr, "lowflame: sampling at %d Hz, not %d: see sysctl kernel.perf_event_max_sample_rate\n", got, c.Frequency)
	}
	recording, cancel := context.WithCancel(ctx)
	defer cancel()
	end := &ending{pids: c.PID, cmd: cmd, duration: c.Duration, stop: cancel}
	line := newProgress(c.Quiet)
	err = rec.Run(recording, func() { end.begin(recording) }, line.show)
	line.clear()
	if rec.Samples() > 0 && c.Symbols == "full" {
		c.index(rec, line) //nolint:contextcheck // Ctrl-C has ended that of the recording
	}
	if err == nil || rec.Samples() > 0 { // whatever went wrong, what was recorded is written
		err = errors.Join(err, c.write(rec, format, kernelHint(session.KernelNames())))
	}
	status, waitErr := end.finish(ctx.Err() != nil)
	return status, errors.Join(err, waitErr)
}

// write writes the profile and says what is in it.
func (c *recordCmd) write(rec *agent.Recording, format file.Format, hint string) error {
	builder, quality := rec.Result()
	quality = builder.Quality(quality)
	profile, err := builder.Profile(quality)
	if err != nil {
		return err
	}
	if err := file.Write(c.Output, profile, file.Options{Format: format, Title: c.title()}); err != nil {
		return err
	}
	if !c.Quiet && c.Top > 0 && quality.Samples() > 0 {
		if err := file.Top(os.Stderr, profile, c.Top, terminalWidth(os.Stderr)); err != nil {
			return err
		}
	}
	fmt.Fprintln(os.Stderr, quality.String())
	for _, hint := range []string{incompleteHint(&quality), rateHint(&quality), hint} {
		if hint != "" && !c.Quiet {
			fmt.Fprintln(os.Stderr, hint)
		}
	}
	return nil
}

// kernelHint says why kernel functions have no names.
func kernelHint(err error) string {
	if err == nil {
		return ""
	}
	return fmt.Sprintf("kernel functions have no names: %v; see lowflame doctor", err)
}

// rateHint says that CPUs were sampled less often than the profile assumes.
func rateHint(q *pprofexport.Quality) string {
	if q.Gaps.LowestHz == 0 {
		return ""
	}
	return fmt.Sprintf("a CPU was sampled at %d Hz only, because kernel.perf_event_max_sample_rate was lowered meanwhile: its samples stand for more time than the others",
		q.Gaps.LowestHz)
}

// incompleteHint says why stacks are incomplete when many are, or why there are
// none.
func incompleteHint(q *pprofexport.Quality) string {
	all, whole := q.Samples(), q.Complete()
	if all == 0 {
		return "no samples: what was recorded used no CPU time"
	}
	if whole*10 >= all*9 {
		return ""
	}
	most := stack.StopNone
	for s, n := range q.Stops {
		if !stack.Stop(s).Complete() && n > q.Stops[most] {
			most = stack.Stop(s)
		}
	}
	return fmt.Sprintf("most incomplete stacks: %s (%s), %d of %d samples", most, most.Text(), q.Stops[most], all)
}

// title says what was recorded.
func (c *recordCmd) title() string {
	switch {
	case len(c.Command) > 0:
		return strings.Join(c.Command, " ")
	case len(c.PID) > 0:
		return fmt.Sprintf("processes %v", c.PID)
	}
	if name, err := os.Hostname(); err == nil {
		return name
	}
	return "whole machine"
}
