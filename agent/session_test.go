// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/lowflame/lowflame/pprofexport"
)

// record samples the given processes, or the machine, for a while.
func record(t *testing.T, cfg Config, d time.Duration) *profile.Profile {
	t.Helper()
	return recordDuring(t, cfg, func(ctx context.Context) {
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
	})
}

// recordDuring samples while work runs.
func recordDuring(t *testing.T, cfg Config, work func(context.Context)) *profile.Profile {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("sampling needs root")
	}
	session, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := session.Close(); err != nil {
			t.Error(err)
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	rec := NewRecording(session, pprofexport.Info{})
	begin := func() {
		go func() {
			work(ctx)
			cancel()
		}()
	}
	if err := rec.Run(ctx, begin, func(Progress) {}); err != nil {
		t.Fatal(err)
	}
	builder, quality := rec.Result()
	quality = builder.Quality(quality)
	if quality.Unaccounted() != 0 {
		t.Errorf("%d of %d timer expiries are not accounted for", quality.Unaccounted(), quality.Fired)
	}
	p, err := builder.Profile(quality)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// burned waits until a process has used so much CPU time: on a busy machine that may
// take a multiple of it.
func burned(t *testing.T, pid uint32, cpu time.Duration) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); cpuTime(t, pid) < cpu && !t.Failed(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("process %d has used %v of CPU time, not %v", pid, cpuTime(t, pid), cpu)
		}
	}
}

// cpuTime is what the first thread of a process has used. Kernel: proc_pid_schedstat.
func cpuTime(t *testing.T, pid uint32) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
	var ns int64
	if err == nil {
		_, err = fmt.Sscan(string(b), &ns)
	}
	if err != nil {
		t.Error(err)
	}
	return time.Duration(ns)
}

// start builds a C program, owned by nobody, and runs it until the test ends.
func start(t *testing.T, dir, name, source string, flags ...string) uint32 {
	t.Helper()
	return launch(t, compile(t, dir, name, source, flags...))
}

func compile(t *testing.T, dir, name, source string, flags ...string) string {
	t.Helper()
	src, bin := filepath.Join(dir, name+".c"), filepath.Join(dir, name)
	if err := os.WriteFile(src, []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"-O1", "-fomit-frame-pointer", "-o", bin, src}, flags...)
	if out, err := exec.CommandContext(t.Context(), "gcc", args...).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	if err := os.Chown(bin, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	return bin
}

func launch(t *testing.T, bin string) uint32 {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), bin)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return uint32(cmd.Process.Pid)
}

// shares returns the samples of a process by the name of their innermost
// function.
func shares(p *profile.Profile, pid uint32) map[string]int64 {
	n := make(map[string]int64)
	for _, s := range p.Sample {
		if ids := s.NumLabel["pid"]; len(ids) != 1 || ids[0] != int64(pid) {
			continue
		}
		if l := s.Location[0]; len(l.Line) > 0 && l.Line[0].Function != nil {
			n[l.Line[0].Function.Name] += s.Value[0]
		}
	}
	return n
}

// TestForgedBuildID runs two programs of an ordinary user that claim one build
// ID: each keeps its own names, whichever is seen first.
func TestForgedBuildID(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("sampling needs root")
	}
	dir := t.TempDir()
	const source = `
volatile unsigned long sink;
%s
__attribute__((noinline)) void %s_hot(void) { for (unsigned i = 0; i < 1000000; i++) sink += i; }
int main(void) { for (;;) %s_hot(); }
`
	const forged = "-Wl,--build-id=0x0123456789abcdef0123456789abcdef01234567"
	evil := start(t, dir, "evil", fmt.Sprintf(source, "", "evil", "evil"), forged)
	padding := "__attribute__((noinline,used)) int padding(int x) { return x * x / (x + 1) + x % 7; }"
	good := start(t, dir, "good", fmt.Sprintf(source, padding, "good", "good"), forged)
	const each = 500 * time.Millisecond // 100 samples
	p := recordDuring(t, Config{Frequency: 199, Window: 500 * time.Millisecond}, func(context.Context) {
		more := cpuTime(t, evil) + each
		burned(t, good, cpuTime(t, good)+each)
		burned(t, evil, more)
	})
	for pid, want := range map[uint32]string{evil: "evil_hot", good: "good_hot"} {
		n := shares(p, pid)
		if n[want] < 20 || n["good_hot"]+n["evil_hot"] != n[want] {
			t.Errorf("process %d should be in %s: %v", pid, want, n)
		}
	}
}

// TestMachineAccounting records the whole machine while processes come and go.
func TestMachineAccounting(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("sampling needs root")
	}
	churn := exec.CommandContext(t.Context(), "sh", "-c", "while :; do /bin/true; /bin/ls / >/dev/null; done")
	if err := churn.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = churn.Process.Kill()
		_ = churn.Wait()
	}()
	onceMore(t, func() string {
		p := record(t, Config{Frequency: 999, Window: 200 * time.Millisecond}, 3*time.Second)
		var all, whole int64
		for _, s := range p.Sample {
			if !s.HasLabel("comm", "sh") && !s.HasLabel("comm", "true") && !s.HasLabel("comm", "ls") {
				continue // what else the machine does is not judged
			}
			all += s.Value[0]
			if len(s.Label["stop"]) == 0 {
				whole += s.Value[0]
			}
		}
		t.Logf("%d of %d stacks of short-lived processes are whole", whole, all)
		if all < 100 || float64(whole) < 0.9*float64(all) {
			return fmt.Sprintf("%d of %d stacks of short-lived processes are whole, want 90 %%\n%v", whole, all, p.Comments)
		}
		return ""
	})
}

// onceMore runs what returns a problem, or "", again if there is one: what is wrong
// with lowflame is wrong again, what a busy machine did is not.
func onceMore(t *testing.T, run func() (problem string)) {
	t.Helper()
	problem := run()
	if problem != "" {
		t.Logf("once more, after: %s", problem)
		problem = run()
	}
	if problem != "" {
		t.Error(problem)
	}
}
