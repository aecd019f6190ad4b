// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// Report collects the lines of a result: printed as they come and kept for a
// file.
type Report struct {
	Out    io.Writer
	lines  []string
	failed int
}

// Line adds a line.
func (r *Report) Line(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	r.lines = append(r.lines, line)
	fmt.Fprintln(r.Out, line)
}

// Demand adds a line for a number that must not be above (below, if atLeast)
// limit.
func (r *Report) Demand(name string, value, limit float64, atLeast bool, unit string) {
	ok, relation := value <= limit, "at most"
	if atLeast {
		ok, relation = value >= limit, "at least"
	}
	verdict := "ok"
	if !ok {
		verdict = "MISSED"
		r.failed++
	}
	r.Line("%-44s %12.3f %-8s (%s %g) %s", name, value, unit, relation, limit, verdict)
}

// Problem adds a line about something that must not be.
func (r *Report) Problem(text string) {
	r.failed++
	r.Line("MISSED: %s", text)
}

// Machine adds lines about the machine.
func (r *Report) Machine() {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	model := "unknown CPU"
	cpuinfo, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(cpuinfo)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	load, _ := os.ReadFile("/proc/loadavg")
	r.Line("date     %s", time.Now().UTC().Format("2006-01-02"))
	r.Line("machine  %d × %s, Linux %s %s", runtime.NumCPU(), model, strings.TrimSpace(string(kernel)), runtime.GOARCH)
	r.Line("load     %s before", strings.TrimSpace(string(load)))
}

// Save writes the lines to name in dir and returns an error if a demand was
// missed.
func (r *Report) Save(dir, name string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("save result: %w", err)
	}
	text := strings.Join(r.lines, "\n") + "\n"
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		return fmt.Errorf("save result: %w", err)
	}
	if r.failed > 0 {
		return fmt.Errorf("%d demands missed", r.failed)
	}
	return nil
}

// Cost adds lines about what a run cost. CPU time of BPF programs, which the
// kernel charges to whatever they interrupt, counts as lowflame's.
func (r *Report) Cost(run *Run) {
	share := func(d time.Duration) float64 { return 100 * d.Seconds() / run.Wall.Seconds() }
	r.Demand("CPU of the process, of one core", share(run.CPU), 3, false, "%")
	r.Line("%-44s %12.3f %% (%d runs of %v)", "CPU of BPF programs, of one core", share(run.BPF.RunTime),
		run.BPF.Runs, perRun(run.BPF))
	r.Line("%-44s %12.3f %%", "CPU in all, of one core", share(run.CPU+run.BPF.RunTime))
	r.Demand("peak resident memory", float64(run.RSS)/(1<<20), 80, false, "MiB")
	r.Demand(fmt.Sprintf("memory of %d BPF maps", run.BPF.Maps), float64(run.BPF.MapBytes)/(1<<20), 64, false, "MiB")
}

func perRun(b BPF) time.Duration {
	if b.Runs == 0 {
		return 0
	}
	return b.RunTime / time.Duration(b.Runs)
}
