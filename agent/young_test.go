// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/google/pprof/profile"
)

const youngSource = `
#include <time.h>
volatile unsigned long sink;
__attribute__((noinline)) void young_leaf(void) { for (unsigned i = 0; i < 20000; i++) sink += i; }
int main(void)
{
	struct timespec used;
	do {
		young_leaf();
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
	} while (used.tv_sec == 0 && used.tv_nsec < 20000000);
	return 0;
}
`

// TestYoungProcesses runs programs of 20 ms, of an ordinary user, and compares the
// samples that know the function they are in with the CPU time the kernel counted.
func TestYoungProcesses(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("sampling needs root")
	}
	dir := t.TempDir()
	child := compile(t, dir, "young", youngSource)
	onceMore(t, func() string { return recordYoung(t, child) })
}

// recordYoung records 60 runs of a program and returns what is wrong.
func recordYoung(t *testing.T, child string) string {
	t.Helper()
	used := make(map[int64]time.Duration)
	const hz = 997
	p := recordDuring(t, Config{Frequency: hz, Window: 200 * time.Millisecond}, func(ctx context.Context) {
		for range 60 {
			cmd := exec.CommandContext(ctx, child)
			if err := cmd.Run(); err != nil {
				t.Error(err)
			}
			used[int64(cmd.ProcessState.Pid())] += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		}
	})
	var cpu time.Duration
	for _, d := range used {
		cpu += d
	}
	var all, named int64
	for _, s := range p.Sample {
		if ids := s.NumLabel["pid"]; len(ids) != 1 || used[ids[0]] == 0 {
			continue
		}
		all += s.Value[0]
		if hasName(s.Location[0]) {
			named += s.Value[0]
		}
	}
	// A host that takes the CPU away makes for samples without CPU time.
	expected := max(cpu.Seconds()*hz, float64(all))
	t.Logf("%d of %d samples have a named leaf; CPU time for %.0f", named, all, cpu.Seconds()*hz)
	if float64(named) < 0.9*expected {
		return fmt.Sprintf("%d of %.0f samples arrived with a named leaf, want 90 %%", named, expected)
	}
	return ""
}

// TestExitIsSampled has descendants of the process asked for give back much memory
// when they end: they are recorded until they are gone.
func TestExitIsSampled(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("sampling needs root")
	}
	big := compile(t, t.TempDir(), "big", `
#include <stdlib.h>
#include <sys/prctl.h>
int main(void)
{
	volatile char *p = malloc(128 << 20);
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0); // many pages take long to give back
	for (int i = 0; i < 128 << 20; i += 4096)
		p[i] = 1;
	return 0;
}
`)
	sh := exec.CommandContext(t.Context(), "sh", "-c", "read go; for i in 1 2 3 4 5; do "+big+"; done")
	start, err := sh.StdinPipe()
	if err == nil {
		err = sh.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Frequency: 997, Window: 200 * time.Millisecond, PIDs: []uint32{uint32(sh.Process.Pid)}, Follow: true}
	p := recordDuring(t, cfg, func(context.Context) {
		if _, err := start.Write([]byte("\n")); err != nil {
			t.Error(err)
		}
		if err := sh.Wait(); err != nil {
			t.Error(err)
		}
	})
	exiting := int64(0)
	for _, s := range p.Sample {
		if s.HasLabel("comm", "big") && slices.ContainsFunc(s.Location, func(l *profile.Location) bool {
			return hasName(l) && l.Line[0].Function.Name == "do_exit"
		}) {
			exiting += s.Value[0]
		}
	}
	t.Logf("%d samples of processes on their way out", exiting)
	if exiting < 3 {
		t.Errorf("%d samples of processes on their way out, want at least 3\n%v", exiting, p.Comments)
	}
}

func hasName(l *profile.Location) bool {
	return len(l.Line) > 0 && l.Line[0].Function.Name != "" && (l.Mapping == nil || l.Mapping.File != "[lowflame]")
}
