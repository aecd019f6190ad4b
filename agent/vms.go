// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"math"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"

	"github.com/lowflame/lowflame/bpf/unwinder"
	"github.com/lowflame/lowflame/interp/hotspot"
	"github.com/lowflame/lowflame/process"
	"github.com/lowflame/lowflame/stack"
)

const (
	// vmInterval is how often at most one virtual machine's code is read while
	// samples lie in code not known, vmIdle how often when none do. Code may be
	// replaced by other code without anybody noticing.
	vmInterval = 100 * time.Millisecond
	vmIdle     = time.Second
	vmMaxPause = time.Second
	// vmShare is the share of a CPU that reading may take: 1/10.
	vmShare = 10
	// vmPatience is how long a job may take, and a sample waits for it.
	vmPatience = 2 * time.Second
	// maxWaiting bounds the samples that wait, of 17 KiB at least.
	maxWaiting = 512
	// maxUnsolved is after how many samples in code that cannot be walked no more
	// of them are sent raw, until the code has been read again.
	maxUnsolved = 16
	// tableGrace is how long a replaced table is left alone: longer than a walk, or a
	// child that inherited it, goes on using it.
	tableGrace = 2 * time.Second
)

// vms knows the virtual machines in the processes. It belongs to the event loop, but
// for sampled.
type vms struct {
	unwinder *unwinder.Unwinder
	files    *files
	table    *process.Table
	logger   log.Logger
	wake     func() // has the event loop run

	byImage map[uint64]*vm // by process.Process.ID
	retired []retiredTable // oldest first
	waiting int            // samples
	jobs    chan *vm
	updates chan vmUpdate

	mu      sync.Mutex // guards used
	pids    map[uint32]bool
	samples map[uint32]bool // of pids, those with a sample since the last tick
}

type retiredTable struct {
	table *unwinder.InstalledTable
	at    time.Time
}

func newVMs(u *unwinder.Unwinder, f *files, t *process.Table, logger log.Logger, wake func()) *vms {
	return &vms{
		unwinder: u, files: f, table: t, logger: logger, wake: wake,
		byImage: make(map[uint64]*vm), jobs: make(chan *vm, 64), updates: make(chan vmUpdate, 64),
		pids: make(map[uint32]bool), samples: make(map[uint32]bool),
	}
}

// of returns the virtual machine of a process, nil if it has none.
func (vs *vms) of(p *process.Process) *vm {
	if runtime.GOARCH != "amd64" {
		return nil // frame pointers
	}
	if v := vs.byImage[p.ID]; v != nil {
		return v
	}
	if p.Until != 0 || !slices.ContainsFunc(p.Mappings, func(m process.Mapping) bool { return isLibjvm(&m) }) {
		return nil
	}
	v := &vm{proc: p, machine: &machine{}}
	vs.byImage[p.ID] = v
	vs.mu.Lock()
	vs.pids[p.PID] = true
	vs.mu.Unlock()
	return v
}

// sampled notes that processes have been sampled. Safe for concurrent use.
func (vs *vms) sampled(samples []stack.Sample) {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	for i := range samples {
		if pid := samples[i].PID; vs.pids[pid] {
			vs.samples[pid] = true
		}
	}
}

// wait takes a raw sample that lies in code not known, to be walked when that has
// been read. It returns false if waiting is no use.
func (vs *vms) wait(v *vm, r *unwinder.RawSample) bool {
	now := time.Now()
	if v.failed || !v.ended.IsZero() || vs.waiting >= maxWaiting || !v.busy && v.next.Sub(now) > vmMaxPause {
		return false
	}
	if len(v.waiting) == 0 {
		v.since = now
	}
	v.waiting = append(v.waiting, r)
	vs.waiting++
	vs.begin(v, now)
	return true
}

// take returns the samples that wait for a virtual machine, which do no longer: those
// from before a time, CLOCK_MONOTONIC ns.
func (vs *vms) take(v *vm, before uint64) []*unwinder.RawSample {
	var waited, still []*unwinder.RawSample
	for _, r := range v.waiting {
		if r.Time < before {
			waited = append(waited, r)
		} else {
			still = append(still, r)
		}
	}
	v.waiting, v.since = still, time.Now()
	vs.waiting -= len(waited)
	return waited
}

// begin has the code of a virtual machine read, unless it is too early for that.
func (vs *vms) begin(v *vm, now time.Time) {
	if v.busy || v.failed || !v.ended.IsZero() || now.Before(v.next) {
		return
	}
	if v.symbols == nil && !vs.find(v) {
		v.fail()
		return
	}
	select {
	case vs.jobs <- v:
		v.busy, v.began, v.used, v.covers = true, now, false, monotonic()
	default: // the worker has enough to do
	}
}

// find finds the symbols of the library.
func (vs *vms) find(v *vm) bool {
	if p := vs.table.Live(v.proc.PID); p != nil && p.ID == v.proc.ID {
		v.proc = p
	}
	for i := range v.proc.Mappings {
		m := &v.proc.Mappings[i]
		if !isLibjvm(m) {
			continue
		}
		f, _ := vs.files.get(v.proc, m)
		if f == nil || f.object == nil {
			continue
		}
		symbols, ok := hotspot.FindSymbols(f.object)
		bias, mapped := f.bias(m)
		if ok && mapped {
			v.symbols, v.bias = symbols, bias
			return true
		}
	}
	return false
}

// stale returns the virtual machines whose processes are to be published again.
func (vs *vms) stale() []*vm {
	var out []*vm
	for _, v := range vs.byImage {
		if v.stale {
			v.stale = false
			out = append(out, v)
		}
	}
	return out
}

// tick begins what is due and gives back what is not used any more. It returns the
// samples that have waited long enough, and when to call it again.
func (vs *vms) tick(now time.Time) (late []*unwinder.RawSample, again time.Duration) {
	vs.markUsed()
	again = time.Second
	for id, v := range vs.byImage {
		switch {
		case !v.ended.IsZero():
			if now.Sub(v.ended) > tableGrace && !v.busy {
				vs.drop(id, v, now)
			}
		case v.busy:
			if now.Sub(v.began) > vmPatience && !v.failed {
				v.fail()
			}
		case len(v.waiting) > 0, v.used && v.chunks != nil && now.Sub(v.began) > vmIdle:
			vs.begin(v, now)
			if len(v.waiting) > 0 {
				again = min(again, max(v.next.Sub(now), time.Millisecond))
			}
		}
		if len(v.waiting) > 0 && (v.failed || !v.ended.IsZero() || now.Sub(v.since) > vmPatience) {
			late = append(late, vs.take(v, math.MaxUint64)...)
		}
	}
	vs.reclaim(now)
	return late, again
}

// markUsed marks the virtual machines that have been sampled since the last tick.
func (vs *vms) markUsed() {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	for _, v := range vs.byImage {
		v.used = v.used || vs.samples[v.proc.PID]
	}
	clear(vs.samples)
}

// retire notes that an image has ended. Its last samples are still to be walked.
func (vs *vms) retire(p *process.Process) {
	if v := vs.byImage[p.ID]; v != nil {
		v.ended = time.Now()
		vs.mu.Lock()
		delete(vs.pids, p.PID)
		vs.mu.Unlock()
	}
}

// drop forgets a virtual machine.
func (vs *vms) drop(id uint64, v *vm, now time.Time) {
	delete(vs.byImage, id)
	for _, c := range v.chunks {
		vs.retireTable(c.table, now)
	}
	vs.note(v.machine.close())
}

func (vs *vms) retireTable(t *unwinder.InstalledTable, now time.Time) {
	if t != nil {
		vs.retired = append(vs.retired, retiredTable{t, now})
	}
}

// reclaim frees the tables that no walk can use any more.
func (vs *vms) reclaim(now time.Time) {
	n := 0
	for n < len(vs.retired) && now.Sub(vs.retired[n].at) > tableGrace {
		vs.unwinder.FreeTable(vs.retired[n].table)
		n++
	}
	vs.retired = append(vs.retired[:0], vs.retired[n:]...)
}

// update takes in what a job found. It returns the samples that waited for it.
func (vs *vms) update(u *vmUpdate) []*unwinder.RawSample {
	v, now := u.vm, time.Now()
	v.busy = false
	waited := vs.take(v, v.covers)
	level.Debug(vs.logger).Log("msg", "read code of virtual machine", "pid", v.proc.PID, "n", len(u.chunks), "took", u.took, "err", u.err)
	pause := min(max(vmInterval, vmShare*u.took), vmMaxPause)
	switch {
	case !v.ended.IsZero() || v.failed:
		return waited
	case errors.Is(u.err, hotspot.ErrNotReady):
		v.next = now.Add(vmInterval)
		return waited
	case u.err != nil:
		v.fail()
		return waited
	}
	changed := v.chunks == nil || len(u.chunks) > 0 || !slices.Equal(v.ranges, u.ranges)
	v.ranges = u.ranges
	if v.chunks == nil {
		v.chunks = make(map[uint64]*vmChunk)
	}
	for i := range u.chunks {
		vs.install(v, &u.chunks[i], now)
	}
	if !changed && len(waited) > 0 { // reading did not help
		pause = min(max(2*v.pause, pause), 2*vmMaxPause)
	}
	v.pause = pause
	v.next = now.Add(pause)
	if changed || v.settled { // publishing undoes that
		v.stale, v.settled, v.unsolved = true, false, 0
	}
	return waited
}

// install replaces the table of a piece of code.
func (vs *vms) install(v *vm, c *hotspot.Chunk, now time.Time) {
	one := &vmChunk{begin: c.Begin, end: c.End}
	if c.Table != nil {
		var err error
		if one.table, err = vs.unwinder.InstallTable(c.Table); err != nil {
			vs.note(err)
		}
	}
	if old := v.chunks[c.Begin]; old != nil {
		vs.retireTable(old.table, now)
	}
	v.chunks[c.Begin] = one
}

func (vs *vms) note(err error) {
	if err != nil {
		level.Debug(vs.logger).Log("msg", "virtual machine", "err", err)
	}
}

// run does the jobs, one after the other. A job that does not end is left alone:
// another process's memory may be made so that reading it never returns.
func (vs *vms) run(ctx context.Context, procRoot string) error {
	for {
		var v *vm
		select {
		case v = <-vs.jobs:
		case <-ctx.Done():
			return nil
		}
		done := make(chan vmUpdate, 1)
		go func() { done <- v.machine.refresh(procRoot, v) }()
		patience := time.NewTimer(vmPatience)
		select {
		case u := <-done:
			vs.updates <- u
			vs.wake()
		case <-patience.C: // tick has given it up
		case <-ctx.Done():
		}
		patience.Stop()
	}
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
