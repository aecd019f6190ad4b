// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"slices"
	"time"

	"github.com/go-kit/log/level"

	"github.com/lowflame/lowflame/bpf/unwinder"
	"github.com/lowflame/lowflame/process"
	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/symbolize"
)

// rescanEvery is how often at most /proc is read anew because events were lost.
const rescanEvery = 2 * time.Second

// settledWait is how long new mappings of a settled process may stay unread.
const settledWait = 200 * time.Millisecond

// runEvents keeps the process table and the BPF program current, and walks raw
// samples once the table has caught up with them.
func (s *Session) runEvents(ctx context.Context) error {
	var late []*unwinder.RawSample // younger than the table
	var scanned time.Time
	rescan := false
	for {
		if s.reopen() { // before Read, which then says what the table is to do
			rescan = true
		}
		timeout := time.Second // raw samples and windows wake the loop before
		if len(late) > 0 {
			timeout = time.Millisecond
		} else if s.publisher.settled() { // no sample wakes it for their new mappings
			timeout = settledWait
		}
		timeout = min(timeout, s.runVMs())
		now := monotonic()
		events, lost, err := s.sideband.Read(ctx, timeout)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		s.apply(events)
		if lost > 0 {
			rescan = true
		}
		// What lost events would have told is in /proc.
		if rescan && time.Since(scanned) > rescanEvery {
			if err := s.rescan(ctx); err != nil && ctx.Err() == nil {
				return err
			}
			rescan, scanned = false, time.Now()
		}
		s.applied.Store(now)
		late = s.walkQueued(late, now)
	}
}

func (s *Session) apply(events []process.Event) {
	for i := range events {
		if e := &events[i]; e.Kind == process.EventKernelSymbol {
			s.symbols.ApplyKernel(symbolize.KernelEvent(e.Symbol))
			s.ksyms.Store(true)
		}
	}
	for _, c := range s.table.Apply(events) {
		s.change(c)
	}
	s.dropTargets()
	s.unfilter(events)
}

func (s *Session) rescan(ctx context.Context) error {
	err := s.table.Scan(ctx, s.change)
	s.dropTargets()
	s.sweepFilter()
	return err
}

// change passes one change of the process table on to the BPF program.
func (s *Session) change(c process.Change) {
	proc := c.Process
	if c.What&process.Ended != 0 {
		s.files.retire(proc)
		s.vms.retire(proc)
		s.publisher.retire(proc)
		if generatesCode(proc) {
			addDumps(s.symbols, proc)
			s.note(s.symbols.RefreshJIT(jitProcess(proc)))
		}
	}
	// An exec ends one image and begins another of the same PID.
	gone := c.What&process.Ended != 0 && s.table.Live(proc.PID) == nil
	if gone { // one not asked for may have been published for a raw sample of it
		s.note(s.publisher.forget(proc.PID))
		delete(s.reread, proc.PID)
	}
	if len(s.cfg.PIDs) > 0 {
		if gone { // the program samples descendants that are not told of in order
			s.note(s.unwinder.RemovePID(proc.PID))
			s.ended = append(s.ended, proc.PID)
		}
		if !s.wanted(c) {
			return
		}
	}
	switch {
	case gone:
	case c.What&process.Ended != 0:
	case c.What&(process.NewImage|process.Mapped) != 0:
		if parent := s.table.Live(proc.PPID); proc.Inherited && parent != nil {
			s.files.inherit(proc, parent)
		}
		if len(s.cfg.PIDs) > 0 {
			s.load(proc)
		}
		s.note(s.publisher.publish(proc))
	}
}

// generatesCode reports whether a process has code that is in no file.
func generatesCode(proc *process.Process) bool {
	return slices.ContainsFunc(proc.Mappings, func(m process.Mapping) bool {
		return m.Kind == process.KindAnon || m.Kind == process.KindMemfd
	})
}

// walkQueued walks the raw samples that the table is current for and returns
// the others.
func (s *Session) walkQueued(late []*unwinder.RawSample, now uint64) []*unwinder.RawSample {
	queue := late
	for len(queue) < 2*rawQueue {
		select {
		case r := <-s.raw:
			queue = append(queue, r)
			continue
		default:
		}
		break
	}
	kept := queue[:0]
	for _, r := range queue {
		if r.Time > now {
			kept = append(kept, r)
			continue
		}
		s.walk(r)
	}
	clear(queue[len(kept):])
	return kept
}

// walk walks a raw sample, unless that is put off until more is known.
func (s *Session) walk(r *unwinder.RawSample) {
	proc := s.table.At(r.PID, r.Time)
	if proc == nil {
		sample := r.Sample
		sample.User = []stack.Addr{stack.Addr(r.Regs.PC)}
		s.walkDone(r, &sample)
		return
	}
	sp := space{files: s.files, proc: proc, vm: s.vms.of(proc)}
	sample := walkRaw(&sp, r)
	s.republish(&sp, r, sample.Stop)
	if sp.vm != nil && !r.Walked && (sample.Stop == stack.StopNoRule || sample.Stop == stack.StopTableMissing) && s.vms.wait(sp.vm, r) {
		return
	}
	if !r.Walked || sample.Stop == stack.StopNoMapping {
		s.unsolved(sp.vm, &sample)
	}
	s.walkDone(r, &sample)
}

// runVMs takes in what was read of virtual machines, and walks the samples that
// waited for it. It returns when to call it again.
func (s *Session) runVMs() time.Duration {
	for more := true; more; {
		select {
		case u := <-s.vms.updates:
			s.walkWaited(s.vms.update(&u))
		default:
			more = false
		}
	}
	late, again := s.vms.tick(time.Now())
	s.walkWaited(late)
	for _, v := range s.vms.stale() {
		if live := s.table.Live(v.proc.PID); live != nil && live.ID == v.proc.ID {
			s.note(s.publisher.publish(live))
		}
	}
	return again
}

// walkWaited walks samples that waited, with what is known by now.
func (s *Session) walkWaited(waited []*unwinder.RawSample) {
	for _, r := range waited {
		sample := r.Sample
		sample.User = []stack.Addr{stack.Addr(r.Regs.PC)}
		if proc := s.table.At(r.PID, r.Time); proc != nil {
			sp := space{files: s.files, proc: proc, vm: s.vms.of(proc)}
			sample = walkRaw(&sp, r)
			s.republish(&sp, r, sample.Stop)
			s.unsolved(sp.vm, &sample)
		}
		s.walkDone(r, &sample)
	}
}

// unsolved has no more samples sent raw of a process of which too many lie in code
// that is not found.
func (s *Session) unsolved(v *vm, sample *stack.Sample) {
	if v == nil || !v.ended.IsZero() || sample.Stop != stack.StopNoRule && sample.Stop != stack.StopNoMapping {
		return
	}
	// Of one given up no reading notes that it has been published again.
	if v.unsolved++; v.unsolved >= maxUnsolved && (!v.settled || v.given()) {
		live := s.table.Live(sample.PID)
		v.settled = live == nil || s.settle(live)
	}
}

// republish tells the program what a raw sample showed it does not know: the
// tables of the files just opened, or the whole process. now is why the walk of r
// ended here.
func (s *Session) republish(sp *space, r *unwinder.RawSample, now stack.Stop) {
	proc, was := sp.proc, r.Stop
	for _, id := range sp.fresh {
		s.note(s.publisher.loaded(id, s.table.Live))
	}
	s.note(s.publisher.completed(sp.completed, s.table.Live))
	live := s.table.Live(proc.PID)
	if live == nil || live.ID != proc.ID {
		return
	}
	switch {
	case was == stack.StopNoProc && !s.unwinder.HasProcess(proc.PID),
		was == stack.StopTableMissing && now != was && len(sp.fresh) == 0: // opened meanwhile, for names
		s.note(s.publisher.publish(live))
	case s.vms.of(live) != nil: // unsolved sees to it
	case was != now:
	case was == stack.StopNoMapping && s.reread[live.PID] != live.ID && r.Time > live.Since+rereadAge:
		s.reread[live.PID] = live.ID
		for _, c := range s.table.Rescan(live.PID) {
			s.change(c)
		}
	case was == stack.StopNoMapping && established(live, r.Time, settleAge), was == stack.StopNoRule && established(live, r.Time, rereadAge):
		s.settle(live)
	}
}

// settle has no more samples sent raw of a live process that lie in code without a
// rule. It is put off while a table of the process is partial: one of them is
// completed each time. It returns whether it was done.
func (s *Session) settle(live *process.Process) bool {
	for i := range live.Mappings {
		if f := s.files.known(live, &live.Mappings[i]); f != nil && s.files.complete(f) {
			s.note(s.publisher.completed([]*file{f}, s.table.Live))
			return false
		}
	}
	s.note(s.publisher.settle(live.PID))
	return true
}

// rereadAge is how old a program must be before /proc is asked, once, for what is in
// none of the mappings the table knows of it: not all that it has need have been told.
const rereadAge = uint64(100 * time.Millisecond)

// settleAge is how old a program must be before what is in none of its mappings is
// taken for not there.
const settleAge = uint64(time.Second)

// established reports whether a process has had the same mappings for an age by the
// time at, so that what it maps is likely to be all known. Inside of execve mappings
// are told of one by one, while the registers are still those of the old image, which
// are in none of them: a sample from there says nothing of those to come. One in code
// without a rule does: it is the new image that runs. Until then samples come raw, and
// have the event loop read what is new: it is not woken for new mappings alone.
func established(live *process.Process, at, age uint64) bool {
	return at > max(live.Since, live.Known)+age
}

// note logs what went wrong for one process: its samples stay incomplete, the
// next raw one tries again.
func (s *Session) note(err error) {
	if err != nil {
		level.Debug(s.cfg.Logger).Log("msg", "process not published", "err", err)
	}
}
