// SPDX-License-Identifier: Apache-2.0

package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// A Scan works for scanWork and then rests as long, so that it takes half a CPU
// however many processes there are.
const scanWork = 10 * time.Millisecond

// Scan reads from /proc the processes the table does not know, and after an
// EventLost those it does, and ends those that are not there. Open the Sideband
// before the first Scan: then no process is missed in between. changed, unless
// nil, is called with each change as it is made, on the caller's goroutine.
//
// Processes that vanish or cannot be read are counted in Stats; Scan returns an
// error only if /proc itself cannot be listed or ctx is done.
func (t *Table) Scan(ctx context.Context, changed func(Change)) error {
	if changed == nil {
		changed = func(Change) {}
	}
	began := monotonic()
	proc, err := os.Open(t.root)
	if err != nil {
		return fmt.Errorf("scan processes: %w", err)
	}
	defer proc.Close()
	pace := pacer{ctx: ctx, since: time.Now()}
	seen := map[uint32]struct{}{}
	err = eachPID(proc, func(pid uint32) bool {
		seen[pid] = struct{}{}
		t.scanOne(pid, changed)
		return pace.step() == nil
	})
	if err := errors.Join(ctx.Err(), err); err != nil {
		return fmt.Errorf("scan processes: %w", err)
	}
	for _, p := range t.All() {
		if _, ok := seen[p.PID]; ok || p.Since > began {
			continue
		}
		t.reconcile(p.PID, changed)
		if err := pace.step(); err != nil {
			return fmt.Errorf("scan processes: %w", err)
		}
	}
	return nil
}

type pacer struct {
	ctx   context.Context
	since time.Time
}

// step rests if it is time to, and returns an error if ctx is done.
func (p *pacer) step() error {
	if time.Since(p.since) < scanWork {
		return p.ctx.Err()
	}
	rest := time.NewTimer(scanWork)
	defer rest.Stop()
	select {
	case <-p.ctx.Done():
		return p.ctx.Err()
	case <-rest.C:
		p.since = time.Now()
		return nil
	}
}

// scanOne reads a process unless it is known and up to date.
func (t *Table) scanOne(pid uint32, changed func(Change)) {
	t.mu.RLock()
	e := t.procs[pid]
	current := e.live() != nil && e.epoch == t.epoch
	t.mu.RUnlock()
	if !current {
		t.reconcile(pid, changed)
	}
}

func (t *Table) reconcile(pid uint32, changed func(Change)) {
	for _, c := range t.Rescan(pid) {
		changed(c)
	}
}

// Rescan reads one process from /proc and returns what changed. It ends a
// process that is gone.
func (t *Table) Rescan(pid uint32) []Change {
	t.writer.Lock()
	defer t.writer.Unlock()
	b := t.newBatch()
	b.readAll(pid, monotonic())
	return b.list()
}

// Refresh reads what Process.Inherited speaks of for the image of pid that is
// in force, unless that is known, and returns the image; nil if there is none.
func (t *Table) Refresh(pid uint32) *Process {
	t.writer.Lock()
	defer t.writer.Unlock()
	if p := t.Live(pid); p == nil || !p.Inherited {
		return p
	}
	t.newBatch().readDetails(pid)
	return t.Live(pid)
}

// readAll reads a process and puts it in the table. If it is gone it ends at
// the time exited, unless that is 0: then its end will be told by an event.
func (b *batch) readAll(pid uint32, exited uint64) {
	t := b.t
	r, err := readProcess(t.root, pid, t.self)
	t.mu.Lock()
	defer t.mu.Unlock()
	defer b.publish()
	t.stats.Reads++
	gone := errors.Is(err, errGone) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
	if gone && exited != 0 {
		b.end(t.procs[pid], exited)
	}
	if err != nil {
		t.stats.ReadErrors++
		return
	}
	if r.mapsErr != nil {
		t.stats.ReadErrors++
	}
	b.merge(pid, &r)
}

// merge puts what was read of a process in the table.
func (b *batch) merge(pid uint32, r *reading) {
	t := b.t
	e := t.procs[pid]
	img := e.live()
	if img != nil && replaced(img.p, r) {
		// The event was lost, or is yet to be applied and will be too old then.
		at := t.lastEvent
		if e.epoch != t.epoch {
			at = t.lossFrom
		}
		b.end(e, max(at, img.p.Since+1))
		img = nil
	}
	if img == nil {
		p := Process{PID: pid, Comm: r.stat.Comm}
		if e != nil && len(e.images) > 0 {
			p.Since = e.images[len(e.images)-1].p.Until
		}
		if img = b.add(p, nil); img == nil {
			return
		}
		e = t.procs[pid]
	}
	e.restart(t.epoch)
	e.setThreads(pid, r)
	e.readAt = r.at
	b.update(img, r)
	e.backOff = 0
	if img.p.Truncated {
		e.backOff = min(max(2*e.backOff, minBackOff), maxBackOff)
	}
}

// replaced reports whether r is of another image than p. Each exec puts the
// vDSO elsewhere; only without address space randomization, or without a vDSO,
// must the executable's name decide, which a process with its own root sees
// differently than we do.
func replaced(p *Process, r *reading) bool {
	if p.Start != 0 && p.Start != r.stat.Start {
		return true
	}
	a, b := findVDSO(p.Mappings), findVDSO(r.maps)
	if a != nil && b != nil && a.Begin != b.Begin {
		return true
	}
	return !p.OwnRoot && !r.ownRoot && p.Exe != "" && r.exe != "" && p.Exe != r.exe
}

func findVDSO(ms []Mapping) *Mapping {
	i := slices.IndexFunc(ms, func(m Mapping) bool { return m.Kind == KindVDSO })
	if i < 0 {
		return nil
	}
	return &ms[i]
}

// setThreads gives e, which knows of the first thread only, those of r.
func (e *entry) setThreads(pid uint32, r *reading) {
	e.leader = !r.stat.dead()
	for _, tid := range r.threads {
		if tid != pid {
			e.addThread(pid, tid)
		}
	}
}

// update gives an image what was read of it.
func (b *batch) update(img *image, r *reading) {
	c := b.touch(img, Detailed)
	c.adds = nil // older than the reading
	p := c.img.p
	if p.Comm != r.stat.Comm {
		p.Comm = r.stat.Comm
		c.what |= Renamed
	}
	p.PPID, p.Start = r.stat.PPID, r.stat.Start
	p.KThread = r.stat.Flags&pfKThread != 0
	if p.Exe == "" {
		p.Exe = r.exe
	}
	p.setDetails(r.details)
	if r.mapsErr == nil {
		p.Truncated, p.Known = r.truncated, r.at
		b.setMappings(img, r.maps)
	}
}
