// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/process"
)

// wanted reports whether a process is one of those asked for, or a descendant.
func (s *Session) wanted(c process.Change) bool {
	pid := c.Process.PID
	if s.targets[pid] {
		return true
	}
	if s.cfg.Follow && c.What&process.NewImage != 0 && s.targets[c.Process.PPID] {
		s.targets[pid] = true
		return true
	}
	return false
}

// dropTargets forgets the targets that have ended, when all changes told with that
// have been handled: some may be of their children.
func (s *Session) dropTargets() {
	for _, pid := range s.ended {
		delete(s.targets, pid)
	}
	s.ended = s.ended[:0]
}

// unfilter takes processes out of the BPF program's filter that have ended without a
// change: the program follows those, too, whose fork the table was not told of.
func (s *Session) unfilter(events []process.Event) {
	if len(s.cfg.PIDs) == 0 {
		return
	}
	for i := range events {
		ev := &events[i]
		if ev.Kind == process.EventExit && s.table.Live(ev.PID) == nil &&
			s.unwinder.HasPID(ev.PID) && hasEnded(ev.PID, ev.TID == ev.PID) {
			s.note(s.unwinder.RemovePID(ev.PID))
		}
	}
}

// sweepFilter does the same for all whose end was lost. One that lives and is not in
// the table may be too young for it.
func (s *Session) sweepFilter() {
	if len(s.cfg.PIDs) == 0 {
		return
	}
	pids, err := s.unwinder.PIDs()
	s.note(err)
	for _, pid := range pids {
		if s.table.Live(pid) == nil && hasEnded(pid, false) {
			s.note(s.unwinder.RemovePID(pid))
		}
	}
}

// hasEnded reports whether a process has no thread any more that runs. exiting says
// that the first thread is at its end.
func hasEnded(pid uint32, exiting bool) bool {
	status, err := processStatus(pid)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
	}
	if status.tgid != pid { // the PID is a thread's by now
		return true
	}
	// The first thread may end long before others; it is a zombie then, too.
	return status.threads <= 1 && (exiting || strings.ContainsAny(status.state, "ZX"))
}
