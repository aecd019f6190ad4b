// SPDX-License-Identifier: Apache-2.0

package process

import (
	"sync"
	"time"
)

// Limits on what a Table remembers of all processes together.
const (
	maxLive     = 65536   // processes that live
	maxDead     = 65536   // images that ended and were not forgotten; the oldest go first
	maxMapTotal = 1 << 20 // mappings; each takes about 100 bytes

	// eagerReads is how many processes a second, and at once, are read from
	// /proc because of an event. At about 50 µs each that is 2.5 % of a CPU.
	eagerReads = 500

	// lateGrace is how long after its exit a process may still be sampled: on
	// its way out of the kernel.
	lateGrace = uint64(time.Second)
)

// Table knows the processes of the machine. All methods are safe for concurrent
// use; At, Live and All never wait for a file to be read.
type Table struct {
	root string // of the proc file system
	self rootID

	writer sync.Mutex // makes changes one after the other; taken before mu
	reads  bucket     // guarded by writer

	mu    sync.RWMutex // guards what follows; written to with writer held as well
	procs map[uint32]*entry
	dead  []deadImage // in the order they ended
	// Events up to lossFrom are known to be complete. epoch counts the losses:
	// an entry of an earlier one may be out of date.
	lastEvent, lossFrom, epoch uint64
	id, version                uint64
	stats                      Stats
}

// Stats counts what a Table holds and what it could not do.
type Stats struct {
	Live, Dead, Mappings uint64 // now; mappings shared after a fork count once

	Events           uint64 // applied
	Reads            uint64 // processes read from /proc
	ReadErrors       uint64 // of which some or all could not be read
	DeferredReads    uint64 // not read at once to save CPU time
	DroppedProcesses uint64 // not taken in: too many live
	DroppedMappings  uint64 // not taken in: too many
}

// Change is what became of one image of a process.
type Change struct {
	Process *Process
	What    What
}

// What is a set of the ways in which an image changed.
type What uint8

const (
	// NewImage: the image was not known before: fork, exec, or first seen.
	NewImage What = 1 << iota
	// Mapped: Mappings changed. It need not be set along with NewImage.
	Mapped
	// Renamed: Comm changed.
	Renamed
	// Detailed: what Inherited speaks of was read.
	Detailed
	// Ended: Until is set, by exec, exit, or because the PID was found reused.
	Ended
)

// entry is what is known of one PID.
type entry struct {
	images []*image // oldest first; only the last one may live
	// leader says that the thread with TID == PID runs, others holds the TIDs
	// of the other threads that do. The process lives while any does.
	leader bool
	others map[uint32]struct{}
	// untracked is set when there were more threads than are told apart.
	untracked bool
	readAt    uint64 // when it was read from /proc; what happened before is in that
	epoch     uint64
	backOff   time.Duration // between readings because of too many mappings
}

// image is the newest snapshot of one image.
type image struct {
	p    *Process
	list *mapList
	// past holds what p.Mappings was before mappings were replaced, oldest first.
	past []past
}

type past struct {
	until    uint64 // when a mapping was replaced
	mappings []Mapping
}

// maxPast bounds image.past. Samples are resolved within a window or two, and
// a process that replaces code faster than that gets the oldest it has.
const maxPast = 16

// mapList counts the images that share one slice of mappings.
type mapList struct {
	refs, n int
}

type deadImage struct {
	pid       uint32
	id, until uint64
}

// NewTable returns an empty table that reads the proc file system mounted at
// procRoot, "/proc" as a rule. That must be the one of the PID namespace whose
// events are applied.
func NewTable(procRoot string) *Table {
	return &Table{root: procRoot, self: ownRoot(), procs: map[uint32]*entry{}}
}

// live returns the image in force, or nil.
func (e *entry) live() *image {
	if e == nil || len(e.images) == 0 {
		return nil
	}
	if img := e.images[len(e.images)-1]; img.p.Until == 0 {
		return img
	}
	return nil
}

// At returns the image of pid that was in force at the time when,
// CLOCK_MONOTONIC ns; nil if none is known. It is the newest snapshot, with the
// mappings of that time where some were replaced since. A process is still
// found shortly after its exit.
func (t *Table) At(pid uint32, when uint64) *Process {
	t.mu.RLock()
	defer t.mu.RUnlock()
	e := t.procs[pid]
	if e == nil {
		return nil
	}
	for i := len(e.images) - 1; i >= 0; i-- {
		p := e.images[i].p
		if p.Since > when {
			continue
		}
		if p.Until != 0 && when > p.Until && when-p.Until > lateGrace {
			return nil
		}
		return e.images[i].at(when)
	}
	return nil
}

// at returns the snapshot, with the mappings it had at the time when.
func (img *image) at(when uint64) *Process {
	for i := range img.past {
		if when < img.past[i].until {
			p := *img.p
			p.Mappings = img.past[i].mappings
			return &p
		}
	}
	return img.p
}

// Live returns the image of pid that is in force, or nil.
func (t *Table) Live(pid uint32) *Process {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if img := t.procs[pid].live(); img != nil {
		return img.p
	}
	return nil
}

// All returns the images in force, in no order.
func (t *Table) All() []*Process {
	t.mu.RLock()
	defer t.mu.RUnlock()
	ps := make([]*Process, 0, t.stats.Live)
	for _, e := range t.procs {
		if img := e.live(); img != nil {
			ps = append(ps, img.p)
		}
	}
	return ps
}

// Forget drops the images that ended before the given time, CLOCK_MONOTONIC ns,
// and returns how many.
func (t *Table) Forget(before uint64) int {
	t.writer.Lock()
	defer t.writer.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for n < len(t.dead) && t.dead[n].until < before {
		t.forget(t.dead[n])
		n++
	}
	t.dropDead(n)
	return n
}

// dropDead takes the first n off t.dead.
func (t *Table) dropDead(n int) {
	t.dead = t.dead[n:]
	if len(t.dead) == 0 {
		t.dead = nil // a burst does not keep its memory
	}
	t.stats.Dead = uint64(len(t.dead))
}

// forget drops one ended image; mu is held.
func (t *Table) forget(d deadImage) {
	e := t.procs[d.pid]
	for i, img := range e.images {
		if img.p.ID == d.id {
			t.release(img.list)
			e.images = append(e.images[:i:i], e.images[i+1:]...)
			break
		}
	}
	if len(e.images) == 0 {
		delete(t.procs, d.pid)
	}
}

func (t *Table) release(l *mapList) {
	if l.refs--; l.refs == 0 {
		t.stats.Mappings -= uint64(l.n)
	}
}

// Stats returns the counters.
func (t *Table) Stats() Stats {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.stats
}

// bucket lets eagerReads pass a second, and as many in a burst.
type bucket struct {
	spent uint64 // in ns of waiting, up to one second
	at    uint64
}

func (b *bucket) take(now uint64) bool {
	const each = uint64(time.Second) / eagerReads
	b.spent -= min(b.spent, now-min(b.at, now))
	b.at = now
	if b.spent+each > uint64(time.Second) {
		return false
	}
	b.spent += each
	return true
}
