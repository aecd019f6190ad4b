// SPDX-License-Identifier: Apache-2.0

package process

import (
	"maps"
	"math"
	"slices"
)

// Apply brings the table up to date with events, which must come in the order
// Sideband.Read gives them, and returns what became of each image they touched,
// in the order they touched them. Pass all events of one Read together: then an
// image is copied once. Events about the kernel are ignored.
//
// After an exec Apply reads a little of /proc/PID, and all of it for a process
// not known before, as long as that costs little CPU time. An EventLost makes
// the next Scan read every process anew.
func (t *Table) Apply(events []Event) []Change {
	t.writer.Lock()
	defer t.writer.Unlock()
	b := t.newBatch()
	t.mu.Lock()
	for i := range events {
		b.apply(&events[i])
	}
	b.publish()
	t.stats.Events += uint64(len(events))
	t.mu.Unlock()
	b.run()
	return b.list()
}

// invisible reports whether a PID in a record stands for none: the idle task,
// or a process outside our PID namespace (kernel: perf_event_pid_type).
func invisible(pid uint32) bool { return pid == 0 || pid == math.MaxUint32 }

func (b *batch) apply(ev *Event) {
	if ev.Kind == EventLost {
		b.t.epoch++
		b.t.lossFrom = b.t.lastEvent
		return
	}
	if invisible(ev.PID) {
		return
	}
	b.t.lastEvent = max(b.t.lastEvent, ev.Time)
	switch ev.Kind {
	case EventFork:
		if ev.PID == ev.PPID {
			b.thread(ev)
		} else {
			b.fork(ev)
		}
	case EventExec:
		b.exec(ev)
	case EventComm:
		if img := b.current(ev); img != nil && ev.TID == ev.PID && img.p.Comm != ev.Comm {
			b.touch(img, Renamed).img.p.Comm = ev.Comm
		}
	case EventMap:
		if img := b.current(ev); img != nil {
			b.mapped(img, ev.Map, ev.Time)
		}
	case EventExit:
		b.exit(ev)
	}
}

// current returns the image in force that ev is about. It returns nil if there
// is none, in which case the process will be read from /proc, or if ev happened
// before it was read from there.
func (b *batch) current(ev *Event) *image {
	e := b.t.procs[ev.PID]
	img := e.live()
	if img == nil {
		b.jobs[ev.PID] = job{level: readAll}
		return nil
	}
	if ev.Time <= e.readAt {
		return nil
	}
	return img
}

// fork makes the image of a new process, which begins as that of its parent.
func (b *batch) fork(ev *Event) {
	e := b.t.procs[ev.PID]
	if e.live() != nil {
		if ev.Time <= e.readAt {
			return
		}
		b.end(e, ev.Time) // its exit was lost
	}
	p := Process{PID: ev.PID, PPID: ev.PPID, Since: ev.Time, Inherited: true}
	var list *mapList
	epoch := b.t.epoch
	if parent := b.t.procs[ev.PPID].live(); parent != nil {
		b.flush(parent)
		epoch = b.t.procs[ev.PPID].epoch
		q := parent.p
		p.Comm, p.Exe, p.Cgroup, p.ContainerID = q.Comm, q.Exe, q.Cgroup, q.ContainerID
		p.OwnRoot, p.KThread, p.Truncated = q.OwnRoot, q.KThread, q.Truncated
		p.Mappings, list = q.Mappings, parent.list
	} else {
		b.jobs[ev.PID] = job{level: readAll}
	}
	if b.add(p, list) != nil {
		b.t.procs[ev.PID].restart(epoch)
	}
}

// exec ends the image of a process and begins the next one, without mappings.
// When a thread other than the first calls execve, all others are gone by now
// and it has taken over the PID (kernel: de_thread).
func (b *batch) exec(ev *Event) {
	p := Process{PID: ev.PID}
	e := b.t.procs[ev.PID]
	level := readSome
	if old := e.live(); old != nil {
		if ev.Time <= e.readAt {
			return
		}
		b.end(e, ev.Time)
		p = *old.p
		p.Until, p.Known, p.Mappings, p.Exe, p.KThread, p.Truncated = 0, 0, nil, "", false, false
	} else {
		level = readAll
	}
	p.Since, p.Comm, p.Inherited = ev.Time, ev.Comm, true
	if b.add(p, nil) != nil {
		b.t.procs[ev.PID].restart(b.t.epoch)
		b.jobs[ev.PID] = job{level: level}
	}
}

func (b *batch) thread(ev *Event) {
	if b.current(ev) == nil {
		return
	}
	b.t.procs[ev.PID].addThread(ev.PID, ev.TID)
}

func (e *entry) addThread(pid, tid uint32) {
	switch {
	case tid == pid:
		e.leader = true
	case len(e.others) >= maxThreads:
		e.untracked = true
	default:
		if e.others == nil {
			e.others = map[uint32]struct{}{}
		}
		e.others[tid] = struct{}{}
	}
}

// exit takes a thread off its process, which ends with the last one: the first
// thread may be gone long before (pthread_exit in main).
func (b *batch) exit(ev *Event) {
	e := b.t.procs[ev.PID]
	if e.live() == nil {
		return
	}
	if ev.TID == ev.PID {
		e.leader = false
	} else {
		delete(e.others, ev.TID)
	}
	if e.leader || len(e.others) > 0 {
		return
	}
	if e.untracked || ev.Time <= e.readAt {
		// It had more threads than are known, or this is the end of a process
		// that had the PID before the one that was read.
		b.jobs[ev.PID] = job{level: readAll, exited: ev.Time}
		return
	}
	b.end(e, ev.Time)
	delete(b.jobs, ev.PID)
}

// job is something to be read from /proc for one process.
type job struct {
	level readLevel
	// exited is when the process ended if it turns out to be gone.
	exited uint64
}

type readLevel uint8

const (
	readSome readLevel = iota + 1
	readAll
)

// run reads from /proc what the jobs ask for and puts it in the table. It is
// called with Table.mu free, so that readers do not wait for it.
func (b *batch) run() {
	t := b.t
	for _, pid := range slices.Sorted(maps.Keys(b.jobs)) {
		j := b.jobs[pid]
		if j.exited == 0 && !t.reads.take(monotonic()) {
			t.mu.Lock()
			t.stats.DeferredReads++
			t.mu.Unlock()
			continue
		}
		if j.level == readAll {
			b.readAll(pid, j.exited)
		} else {
			b.readDetails(pid)
		}
	}
	clear(b.jobs)
}

func (b *batch) readDetails(pid uint32) {
	t := b.t
	img := t.procs[pid].live() // only a writer changes it, and that is us
	if img == nil {
		return
	}
	x, start, err := readDetailsOf(t.root, pid, t.self)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stats.Reads++
	if err != nil {
		t.stats.ReadErrors++
		return
	}
	p := b.touch(img, Detailed).img.p
	p.setDetails(x)
	p.Start = start
	b.publish()
}

func (p *Process) setDetails(x details) {
	p.NSPID, p.Cgroup, p.ContainerID, p.OwnRoot = x.nspid, x.cgroup, x.container, x.ownRoot
	p.Inherited = false
}
