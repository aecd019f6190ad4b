// SPDX-License-Identifier: Apache-2.0

package agent

import (
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
	"github.com/lowflame/lowflame/unwind"
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
	// vmPatience is how long a job may take before the next is begun, and a sample
	// waits for it.
	vmPatience = 2 * time.Second
	// maxVMErrors is after how many errors in a row a virtual machine is given up.
	maxVMErrors = 5
	// maxVMs bounds the virtual machines; other processes are walked as if they had
	// none. maxVMRows bounds the rows kept of all of them, of 16 bytes each, and
	// maxVMWords the words in their tables, 64 MiB: a quarter of all tables.
	maxVMs     = 64
	maxVMRows  = 16 << 20
	maxVMWords = 16 << 20
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

	byImage  map[uint64]*vm // by process.Process.ID
	retired  []retiredTable // oldest first
	words    int            // in tables, those retired too
	rows     int            // of all machines
	waiting  int            // samples
	patience time.Duration  // vmPatience
	jobs     chan vmJob
	updates  chan vmUpdate

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
		byImage: make(map[uint64]*vm), jobs: make(chan vmJob, maxVMs), updates: make(chan vmUpdate, maxVMs),
		patience: vmPatience,
		pids:     make(map[uint32]bool), samples: make(map[uint32]bool),
	}
}

// of returns the virtual machine of a process, nil if it has none or there are too
// many.
func (vs *vms) of(p *process.Process) *vm {
	if runtime.GOARCH != "amd64" {
		return nil // frame pointers
	}
	if v := vs.byImage[p.ID]; v != nil {
		return v
	}
	if p.Until != 0 || len(vs.byImage) >= maxVMs || !slices.ContainsFunc(p.Mappings, func(m process.Mapping) bool { return isLibjvm(&m) }) {
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
	if v.given() || !v.ended.IsZero() || vs.waiting >= maxWaiting || !v.busy && v.next.Sub(now) > vmMaxPause {
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
		vs.fail(v, now)
		return
	}
	covers := monotonic()
	select {
	case vs.jobs <- vmJob{v, covers}:
		v.busy, v.began, v.used, v.covers = true, now, false, covers
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
		case len(v.waiting) > 0, v.used && v.chunks != nil && now.Sub(v.began) > vmIdle:
			vs.begin(v, now)
			if len(v.waiting) > 0 && !v.busy {
				soon := v.next.Sub(now)
				if soon <= 0 { // the worker has enough to do
					soon = vmInterval
				}
				again = min(again, max(soon, time.Millisecond))
			}
		}
		if len(v.waiting) > 0 && (v.given() || !v.ended.IsZero() || now.Sub(v.since) > vmPatience) {
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

// drop forgets a virtual machine. It is not busy.
func (vs *vms) drop(id uint64, v *vm, now time.Time) {
	delete(vs.byImage, id)
	vs.release(v, now)
}

// fail gives the code of a virtual machine up for good. It is not busy.
func (vs *vms) fail(v *vm, now time.Time) {
	v.failed, v.stale, v.settled, v.unsolved = true, true, false, 0
	vs.release(v, now)
}

// release gives back what a virtual machine holds.
func (vs *vms) release(v *vm, now time.Time) {
	for _, c := range v.chunks {
		vs.retireTable(c.table, now)
	}
	clear(v.chunks)
	vs.rows -= v.rows
	v.rows = 0
	vs.note(v.machine.close())
	v.machine = &machine{}
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
		vs.words -= words(vs.retired[n].table.Table)
		vs.unwinder.FreeTable(vs.retired[n].table)
		n++
	}
	vs.retired = append(vs.retired[:0], vs.retired[n:]...)
}

// update takes in what a job found. It returns the samples that waited for it.
func (vs *vms) update(u *vmUpdate) []*unwinder.RawSample {
	v, now := u.vm, time.Now()
	if errors.Is(u.err, errLate) {
		return vs.late(v, u.covers)
	}
	v.busy = false
	if v.late { // it has ended after all
		v.late, v.stale, v.settled, v.unsolved = false, true, false, 0
	}
	waited := vs.take(v, v.covers)
	vs.rows += u.rows - v.rows
	v.rows = u.rows
	level.Debug(vs.logger).Log("msg", "read code of virtual machine", "pid", v.proc.PID, "n", len(u.chunks), "took", u.took, "err", u.err)
	pause := min(max(vmInterval, vmShare*u.took), vmMaxPause)
	switch {
	case !v.ended.IsZero() || v.failed:
		return waited
	case errors.Is(u.err, hotspot.ErrNotReady):
		v.next = now.Add(vmInterval)
		return waited
	case u.err != nil:
		v.next = now.Add(min(vmInterval<<v.errors, vmMaxPause))
		if v.errors++; v.errors >= maxVMErrors || errors.Is(u.err, hotspot.ErrUnknownLayout) {
			vs.fail(v, now)
		}
		return waited
	case vs.rows > maxVMRows && v.rows > maxVMRows/maxVMs:
		vs.fail(v, now)
		return waited
	}
	v.errors = 0
	changed := vs.installAll(v, u, now)
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

// late notes that a job takes too long, unless it has ended meanwhile. It returns the
// samples that waited for it.
func (vs *vms) late(v *vm, covers uint64) []*unwinder.RawSample {
	if !v.busy || v.covers != covers {
		return nil
	}
	v.late, v.stale, v.settled, v.unsolved = true, true, false, 0
	return vs.take(v, math.MaxUint64)
}

// installAll takes in what is in code memory, and reports whether that has changed.
func (vs *vms) installAll(v *vm, u *vmUpdate, now time.Time) bool {
	changed := v.chunks == nil || len(u.chunks) > 0 || !slices.Equal(v.ranges, u.ranges)
	v.ranges = u.ranges
	if v.chunks == nil {
		v.chunks = make(map[uint64]*vmChunk)
	}
	for i := range u.chunks {
		vs.install(v, &u.chunks[i], now)
	}
	return changed
}

// install replaces the table of a piece of code; without room for it, there is none.
func (vs *vms) install(v *vm, c *hotspot.Chunk, now time.Time) {
	if old := v.chunks[c.Begin]; old != nil {
		vs.retireTable(old.table, now)
		delete(v.chunks, c.Begin)
	}
	if c.Table == nil || vs.words+words(c.Table) > maxVMWords {
		return
	}
	t, err := vs.unwinder.InstallTable(c.Table)
	if err != nil {
		vs.note(err)
		return
	}
	vs.words += words(t.Table)
	v.chunks[c.Begin] = &vmChunk{begin: c.Begin, end: c.End, table: t}
}

// words is how many words there are in a table.
func words(t *unwind.Table) int {
	n := 0
	for i := range t.Pieces {
		n += len(t.Pieces[i].Words)
	}
	return n
}

func (vs *vms) note(err error) {
	if err != nil {
		level.Debug(vs.logger).Log("msg", "virtual machine", "err", err)
	}
}
