// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/lowflame/lowflame/process"
)

// openSession opens a session that does not run: nothing happens but what the test
// does.
func openSession(t *testing.T, cfg Config) *Session {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("sampling needs root")
	}
	cfg.Frequency, cfg.Window = 99, time.Second
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// sleeper starts a process that waits to be told to run another program.
func sleeper(t *testing.T) (pid uint32, next func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "read go; exec sleep 1000")
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	return uint32(cmd.Process.Pid), func() {
		if _, err := in.Write([]byte("\n")); err != nil {
			t.Fatal(err)
		}
	}
}

// absent is a PID that no kernel gives: PID_MAX_LIMIT is 1 << 22.
const absent = 1<<22 + 1000

// TestFollowDoubleFork has a daemon's parent begin and end within one reading.
func TestFollowDoubleFork(t *testing.T) {
	root, _ := sleeper(t)
	s := openSession(t, Config{PIDs: []uint32{root}, Follow: true})
	now := monotonic()
	const parent, daemon = absent, absent + 1
	s.apply([]process.Event{
		{Kind: process.EventFork, Time: now, PID: parent, TID: parent, PPID: root},
		{Kind: process.EventFork, Time: now + 1, PID: daemon, TID: daemon, PPID: parent},
		{Kind: process.EventExit, Time: now + 2, PID: parent, TID: parent},
	})
	if s.targets[parent] || !s.targets[daemon] || !s.targets[root] {
		t.Errorf("targets: %v, want %d and %d", s.targets, root, daemon)
	}
	if s.unwinder.HasProcess(parent) || !s.unwinder.HasProcess(daemon) {
		t.Error("the program knows the parent, or not the daemon")
	}
	s.apply([]process.Event{{Kind: process.EventExit, Time: now + 3, PID: daemon, TID: daemon}})
	if s.targets[daemon] || s.unwinder.HasProcess(daemon) {
		t.Error("the daemon is not forgotten")
	}
}

// TestForgetUnwanted publishes a process that is not asked for, as a raw sample of it
// does: it is forgotten when it ends.
func TestForgetUnwanted(t *testing.T) {
	root, _ := sleeper(t)
	other, _ := sleeper(t)
	s := openSession(t, Config{PIDs: []uint32{root}})
	now := monotonic()
	s.apply([]process.Event{{Kind: process.EventFork, Time: now, PID: absent, TID: absent, PPID: other}})
	if err := s.publisher.publish(s.table.Live(absent)); err != nil {
		t.Fatal(err)
	}
	s.apply([]process.Event{{Kind: process.EventExit, Time: now + 1, PID: absent, TID: absent}})
	if _, ok := s.publisher.published[absent]; ok || s.unwinder.HasProcess(absent) {
		t.Error("the process is not forgotten")
	}
}

// TestFilterIsSwept has processes in the filter that the table never heard of.
func TestFilterIsSwept(t *testing.T) {
	root, _ := sleeper(t)
	s := openSession(t, Config{PIDs: []uint32{root}, Follow: true})
	young, _ := sleeper(t) // its fork is not read
	zombie := exec.CommandContext(t.Context(), "true")
	if err := zombie.Start(); err != nil {
		t.Fatal(err)
	}
	dead := uint32(zombie.Process.Pid)
	for deadline := time.Now().Add(10 * time.Second); !hasEnded(dead, false); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("true does not end")
		}
	}
	fill := func() {
		for _, pid := range []uint32{young, absent, dead} {
			if err := s.unwinder.AddPID(pid); err != nil {
				t.Fatal(err)
			}
		}
	}
	check := func(when string) {
		t.Helper()
		pids, err := s.unwinder.PIDs()
		if err != nil {
			t.Fatal(err)
		}
		want := []uint32{root, young}
		slices.Sort(pids)
		slices.Sort(want)
		if !slices.Equal(pids, want) {
			t.Errorf("%s: the filter has %v, want %v", when, pids, want)
		}
	}
	fill()
	s.sweepFilter()
	check("swept")
	fill()
	s.unfilter([]process.Event{
		{Kind: process.EventExit, PID: absent, TID: absent},
		{Kind: process.EventExit, PID: dead, TID: dead},
		{Kind: process.EventExit, PID: young, TID: young + 1}, // a thread
	})
	check("exits told")
	if !hasEnded(young, true) {
		t.Error("a process ends with its only thread")
	}
	if err := zombie.Wait(); err != nil {
		t.Error(err)
	}
}

// TestExecFoundInProc has a process run another program whose exec is not told: the
// program gets the mappings that are read from /proc.
func TestExecFoundInProc(t *testing.T) {
	pid, next := sleeper(t)
	s := openSession(t, Config{})
	if err := s.unwinder.Start(); err != nil {
		t.Fatal(err)
	}
	old := s.table.Live(pid)
	s.apply([]process.Event{{Kind: process.EventLost, Time: monotonic(), Lost: 1}})
	next()
	for deadline := time.Now().Add(10 * time.Second); s.table.Live(pid).Comm != "sleep"; time.Sleep(time.Millisecond) {
		for _, c := range s.table.Rescan(pid) {
			s.change(c)
		}
		if time.Now().After(deadline) {
			t.Fatal("sh does not exec sleep")
		}
	}
	for _, c := range s.table.Rescan(pid) { // the loader is done, likely
		s.change(c)
	}
	if p := s.table.Live(pid); p.ID == old.ID || p.Known == 0 {
		t.Fatalf("not another image: %+v", p)
	}
	if !s.unwinder.HasProcess(pid) {
		t.Error("the program does not know the process")
	}
	if err := s.unwinder.Stop(); err != nil {
		t.Fatal(err)
	}
}
