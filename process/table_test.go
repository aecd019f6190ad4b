// SPDX-License-Identifier: Apache-2.0

package process

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lowflame/lowflame/stack"
)

// story builds events one nanosecond apart.
type story struct {
	events []Event
	now    uint64
}

func (s *story) add(ev Event) {
	s.now++
	ev.Time = s.now
	s.events = append(s.events, ev)
}
func (s *story) fork(pid, ppid uint32)      { s.add(Event{Kind: EventFork, PID: pid, TID: pid, PPID: ppid}) }
func (s *story) clone(pid, tid uint32)      { s.add(Event{Kind: EventFork, PID: pid, TID: tid, PPID: pid}) }
func (s *story) exit(pid, tid uint32)       { s.add(Event{Kind: EventExit, PID: pid, TID: tid}) }
func (s *story) maps(pid uint32, m Mapping) { s.add(Event{Kind: EventMap, PID: pid, TID: pid, Map: m}) }
func (s *story) exec(pid uint32, comm string) {
	s.add(Event{Kind: EventExec, PID: pid, TID: pid, Comm: comm})
}
func (s *story) rename(pid, tid uint32, comm string) {
	s.add(Event{Kind: EventComm, PID: pid, TID: tid, Comm: comm})
}

// fakeTable has an empty /proc.
func fakeTable(t testing.TB) *Table { return NewTable(t.TempDir()) }

func images(t *Table, pid uint32) []string {
	var out []string
	if e := t.procs[pid]; e != nil {
		for _, img := range e.images {
			p := img.p
			out = append(out, fmt.Sprintf("%d-%d %s %s %d", p.Since, p.Until, p.Comm, p.Exe, len(p.Mappings)))
		}
	}
	return out
}

func TestApply(t *testing.T) {
	bin, lib := fileMap(0x1000, 0x2000, 0, "/bin/a"), fileMap(0x7000, 0x8000, 0, "/lib/l")
	boot := func(s *story) { // 1..3: PID 9 with a program and a library
		s.exec(9, "a")
		s.maps(9, bin)
		s.maps(9, lib)
	}
	for _, tt := range []struct {
		name string
		play func(s *story)
		pid  uint32
		want []string
	}{
		{"exec", func(*story) {}, 9, []string{"1-0 a /bin/a 2"}},
		{"a fork runs what its parent runs", func(s *story) { s.fork(10, 9) }, 10, []string{"4-0 a /bin/a 2"}},
		{"a fork keeps what it has when the parent maps more", func(s *story) {
			s.fork(10, 9)
			s.maps(9, fileMap(0x9000, 0xa000, 0, "/lib/m"))
		}, 10, []string{"4-0 a /bin/a 2"}},
		{"fork, exec, exit in one go", func(s *story) {
			s.fork(10, 9)
			s.exec(10, "b")
			s.maps(10, fileMap(0x1000, 0x2000, 0, "/bin/b"))
			s.exit(10, 10)
		}, 10, []string{"4-5 a /bin/a 2", "5-7 b /bin/b 1"}},
		{"an exec chain", func(s *story) {
			s.exec(9, "b")
			s.exec(9, "c")
		}, 9, []string{"1-4 a /bin/a 2", "4-5 b  0", "5-0 c  0"}},
		{"a PID in use again", func(s *story) {
			s.fork(10, 9)
			s.exit(10, 10)
			s.fork(10, 9)
			s.exec(10, "b")
		}, 10, []string{"4-5 a /bin/a 2", "6-7 a /bin/a 2", "7-0 b  0"}},
		{"a PID in use again whose exit was lost", func(s *story) {
			s.fork(10, 9)
			s.fork(10, 9)
		}, 10, []string{"4-5 a /bin/a 2", "5-0 a /bin/a 2"}},
		{"threads are no processes", func(s *story) {
			s.clone(9, 10)
			s.exit(9, 10)
		}, 9, []string{"1-0 a /bin/a 2"}},
		{"the first thread exits before the others", func(s *story) {
			s.clone(9, 10)
			s.clone(9, 11)
			s.exit(9, 9)
			s.exit(9, 11)
			s.maps(9, fileMap(0x9000, 0xa000, 0, "/lib/m"))
		}, 9, []string{"1-0 a /bin/a 3"}},
		{"the last thread exits", func(s *story) {
			s.clone(9, 10)
			s.exit(9, 9)
			s.exit(9, 10)
		}, 9, []string{"1-6 a /bin/a 2"}},
		{"exec in another thread", func(s *story) { // de_thread kills the rest first
			s.clone(9, 10)
			s.clone(9, 11)
			s.exit(9, 11)
			s.exit(9, 9)
			s.exec(9, "b") // by 10, which is 9 now
			s.exit(9, 9)
		}, 9, []string{"1-8 a /bin/a 2", "8-9 b  0"}},
		{"names", func(s *story) {
			s.rename(9, 10, "worker")
			s.rename(9, 9, "a) R 1\n\xff")
		}, 9, []string{"1-0 a) R 1\n\xff /bin/a 2"}},
		{"dlopen over an old library", func(s *story) { s.maps(9, fileMap(0x7800, 0x9000, 0, "/lib/m")) }, 9, []string{"1-0 a /bin/a 3"}},
		{"idle task and other namespaces", func(s *story) {
			s.fork(0, 9)
			s.exec(0, "x")
		}, 0, nil},
		{"events of a process nobody knows", func(s *story) {
			s.maps(77, lib)
			s.rename(77, 77, "x")
			s.clone(77, 78)
			s.exit(77, 77)
		}, 77, nil},
		{"a child of a process nobody knows", func(s *story) {
			s.fork(10, 77)
			s.maps(10, lib)
		}, 10, []string{"4-0  /lib/l 1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &story{}
			boot(s)
			tt.play(s)
			whole, single := fakeTable(t), fakeTable(t)
			whole.Apply(s.events)
			for i := range s.events {
				single.Apply(s.events[i : i+1])
			}
			if d := cmp.Diff(tt.want, images(whole, tt.pid)); d != "" {
				t.Errorf("all at once: %s", d)
			}
			if d := cmp.Diff(tt.want, images(single, tt.pid)); d != "" {
				t.Errorf("one by one: %s", d)
			}
			checkStats(t, whole)
			checkStats(t, single)
		})
	}
}

// checkStats counts what the table holds the slow way.
func checkStats(t *testing.T, table *Table) {
	t.Helper()
	var live, dead, mappings uint64
	lists := map[*Mapping]bool{}
	for _, e := range table.procs {
		for _, img := range e.images {
			if img.p.Until == 0 {
				live++
			} else {
				dead++
			}
			if ms := img.p.Mappings; len(ms) > 0 && !lists[&ms[0]] {
				lists[&ms[0]] = true
				mappings += uint64(len(ms))
			}
		}
	}
	s := table.Stats()
	if s.Live != live || s.Dead != dead || s.Mappings != mappings || int(dead) != len(table.dead) {
		t.Errorf("stats %+v; counted %d live, %d dead, %d mappings, queue %d", s, live, dead, mappings, len(table.dead))
	}
}

func TestApplyChanges(t *testing.T) {
	s := &story{}
	s.exec(9, "a")
	s.maps(9, fileMap(0x1000, 0x2000, 0, "/bin/a"))
	s.fork(10, 9)
	s.exec(10, "b")
	s.maps(10, fileMap(0x1000, 0x2000, 0, "/bin/b"))
	s.exit(10, 10)
	s.maps(9, fileMap(0x7000, 0x8000, 0, "/lib/l"))
	table := fakeTable(t)
	var got []string
	for _, c := range table.Apply(s.events) {
		got = append(got, fmt.Sprintf("%d %s %d %05b", c.Process.PID, c.Process.Exe, len(c.Process.Mappings), c.What))
	}
	want := []string{"9 /bin/a 2 00011", "10 /bin/a 1 10001", "10 /bin/b 1 10011"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	first := table.Live(9)
	again := table.Apply([]Event{{Kind: EventMap, Time: 50, PID: 9, TID: 9, Map: first.Mappings[0]}})
	if len(again) != 0 {
		t.Errorf("mapping the same again: %v", again)
	}
	more := table.Apply([]Event{{Kind: EventMap, Time: 51, PID: 9, TID: 9, Map: fileMap(0x9000, 0xa000, 0, "/lib/m")}})
	if len(more) != 1 || more[0].What != Mapped || more[0].Process.ID != first.ID || more[0].Process.Version <= first.Version {
		t.Errorf("one more mapping: %+v after %+v", more, first)
	}
	if len(first.Mappings) != 2 {
		t.Error("an old snapshot changed")
	}
}

func TestAt(t *testing.T) {
	table := fakeTable(t)
	const s = uint64(time.Second)
	table.Apply([]Event{
		{Kind: EventExec, Time: 10 * s, PID: 9, TID: 9, Comm: "a"},
		{Kind: EventExec, Time: 20 * s, PID: 9, TID: 9, Comm: "b"},
		{Kind: EventExit, Time: 30 * s, PID: 9, TID: 9},
		{Kind: EventFork, Time: 40 * s, PID: 9, TID: 9, PPID: 1},
	})
	for when, want := range map[uint64]string{
		5 * s: "nil", 10 * s: "a", 19 * s: "a", 20 * s: "b", 29 * s: "b",
		30*s + s/2: "b", // on its way out
		35 * s:     "nil", 40 * s: "", 1000 * s: "",
	} {
		got := "nil"
		if p := table.At(9, when); p != nil {
			got = p.Comm
		}
		if got != want {
			t.Errorf("At(9, %d s) = %q, want %q", when/s, got, want)
		}
	}
	if n := table.Forget(25 * s); n != 1 || table.At(9, 15*s) != nil || table.At(9, 25*s) == nil {
		t.Errorf("forgot %d, want 1", n)
	}
	if n := table.Forget(100 * s); n != 1 || table.At(9, 50*s) == nil {
		t.Errorf("forgot %d, want 1", n)
	}
	table.Apply([]Event{{Kind: EventExit, Time: 101 * s, PID: 9, TID: 9}})
	if n := table.Forget(102 * s); n != 1 || len(table.procs) != 0 {
		t.Errorf("forgot %d, %d PIDs are left", n, len(table.procs))
	}
	checkStats(t, table)
}

// fakeProc writes a process into a directory that stands for /proc.
func fakeProc(t *testing.T, root string, pid uint32, state byte, start int, maps string) {
	t.Helper()
	dir := filepath.Join(root, strconv.Itoa(int(pid)))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"stat": fmt.Sprintf("%d (p%d) %c 1 1 1 0 -1 0 0 0 0 0 1 2 0 0 20 0 1 0 %d 0 0", pid, pid, state, start),
		"maps": maps, "status": fmt.Sprintf("NSpid:\t%d\t1\n", pid), "cgroup": "0::/docker/" + hexID + "\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

const oneMap = "1000-2000 r-xp 00000000 fe:00 7 /bin/x\n"

func TestScanFake(t *testing.T) {
	root := t.TempDir()
	fakeProc(t, root, 9, 'S', 100, oneMap)
	fakeProc(t, root, 10, 'Z', 100, "")
	if err := os.MkdirAll(filepath.Join(root, "11"), 0o755); err != nil { // vanished while it was read
		t.Fatal(err)
	}
	table := NewTable(root)
	var changes []Change
	scan := func() {
		t.Helper()
		changes = nil
		if err := table.Scan(t.Context(), func(c Change) { changes = append(changes, c) }); err != nil {
			t.Fatal(err)
		}
	}
	scan()
	if len(changes) != 1 || changes[0].What&(NewImage|Mapped) != NewImage|Mapped {
		t.Fatalf("changes: %+v", changes)
	}
	p := table.At(9, 0)
	if p == nil || p.NSPID != 1 || p.ContainerID != hexID || p.Start != 100 || len(p.Mappings) != 1 || p.Inherited || !p.OwnRoot {
		t.Fatalf("scanned: %+v", p)
	}
	scan()
	if len(changes) != 0 {
		t.Errorf("nothing happened, changes: %+v", changes)
	}

	// What happened before the reading is in it already.
	now := monotonic()
	table.Apply([]Event{
		{Kind: EventFork, Time: 1, PID: 9, TID: 9, PPID: 1},
		{Kind: EventExec, Time: 2, PID: 9, TID: 9, Comm: "old"},
		{Kind: EventMap, Time: 3, PID: 9, TID: 9, Map: fileMap(0x9000, 0xa000, 0, "/old")},
		{Kind: EventExit, Time: 4, PID: 9, TID: 9}, // of another process with this PID
	})
	if got := table.Live(9); got == nil || got.ID != p.ID || len(got.Mappings) != 1 {
		t.Errorf("after old events: %+v", got)
	}

	// Lost records: a library, the exec of 9, the exit of 12.
	table.Apply([]Event{{Kind: EventExec, Time: now, PID: 12, TID: 12, Comm: "y"}, {Kind: EventLost, Time: now + 1, Lost: 3}})
	fakeProc(t, root, 9, 'S', 101, oneMap+"3000-4000 r-xp 00000000 fe:00 8 /lib/y\n")
	scan()
	if got := table.Live(9); got == nil || got.ID == p.ID || len(got.Mappings) != 2 || got.Since < now {
		t.Errorf("after a lost exec: %+v", got)
	}
	if table.Live(12) != nil || table.At(12, now) == nil {
		t.Error("a process whose exit was lost still lives, or is forgotten")
	}
	if err := os.RemoveAll(filepath.Join(root, "9")); err != nil {
		t.Fatal(err)
	}
	if c := table.Rescan(9); len(c) != 1 || c[0].What&Ended == 0 {
		t.Errorf("Rescan of a process that is gone: %+v", c)
	}
	checkStats(t, table)
}

// TestKnown looks at since when the mappings of an image are known to be its own.
func TestKnown(t *testing.T) {
	root := t.TempDir()
	table := NewTable(root)
	known := func(when string, low, high uint64) {
		t.Helper()
		if p := table.Live(9); p == nil || p.Known < low || p.Known > high {
			t.Errorf("%s: %+v, want Known from %d to %d", when, p, low, high)
		}
	}
	before := monotonic()
	fakeProc(t, root, 9, 'S', 100, oneMap)
	table.Rescan(9)
	after := monotonic()
	known("read", before, after)
	table.Apply([]Event{{Kind: EventFork, Time: after + 1, PID: 10, TID: 10, PPID: 9}})
	if p := table.Live(10); p == nil || p.Known != 0 || len(p.Mappings) != 1 {
		t.Errorf("a child has its mappings from its parent, not from a reading: %+v", p)
	}
	table.Apply([]Event{{Kind: EventLost, Time: after + 2, Lost: 1}})
	fakeProc(t, root, 9, 'S', 101, oneMap)
	before = monotonic()
	table.Rescan(9)
	after = monotonic()
	known("read after a lost exec", before, after)
	if err := os.Remove(filepath.Join(root, "9", "maps")); err != nil {
		t.Fatal(err)
	}
	table.Rescan(9)
	known("read without mappings", before, after)
	table.Apply([]Event{{Kind: EventExec, Time: monotonic(), PID: 9, TID: 9, Comm: "b"}})
	known("exec", 0, 0)
}

// A process is read after an exec whose event is applied later only.
func TestRescanAheadOfEvents(t *testing.T) {
	root := t.TempDir()
	table := NewTable(root)
	vdso := func(at stack.Addr) Mapping {
		return Mapping{Begin: at, End: at + 0x1000, Kind: KindVDSO, Path: "[vdso]"}
	}
	table.Apply([]Event{
		{Kind: EventExec, Time: 10, PID: 9, TID: 9, Comm: "a"},
		{Kind: EventMap, Time: 11, PID: 9, TID: 9, Map: vdso(0x7000)},
		{Kind: EventExec, Time: 50, PID: 12, TID: 12, Comm: "other"},
	})
	fakeProc(t, root, 9, 'S', 100, "8000-9000 r-xp 00000000 00:00 0 [vdso]\n")
	table.Rescan(9)
	table.Apply([]Event{{Kind: EventExec, Time: 60, PID: 9, TID: 9, Comm: "b"}, {Kind: EventMap, Time: 61, PID: 9, TID: 9, Map: vdso(0x8000)}})
	if d := cmp.Diff([]string{"10-50 a  1", "50-0 p9  1"}, images(table, 9)); d != "" {
		t.Error(d)
	}
}

// The exit of a process that was read while it exited is not missed.
func TestExitDuringScan(t *testing.T) {
	root := t.TempDir()
	fakeProc(t, root, 9, 'S', 100, oneMap)
	table := NewTable(root)
	if c := table.Rescan(9); len(c) != 1 {
		t.Fatal(c)
	}
	fakeProc(t, root, 9, 'Z', 100, "")
	table.Apply([]Event{{Kind: EventExit, Time: 5, PID: 9, TID: 9}})
	if table.Live(9) != nil {
		t.Error("still lives")
	}
}
