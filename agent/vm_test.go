// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-kit/log"
	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/bpf/unwinder"
	"github.com/lowflame/lowflame/interp/hotspot"
	"github.com/lowflame/lowflame/process"
	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/unwind"
)

// newVM makes virtual machines, and one of them.
func newVM() (*vms, *vm) {
	vs := newVMs(nil, nil, nil, log.NewNopLogger(), func() {})
	return vs, addVM(vs, 1)
}

func addVM(vs *vms, pid uint32) *vm {
	v := &vm{proc: &process.Process{ID: uint64(pid), PID: pid}, machine: &machine{}, symbols: hotspot.Symbols{}}
	vs.byImage[v.proc.ID] = v
	return v
}

// fails reports whether a virtual machine is given up for good after an error.
func fails(vs *vms, v *vm, err error) bool {
	vs.update(&vmUpdate{vmJob: vmJob{vm: v}, err: err})
	return v.failed
}

func TestVMErrors(t *testing.T) {
	vs, v := newVM()
	for range 3 * maxVMErrors {
		if fails(vs, v, hotspot.ErrNotReady) {
			t.Fatal("given up while it was starting")
		}
	}
	for range 3 {
		for range maxVMErrors - 1 {
			if fails(vs, v, io.ErrUnexpectedEOF) {
				t.Fatal("given up though it could be read in between")
			}
		}
		vs.update(&vmUpdate{vmJob: vmJob{vm: v}})
	}
	for i := range maxVMErrors {
		if fails(vs, v, io.ErrUnexpectedEOF) != (i == maxVMErrors-1) {
			t.Fatalf("after %d errors: given up is %v", i+1, v.failed)
		}
	}
	vs, v = newVM()
	if !fails(vs, v, fmt.Errorf("heap: %w", hotspot.ErrUnknownLayout)) {
		t.Error("not given up though it is not understood")
	}
}

// TestVMGivenUp looks at what the code is after the virtual machine has been given up.
func TestVMGivenUp(t *testing.T) {
	m := &process.Mapping{Begin: 0x1000, End: 0x9000, Kind: process.KindAnon}
	for _, known := range []bool{false, true} {
		vs, v := newVM()
		want := unwinder.MapFP
		if known {
			vs.update(&vmUpdate{vmJob: vmJob{vm: v}, ranges: []hotspot.Range{{Begin: 0x2000, End: 0x3000}}})
			want = unwinder.MapNoRule
		}
		fails(vs, v, hotspot.ErrUnknownLayout)
		got := v.mappings(nil, m)
		if len(got) != 1 || got[0].Kind != want || got[0].Begin != 0x1000 || got[0].End != 0x9000 {
			t.Errorf("tables known: %v; mappings %+v, want one of kind %d", known, got, want)
		}
		if code := v.code(m, 0x8000); code.FPWalk == known || (code.Table != nil) != known {
			t.Errorf("tables known: %v; code %+v", known, code)
		}
	}
}

// startVMs does the jobs of virtual machines that have patience for 50 ms.
func startVMs(t *testing.T, vs *vms, procRoot string) {
	t.Helper()
	vs.patience = 50 * time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- vs.run(ctx, procRoot) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, vs.close()); err != nil {
			t.Error(err)
		}
	})
}

// stickVM makes memory of a process that does not answer until the file returned is
// written to.
func stickVM(t *testing.T, procRoot string, v *vm) string {
	t.Helper()
	mem := filepath.Join(procRoot, fmt.Sprint(v.proc.PID), "mem")
	if err := errors.Join(os.Mkdir(filepath.Dir(mem), 0o700), unix.Mkfifo(mem, 0o600)); err != nil {
		t.Fatal(err)
	}
	return mem
}

// awaitUpdate takes in the next update.
func awaitUpdate(t *testing.T, vs *vms) vmUpdate {
	t.Helper()
	select {
	case u := <-vs.updates:
		vs.update(&u)
		return u
	case <-time.After(10 * time.Second):
		t.Fatal("no update")
	}
	return vmUpdate{}
}

// TestVMStuck has the memory of one process not answer: those behind it are read, and
// it goes on when the memory has answered.
func TestVMStuck(t *testing.T) {
	vs, stuck := newVM()
	next := addVM(vs, 2)
	root := t.TempDir()
	mem := stickVM(t, root, stuck)
	startVMs(t, vs, root)
	vs.begin(stuck, time.Now())
	vs.begin(next, time.Now())
	if u := awaitUpdate(t, vs); u.vm != stuck || !errors.Is(u.err, errLate) || !stuck.given() || stuck.failed || !stuck.busy {
		t.Fatalf("update %+v of process %d; want that it is late", u, u.vm.proc.PID)
	}
	if u := awaitUpdate(t, vs); u.vm != next || !errors.Is(u.err, os.ErrNotExist) || next.busy || next.failed {
		t.Fatalf("update %+v of process %d; want that it is not there", u, u.vm.proc.PID)
	}
	w, err := os.OpenFile(mem, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if u := awaitUpdate(t, vs); u.vm != stuck || u.err == nil || stuck.busy || stuck.given() || stuck.errors != 1 {
		t.Fatalf("update %+v of process %d; want that it cannot be read", u, u.vm.proc.PID)
	}
}

// TestVMManyStuck has more memories not answer than are waited for.
func TestVMManyStuck(t *testing.T) {
	vs, _ := newVM()
	root := t.TempDir()
	var stuck []string
	for i := range uint32(maxStuck + 3) {
		v := addVM(vs, 10+i)
		stuck = append(stuck, stickVM(t, root, v))
		vs.begin(v, time.Now())
	}
	startVMs(t, vs, root)
	for range maxStuck + 1 {
		if u := awaitUpdate(t, vs); !errors.Is(u.err, errLate) {
			t.Fatalf("update %+v; want that it is late", u)
		}
	}
	time.Sleep(2 * vs.patience)
	if len(vs.updates) != 0 || len(vs.jobs) != 2 {
		t.Errorf("%d updates and %d jobs queued, want none and 2", len(vs.updates), len(vs.jobs))
	}
	for _, mem := range stuck { // in the order they are opened in
		w, err := os.OpenFile(mem, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
	}
	for vs.byImage[10+maxStuck+2].errors == 0 {
		awaitUpdate(t, vs)
	}
}

// TestVMLate has a job end just when it is given up.
func TestVMLate(t *testing.T) {
	vs, v := newVM()
	vs.begin(v, time.Now())
	job := <-vs.jobs
	vs.update(&vmUpdate{vmJob: job})
	vs.update(&vmUpdate{vmJob: job, err: errLate})
	if v.given() || v.busy {
		t.Errorf("late %v, busy %v after the job has ended", v.late, v.busy)
	}
}

// TestVMPanic has a mistake in what reads a virtual machine.
func TestVMPanic(t *testing.T) {
	vs, v := newVM()
	mem, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	v.machine = &machine{mem: mem, vm: &hotspot.VM{}}
	startVMs(t, vs, t.TempDir())
	vs.begin(v, time.Now())
	if u := awaitUpdate(t, vs); u.vm != v || !errors.Is(u.err, hotspot.ErrUnknownLayout) || !v.failed {
		t.Errorf("update %+v, given up: %v", u, v.failed)
	}
}

// TestVMBounds has too many virtual machines, jobs and tables.
func TestVMBounds(t *testing.T) {
	vs, v := newVM()
	for i := range uint32(maxVMs) {
		vs.jobs <- vmJob{vm: addVM(vs, 2+i)}
	}
	java := &process.Process{ID: 999, PID: 999, Mappings: []process.Mapping{{Kind: process.KindFile, Path: "/jvm/libjvm.so"}}}
	if vs.of(java) != nil {
		t.Errorf("more than %d virtual machines", maxVMs)
	}
	vs.wait(v, &unwinder.RawSample{})
	if _, again := vs.tick(time.Now()); again != vmInterval || v.busy {
		t.Errorf("to be called again in %v, busy %v, while no job can be begun; want %v", again, v.busy, vmInterval)
	}
	vs.words = maxVMWords
	table := &unwind.Table{Pieces: []unwind.Piece{{Words: make([]uint32, 1)}}}
	vs.update(&vmUpdate{vmJob: vmJob{vm: v}, chunks: []hotspot.Chunk{{Begin: 0x80000, End: 0x100000, Table: table}}})
	if len(v.chunks) != 0 || vs.words != maxVMWords {
		t.Errorf("%d tables of %d words, though there is no room", len(v.chunks), vs.words)
	}
	vs.update(&vmUpdate{vmJob: vmJob{vm: v}, rows: maxVMRows + 1})
	if !v.failed || vs.rows != 0 {
		t.Errorf("given up: %v, with %d rows kept", v.failed, vs.rows)
	}
}

// TestVMUnsolved has samples be of no use that waiting does not help.
func TestVMUnsolved(t *testing.T) {
	_, v := newVM()
	v.ended = time.Now()
	s, sample := &Session{}, &stack.Sample{}
	sample.Stop = stack.StopNoRule
	for range 2 * maxUnsolved {
		s.unsolved(v, sample)
	}
	if v.settled {
		t.Error("the process after one that has ended is settled")
	}
}
