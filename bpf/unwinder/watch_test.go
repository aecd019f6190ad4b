// SPDX-License-Identifier: GPL-2.0

package unwinder

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fires returns how often the event of each CPU fires in a while.
func fires(t *testing.T, u *Unwinder, while time.Duration) map[int]uint64 {
	t.Helper()
	before, err := u.firedByCPU()
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(while)
	after, err := u.firedByCPU()
	if err != nil {
		t.Fatal(err)
	}
	n := make(map[int]uint64)
	for cpu := range u.cpus {
		n[cpu] = after[cpu] - before[cpu]
	}
	return n
}

// TestWatch stops the event of a CPU as the kernel does when it loses one: its file
// descriptor stays good and says nothing.
func TestWatch(t *testing.T) {
	u := open(t, Config{Frequency: 99, Event: EventCPUClock})
	if opened, err := u.Watch(time.Now()); err != nil || opened != nil {
		t.Fatalf("before Start: opened %v, %v", opened, err)
	}
	if err := u.Start(); err != nil {
		t.Fatal(err)
	}
	if opened, err := u.Watch(time.Now()); err != nil || opened != nil {
		t.Fatalf("at the start: opened %v, %v", opened, err)
	}
	const victim = 0
	if err := unix.IoctlSetInt(u.cpus[victim].fd, unix.PERF_EVENT_IOC_DISABLE, 0); err != nil {
		t.Fatal(err)
	}
	if n := fires(t, u, 300*time.Millisecond); n[victim] != 0 {
		t.Fatalf("the stopped event fires: %v", n)
	}
	died, restarted := time.Now(), time.Duration(0)
	for restarted == 0 && time.Since(died) < 10*time.Second {
		time.Sleep(500 * time.Millisecond)
		opened, err := u.Watch(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		for _, cpu := range opened {
			if cpu == victim {
				restarted = time.Since(died)
			}
		}
	}
	n := fires(t, u, time.Second)
	gaps := u.Gaps()
	t.Logf("restarted after %v, fires then: %v; %+v", restarted, n, gaps)
	if restarted == 0 || n[victim] == 0 {
		t.Error("the event is still dead after 10 s")
	}
	if gaps.Reopened == 0 || gaps.Unsampled < 2*time.Second || gaps.LowestHz != 99 {
		t.Errorf("gaps %+v, restarted after %v", gaps, restarted)
	}
	if err := u.Stop(); err != nil {
		t.Fatal(err)
	}
	if opened, err := u.Watch(time.Now()); err != nil || opened != nil {
		t.Errorf("after Stop: opened %v, %v", opened, err)
	}
	if ns, err := u.TimerNS(); err != nil || ns < uint64(time.Second) {
		t.Errorf("the timers counted %d ns, %v", ns, err)
	}
}

func TestOpenOffline(t *testing.T) {
	u := open(t, Config{Event: EventCPUClock})
	_, err := openCPU(1<<14, EventCPUClock, 99, u.objs.UnwSample)
	if !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EINVAL) { // EINVAL: no such CPU can be
		t.Errorf("a CPU that is not there: %v", err)
	}
}
