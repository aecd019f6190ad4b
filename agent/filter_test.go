// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/pprof/profile"
	"golang.org/x/sys/unix"
)

const busySource = `int main(void) { for (volatile unsigned long i = 0;; i++) ; }`

// TestCgroup samples one cgroup of two that keep the machine busy.
func TestCgroup(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("sampling needs root")
	}
	// Test it where cgroup v1 has the machine, too.
	root := t.TempDir()
	if err := unix.Mount("none", root, "cgroup2", 0, ""); err != nil {
		t.Fatalf("mount cgroup2: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	group := filepath.Join(root, "lowflame-test-"+strconv.Itoa(os.Getpid()))
	below := filepath.Join(group, "below")
	if err := os.MkdirAll(below, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Rmdir(group) })
	t.Cleanup(func() { _ = unix.Rmdir(below) })
	program := compile(t, t.TempDir(), "busy", busySource)
	outside, inside := launch(t, program), launch(t, program)
	if err := os.WriteFile(filepath.Join(below, "cgroup.procs"), []byte(strconv.Itoa(int(inside))), 0); err != nil {
		t.Fatal(err)
	}
	p := recordDuring(t, Config{Frequency: 199, Window: 200 * time.Millisecond, Cgroups: []string{group}}, func(context.Context) {
		burned(t, inside, cpuTime(t, inside)+500*time.Millisecond)
	})
	seen := samplesByPID(p)
	if seen[int64(inside)] < 20 || len(seen) != 1 {
		t.Errorf("samples by PID %v, want some of %d and none of %d or others", seen, inside, outside)
	}
	if _, err := Open(t.Context(), Config{Cgroups: []string{"/proc"}}); err == nil {
		t.Error("/proc passes for a cgroup")
	}
}

// TestIdle samples CPUs that have nothing to run.
func TestIdle(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("sampling needs root")
	}
	var p *profile.Profile
	for deadline := time.Now().Add(time.Minute); ; {
		before := idleTicks(t)
		p = record(t, Config{Frequency: 99, Window: 200 * time.Millisecond, Idle: true}, 3*time.Second)
		if idleTicks(t)-before > 50 { // half a second, in which there are 50 samples
			break
		}
		if time.Now().After(deadline) {
			t.Skip("no CPU of this machine has been idle for a minute")
		}
	}
	if n := samplesByPID(p)[0]; n == 0 {
		t.Error("no sample of the idle task in three seconds")
	}
	idle := slices.IndexFunc(p.Sample, func(s *profile.Sample) bool {
		return slices.ContainsFunc(s.Label["comm"], func(comm string) bool { return len(comm) > 7 && comm[:7] == "swapper" })
	})
	if idle < 0 {
		t.Error("no sample says swapper")
	}
}

// idleTicks is how long all CPUs have been idle, in units of 10 ms. Kernel:
// show_stat.
func idleTicks(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	var cpu string
	var user, nice, system, idle int64
	if _, err := fmt.Sscan(string(b), &cpu, &user, &nice, &system, &idle); err != nil {
		t.Fatalf("parse /proc/stat: %v", err)
	}
	return idle
}

func samplesByPID(p *profile.Profile) map[int64]int64 {
	seen := make(map[int64]int64)
	for _, s := range p.Sample {
		pid := int64(0)
		if n := s.NumLabel["pid"]; len(n) > 0 {
			pid = n[0]
		}
		seen[pid] += s.Value[0]
	}
	return seen
}
