// SPDX-License-Identifier: GPL-2.0

package unwinder

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Start attaches the program to the process tracepoints and then to an event on
// every online CPU.
func (u *Unwinder) Start() error {
	u.attachMu.Lock()
	defer u.attachMu.Unlock()
	if err := u.attachTracepoints(); err != nil {
		return err
	}
	cpus, err := OnlineCPUs()
	if err != nil {
		return err
	}
	u.cpus = make(map[int]*cpuEvent, len(cpus))
	for _, cpu := range cpus {
		if err := u.openCPU(cpu, true); err != nil && !errors.Is(err, unix.ENODEV) { // went offline meanwhile
			return err
		}
	}
	return nil
}

// Frequency is the rate in force, in samples a second and CPU. It is lower than
// asked for when kernel.perf_event_max_sample_rate is.
func (u *Unwinder) Frequency() int { return u.cfg.Frequency }

// Event is the event in use.
func (u *Unwinder) Event() Event { return u.cfg.Event }

// TimerNS is how long the events of all CPUs have been counting, in ns: divided
// by the period, how often they should have fired. It is 0 with EventCycles, which
// counts no time.
func (u *Unwinder) TimerNS() (uint64, error) {
	u.attachMu.Lock()
	defer u.attachMu.Unlock()
	total := u.timerNS
	if u.cfg.Event != EventCPUClock {
		return 0, nil
	}
	for cpu, e := range u.cpus {
		count, err := e.count()
		if err != nil {
			return 0, fmt.Errorf("CPU %d: %w", cpu, err)
		}
		total += count
	}
	return total, nil
}

// Stop ends sampling; samples already taken can still be drained. It may be
// called more than once.
func (u *Unwinder) Stop() error {
	u.attachMu.Lock()
	defer u.attachMu.Unlock()
	var errs []error
	for cpu := range u.cpus {
		errs = append(errs, u.closeCPU(cpu))
	}
	u.cpus = nil
	for _, l := range u.links {
		errs = append(errs, l.Close())
	}
	u.links = nil
	return errors.Join(errs...)
}

func (u *Unwinder) attachTracepoints() error {
	for name, prog := range map[string]*ebpf.Program{
		"sched_process_fork": u.objs.UnwFork,
		"sched_process_exit": u.objs.UnwExit,
	} {
		if err := u.attachTracepoint(name, prog); err != nil {
			return err
		}
	}
	err := u.attachTracepoint("sched_prepare_exec", u.objs.UnwPrepareExec)
	if errors.Is(err, unix.ENOENT) { // before 6.10
		err = u.attachTracepoint("sched_process_exec", u.objs.UnwExec)
	}
	return err
}

func (u *Unwinder) attachTracepoint(name string, prog *ebpf.Program) error {
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: name, Program: prog})
	if err != nil {
		return fmt.Errorf("attach to tracepoint %s: %w", name, err)
	}
	u.links = append(u.links, l)
	return nil
}
