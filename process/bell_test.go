// SPDX-License-Identifier: Apache-2.0

package process

import (
	"os/exec"
	"slices"
	"sync/atomic"
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

// TestBellsDoNotFill has bells ring while Read is woken by others: they are emptied
// all the same, or the kernel would soon find them full and ring no more.
func TestBellsDoNotFill(t *testing.T) {
	s := openSideband(t, SidebandConfig{WakeupBytes: 128 << 10, ExecWakeup: time.Millisecond})
	fill := func() (n uint64) {
		for _, r := range s.bells {
			n += atomic.LoadUint64(r.head) - *r.tail
		}
		return n
	}
	for range 50 { // others' programs begin between the two looks
		if err := exec.Command("/bin/true").Run(); err != nil {
			t.Fatal(err)
		}
		before := fill()
		s.Wake()
		if woken, err := s.wait(1000); err != nil || !woken {
			t.Fatalf("wait = %v, %v", woken, err)
		}
		if before > 0 && fill() == 0 {
			return
		}
	}
	t.Errorf("%d bytes are left in the bells", fill())
}
