// SPDX-License-Identifier: Apache-2.0

package process

import (
	"os/exec"
	"slices"
	"testing"
	"time"
)

// awaitExec reads until the exec of pid was told, and returns how long after it.
func awaitExec(t *testing.T, s *Sideband, pid uint32) (after time.Duration, maps int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		events, _, err := s.Read(t.Context(), 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		now := monotonic()
		for _, ev := range events {
			if ev.PID == pid && ev.Kind == EventMap {
				maps++
			}
		}
		i := slices.IndexFunc(events, func(ev Event) bool { return ev.PID == pid && ev.Kind == EventExec })
		if i >= 0 {
			return time.Duration(now - events[i].Time), maps
		}
	}
	t.Fatalf("the exec of process %d was not told", pid)
	return 0, 0
}

// TestExecWakeup looks at when an exec is told although the rings are far from full,
// on CPUs as they were and after they were taken in anew.
func TestExecWakeup(t *testing.T) {
	s := openSideband(t, SidebandConfig{WakeupBytes: 128 << 10, ExecWakeup: 20 * time.Millisecond})
	for _, again := range []bool{false, true} {
		if again {
			for _, cpu := range onlineCPUs(t) {
				s.end(cpu)
				s.end(firstBellID - cpu)
				if err := s.Reopen(cpu); err != nil {
					t.Fatal(err)
				}
			}
		}
		cmd := exec.CommandContext(t.Context(), "sleep", "60")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		after, maps := awaitExec(t, s, uint32(cmd.Process.Pid))
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
		// Others' execs, and a busy machine, make it sooner and later.
		if after > 2*time.Second {
			t.Errorf("reopened %v: told after %v, with %d mappings", again, after, maps)
		}
	}
}
