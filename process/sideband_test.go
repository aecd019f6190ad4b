// SPDX-License-Identifier: Apache-2.0

package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func onlineCPUs(t testing.TB) []int {
	t.Helper()
	var set unix.CPUSet
	b, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		t.Fatal(err)
	}
	for r := range strings.SplitSeq(strings.TrimSpace(string(b)), ",") {
		var lo, hi int
		if n, _ := fmt.Sscanf(r, "%d-%d", &lo, &hi); n == 1 {
			hi = lo
		}
		for c := lo; c <= hi; c++ {
			set.Set(c)
		}
	}
	var cpus []int
	for c := range 1024 {
		if set.IsSet(c) {
			cpus = append(cpus, c)
		}
	}
	return cpus
}

// openSideband watches the machine until the test ends.
func openSideband(t testing.TB, config SidebandConfig) *Sideband {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to watch all processes")
	}
	s, err := OpenSideband(onlineCPUs(t), config)
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

// TestSidebandExecs starts 200 programs and looks for each record of each.
func TestSidebandExecs(t *testing.T) {
	s := openSideband(t, SidebandConfig{RingBytes: 1 << 20}) // others' events need room too
	const n = 200
	pids := make(chan uint32, n)
	go func() {
		defer close(pids)
		for range n {
			cmd := exec.Command("/bin/true")
			if err := cmd.Run(); err != nil {
				t.Error(err)
			}
			pids <- uint32(cmd.ProcessState.Pid())
		}
	}()
	var latency []time.Duration
	seen := map[uint32][]EventKind{}
	last, late := uint64(0), 0
	for done := false; !done; {
		done = len(pids) == n // what they did is there to be read
		events, lost, err := s.Read(t.Context(), 200*time.Millisecond)
		if err != nil || lost != 0 {
			t.Fatalf("%d lost, %v", lost, err)
		}
		now := monotonic()
		for _, ev := range events {
			if ev.Time < last {
				late++
			}
			last = max(last, ev.Time)
			latency = append(latency, time.Duration(now-ev.Time))
			seen[ev.PID] = append(seen[ev.PID], ev.Kind)
		}
	}
	// A host may take a CPU away between the time and the record.
	if late > len(latency)/100 || s.Stats().Late != uint64(late) {
		t.Errorf("%d of %d events come after younger ones, %+v", late, len(latency), s.Stats())
	}
	maps := 0
	for pid := range pids {
		got := seen[pid]
		inner := slices.DeleteFunc(slices.Clone(got), func(k EventKind) bool { return k == EventMap })
		maps += len(got) - len(inner)
		// Go's os/exec forks with CLONE_VFORK; there is one thread.
		if !slices.Equal(inner, []EventKind{EventFork, EventExec, EventExit}) || len(got)-len(inner) < 3 || got[1] != EventExec {
			t.Errorf("process %d: %v", pid, got)
		}
	}
	slices.Sort(latency)
	sum := time.Duration(0)
	for _, d := range latency {
		sum += d
	}
	t.Logf("%d events, %d of them mappings of our children; from event to reader: mean %v, p50 %v, p99 %v, max %v; %+v", len(latency), maps,
		sum/time.Duration(len(latency)), latency[len(latency)/2], latency[len(latency)*99/100], latency[len(latency)-1], s.Stats())
}

// A file comes with its build ID or its inode, as asked.
func TestSidebandFileID(t *testing.T) {
	for _, noBuildID := range []bool{false, true} {
		s := openSideband(t, SidebandConfig{NoBuildID: noBuildID})
		cmd := exec.Command("/bin/true")
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat("/bin/true", &st); err != nil {
			t.Fatal(err)
		}
		found := false
		for _, ev := range readSoFar(t, s) {
			if ev.Kind != EventMap || ev.PID != uint32(cmd.ProcessState.Pid()) || !strings.HasSuffix(ev.Map.Path, "/bin/true") {
				continue
			}
			found = true
			if id := ev.Map.File; noBuildID && (id.Ino != st.Ino || id.Dev != st.Dev || id.BuildID != "") ||
				!noBuildID && (len(id.BuildID) != 20 || id.Ino != 0) {
				t.Errorf("NoBuildID %v: %+v", noBuildID, ev.Map)
			}
		}
		if !found {
			t.Errorf("NoBuildID %v: no mapping seen", noBuildID)
		}
	}
}

// readSoFar returns what has happened until now; it waits a little if that is
// nothing. The kernel writes a record before what it is about goes on, so that a Read
// that begins later has it. Others' events never end on a busy machine.
func readSoFar(t testing.TB, s *Sideband) []Event {
	t.Helper()
	events, _, err := s.Read(t.Context(), 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Clone(events)
}

// What does not fit a ring is counted, told, and made good by a Scan.
func TestSidebandLost(t *testing.T) {
	s := openSideband(t, SidebandConfig{RingBytes: 1})
	table := NewTable("/proc")
	if err := table.Scan(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if err := exec.Command("/bin/true").Run(); err != nil {
			t.Fatal(err)
		}
	}
	keep := start(t, exec.Command("/bin/sleep", "1000"))
	var lost, told uint64
	for deadline := time.Now().Add(5 * time.Second); lost == 0 && time.Now().Before(deadline); {
		// A LOST record is written before the first record that fits again.
		if err := exec.Command("/bin/true").Run(); err != nil {
			t.Fatal(err)
		}
		events, n, err := s.Read(t.Context(), 100*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		lost += n
		for _, ev := range events {
			told += ev.Lost
		}
		table.Apply(events)
	}
	if lost == 0 || told != lost || s.Stats().Lost != lost {
		t.Errorf("%d records lost, %d told of, %+v", lost, told, s.Stats())
	}
	if err := table.Scan(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if p := table.Live(keep); p == nil || p.Comm != "sleep" || len(p.Mappings) < 3 {
		t.Errorf("after the scan: %+v", p)
	}
}

func TestSidebandWait(t *testing.T) {
	s := openSideband(t, SidebandConfig{WakeupBytes: 128 << 10}) // others' events do not wake
	readSoFar(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	for {
		events, _, err := s.Read(ctx, -1)
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if err != nil || len(events) == 0 && ctx.Err() == nil {
			t.Fatalf("Read = %d events, %v", len(events), err)
		}
	}
	if _, _, err := s.Read(t.Context(), 0); err != nil {
		t.Error(err)
	}
	go func() {
		time.Sleep(20 * time.Millisecond)
		s.Wake()
	}()
	began := time.Now()
	for { // ends by Wake or fails by the test's own timeout
		events, _, err := s.Read(t.Context(), -1)
		if err != nil {
			t.Fatal(err)
		}
		if len(events) == 0 {
			break
		}
	}
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("woken after %v", d)
	}
}

func TestSidebandReopen(t *testing.T) {
	s := openSideband(t, SidebandConfig{})
	for _, cpu := range onlineCPUs(t) {
		s.end(cpu)
	}
	if ended := s.Ended(); !slices.Equal(ended, onlineCPUs(t)) {
		t.Errorf("ended: %v", ended)
	}
	for _, cpu := range onlineCPUs(t) {
		if err := s.Reopen(cpu); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.Ended()) != 0 || len(s.rings) != len(onlineCPUs(t)) {
		t.Errorf("ended: %v, %d rings", s.Ended(), len(s.rings))
	}
	if err := exec.Command("/bin/true").Run(); err != nil {
		t.Fatal(err)
	}
	events := readSoFar(t, s)
	for _, want := range []Event{{Kind: EventExec, Comm: "true"}, {Kind: EventLost}} {
		if !slices.ContainsFunc(events, func(ev Event) bool { return ev.Kind == want.Kind && ev.Comm == want.Comm }) {
			t.Errorf("%+v is not among %d events", want, len(events))
		}
	}
	if err := s.Reopen(4000); err == nil {
		t.Error("CPU 4000 was opened")
	}
}

// A ring that is new tells of the gap before it, even if not all went well.
func TestSidebandReopenFails(t *testing.T) {
	s := openSideband(t, SidebandConfig{})
	old := s.rings[0]
	mem := old.mem
	old.mem = mem[:len(mem)-1] // x/sys refuses to unmap that
	t.Cleanup(func() {
		if err := unix.Munmap(mem); err != nil {
			t.Error(err)
		}
	})
	if err := s.Reopen(old.cpu); err == nil {
		t.Error("no error")
	}
	if s.rings[0] == old || !slices.ContainsFunc(s.pending, func(ev Event) bool { return ev.Kind == EventLost }) {
		t.Errorf("%d events, none of them says that some were lost", len(s.pending))
	}
}

// Without privileges the error says what is missing.
func TestSidebandNotPermitted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to give it up")
	}
	result := make(chan error)
	go func() {
		// Only this thread gives up root; it ends with the goroutine.
		runtime.LockOSThread()
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534); e != 0 {
			result <- e
			return
		}
		_, err := OpenSideband([]int{0}, SidebandConfig{})
		result <- err
	}()
	if err := <-result; !errors.Is(err, ErrNotPermitted) || !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EPERM) {
		t.Errorf("OpenSideband without privileges: %v", err)
	} else {
		t.Log(err)
	}
}

// Loading a BPF program adds a symbol to the kernel, and closing it removes it.
func TestSidebandKernelSymbols(t *testing.T) {
	s := openSideband(t, SidebandConfig{KernelSymbols: true})
	// r0 = 0; exit (linux/bpf.h: struct bpf_insn; union bpf_attr, BPF_PROG_LOAD)
	insns := [2]uint64{0x00000000000000b7, 0x0000000000000095}
	license := []byte("GPL\x00")
	attr := struct {
		kind, count    uint32
		insns, license uint64
		log            [24]byte
		name           [16]byte
		rest           [64]byte
	}{kind: unix.BPF_PROG_TYPE_SOCKET_FILTER, count: 2,
		insns: uint64(uintptr(unsafe.Pointer(&insns))), license: uint64(uintptr(unsafe.Pointer(&license[0])))}
	copy(attr.name[:], "lowflame_test")
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(&insns)
	runtime.KeepAlive(license)
	if errno != 0 {
		t.Fatal(errno)
	}
	isOurs := func(ev Event) bool {
		return ev.Kind == EventKernelSymbol && strings.HasSuffix(ev.Symbol.Name, "_lowflame_test")
	}
	var added KernelSymbol
	for _, ev := range readSoFar(t, s) {
		if isOurs(ev) && !ev.Symbol.Unregister {
			added = ev.Symbol
		}
	}
	if added.Addr == 0 || added.Len == 0 || added.Type != unix.PERF_RECORD_KSYMBOL_TYPE_BPF {
		t.Fatalf("symbol: %+v", added)
	}
	if err := unix.Close(int(fd)); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); { // the kernel frees it some time later
		for _, ev := range readSoFar(t, s) {
			if isOurs(ev) && ev.Symbol.Unregister && ev.Symbol.Addr == added.Addr {
				return
			}
		}
	}
	t.Error("the symbol was not removed")
}

// start runs cmd until the test ends and returns its PID.
func start(t testing.TB, cmd *exec.Cmd) uint32 {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	return uint32(cmd.Process.Pid)
}

// BenchmarkSidebandExec starts programs; ns-reading is our own share.
func BenchmarkSidebandExec(b *testing.B) {
	s := openSideband(b, SidebandConfig{})
	table := NewTable("/proc")
	events, busy := 0, time.Duration(0)
	for b.Loop() {
		if err := exec.Command("/bin/true").Run(); err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		evs, _, err := s.Read(context.Background(), time.Second)
		if err != nil || len(evs) == 0 {
			b.Fatal(len(evs), err)
		}
		table.Apply(evs)
		table.Forget(monotonic())
		busy += time.Since(began)
		events += len(evs)
	}
	b.ReportMetric(float64(busy.Nanoseconds())/float64(events), "ns/event")
	b.ReportMetric(float64(busy.Nanoseconds())/float64(b.N), "ns-reading/exec")
}
