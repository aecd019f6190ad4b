// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"github.com/go-kit/log/level"

	"github.com/lowflame/lowflame/interp/hotspot"
)

// machine is what a job works with.
type machine struct {
	mem *os.File
	vm  *hotspot.VM
}

// vmJob is a reading of a virtual machine's code, queued at a time that no other of
// it is: vm.covers.
type vmJob struct {
	vm     *vm
	covers uint64
}

// vmUpdate is what a job found; or that it has not ended in time, in which case there
// may be another update when it has.
type vmUpdate struct {
	vmJob
	chunks []hotspot.Chunk
	ranges []hotspot.Range
	rows   int // that machine keeps
	took   time.Duration
	err    error
}

// errLate is the error of a job that goes on.
var errLate = errors.New("reading the code of a virtual machine takes too long")

// maxStuck is how many jobs may go on that have not ended in time; with more of them,
// none is begun.
const maxStuck = 8

// run does the jobs, one after the other. A job that does not end is left alone:
// another process's memory may be made so that reading it never returns.
func (vs *vms) run(ctx context.Context, procRoot string) error {
	slots := make(chan struct{}, maxStuck+1)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		var job vmJob
		select {
		case job = <-vs.jobs:
		case <-ctx.Done():
			return nil
		}
		done := make(chan struct{})
		go func() {
			vs.deliver(ctx, vs.do(procRoot, job))
			close(done)
			<-slots
		}()
		patience := time.NewTimer(vs.patience)
		select {
		case <-done:
		case <-patience.C:
			vs.deliver(ctx, vmUpdate{vmJob: job, err: errLate})
		case <-ctx.Done():
		}
		patience.Stop()
	}
}

// deliver hands an update to the event loop.
func (vs *vms) deliver(ctx context.Context, u vmUpdate) {
	select {
	case vs.updates <- u:
		vs.wake()
	case <-ctx.Done():
	}
}

// do does a job. What it reads may have been made to find a mistake in how it is
// read: that is no reason to stop recording the others.
func (vs *vms) do(procRoot string, job vmJob) (u vmUpdate) {
	defer func() {
		if r := recover(); r != nil {
			level.Error(vs.logger).Log("msg", "read code of virtual machine", "pid", job.vm.proc.PID, "panic", r, "stack", debug.Stack())
			u = vmUpdate{err: fmt.Errorf("panic: %v: %w", r, hotspot.ErrUnknownLayout)}
		}
		u.vmJob = job
	}()
	return job.vm.machine.refresh(procRoot, job.vm)
}

// close gives up the memory of the processes. run has returned.
func (vs *vms) close() error {
	var errs []error
	for _, v := range vs.byImage {
		if !v.busy {
			errs = append(errs, v.machine.close())
		}
	}
	return errors.Join(errs...)
}

// refresh reads a virtual machine's code; symbols and bias lead to it the first
// time. It may take long, or for ever: the memory is another process's.
func (m *machine) refresh(procRoot string, v *vm) vmUpdate {
	began := time.Now()
	var u vmUpdate
	u.err = m.open(procRoot, v)
	if u.err == nil {
		u.chunks, u.ranges, u.err = m.vm.Refresh()
		u.rows = m.vm.Rows()
	}
	if u.err != nil {
		u.err = fmt.Errorf("read the code of the virtual machine in process %d: %w", v.proc.PID, u.err)
	}
	slices.SortFunc(u.ranges, func(a, b hotspot.Range) int { return cmp.Compare(a.Begin, b.Begin) })
	u.took = time.Since(began)
	return u
}

func (m *machine) open(procRoot string, v *vm) error {
	var err error
	if m.mem == nil {
		// What is opened stays the memory of this image, whoever gets its PID.
		if m.mem, err = os.Open(fmt.Sprintf("%s/%d/mem", procRoot, v.proc.PID)); err != nil {
			m.mem = nil
			return err
		}
	}
	if m.vm == nil {
		m.vm, err = hotspot.Open(v.symbols, v.bias, m.mem)
	}
	return err
}

func (m *machine) close() error {
	if m.mem == nil {
		return nil
	}
	return m.mem.Close()
}
