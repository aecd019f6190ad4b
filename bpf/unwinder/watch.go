// SPDX-License-Identifier: GPL-2.0

package unwinder

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Watch opens the events that have stopped firing again, and those of CPUs that
// have come online, and returns these CPUs: whatever else watches a CPU is likely to
// have stopped too. It is to be called about once a second. Events
// that could not be opened are in the error; the next call tries again.
func (u *Unwinder) Watch(now time.Time) (opened []int, err error) {
	fired, err := u.firedByCPU()
	if err != nil {
		return nil, err
	}
	clock := now.Sub(u.loaded)
	away := clock
	if u.cfg.Event == EventCycles { // which nobody counts on a CPU that is away, or idle
		away = -1
	}
	seen, err := u.look(clock, fired)
	if err != nil {
		return nil, fmt.Errorf("look at the CPUs: %w", err)
	}
	u.attachMu.Lock()
	defer u.attachMu.Unlock()
	if u.cpus == nil { // not sampling
		return nil, nil
	}
	var errs []error
	toClose, toOpen := u.watchdog.check(seen, away)
	for _, cpu := range toClose {
		errs = append(errs, u.closeCPU(cpu))
		u.watchdog.closed(cpu)
	}
	for _, cpu := range toOpen {
		err := u.openCPU(cpu, false)
		if err == nil {
			opened = append(opened, cpu)
		} else if !errors.Is(err, unix.ENODEV) { // went offline again
			errs = append(errs, err)
		}
	}
	return opened, errors.Join(errs...)
}

// Gaps is what events that stopped have cost since Start.
func (u *Unwinder) Gaps() Gaps {
	u.attachMu.Lock()
	defer u.attachMu.Unlock()
	return u.watchdog.total()
}

// look returns what is to be seen of the CPUs online.
func (u *Unwinder) look(clock time.Duration, fired []uint64) (map[int]sighting, error) {
	online, err := OnlineCPUs()
	if err != nil {
		return nil, err
	}
	var busy map[int]time.Duration
	if u.cfg.Event == EventCycles {
		if busy, err = busyTimes(); err != nil {
			return nil, err
		}
	}
	seen := make(map[int]sighting, len(online))
	for _, cpu := range online {
		s := sighting{clock: clock}
		if busy != nil {
			s.clock = busy[cpu]
		}
		if cpu < len(fired) {
			s.fired = fired[cpu]
		}
		seen[cpu] = s
	}
	return seen, nil
}

// firedByCPU returns how often the program has run, by CPU.
func (u *Unwinder) firedByCPU() ([]uint64, error) {
	u.drainMu.Lock()
	defer u.drainMu.Unlock()
	total := append([]uint64(nil), u.fired...)
	for parity := range uint32(2) {
		var perCPU []bpfUnwStats
		if err := u.objs.UnwStatsMap.Lookup(parity, &perCPU); err != nil {
			return nil, fmt.Errorf("read the sample counters: %w", err)
		}
		if len(total) < len(perCPU) {
			total = append(total, make([]uint64, len(perCPU)-len(total))...)
		}
		for cpu := range perCPU {
			total[cpu] += perCPU[cpu].Fired
		}
	}
	return total, nil
}

// openCPU opens the event of a CPU; attachMu is held.
func (u *Unwinder) openCPU(cpu int, first bool) error {
	e, err := openCPU(cpu, u.cfg.Event, u.cfg.Frequency, u.objs.UnwSample)
	if err != nil {
		return fmt.Errorf("sample CPU %d: %w", cpu, err)
	}
	u.cpus[cpu] = e
	u.watchdog.opened(cpu, e.frequency, first)
	return nil
}

// closeCPU closes the event of a CPU, and keeps how long it counted; attachMu is
// held.
func (u *Unwinder) closeCPU(cpu int) error {
	e := u.cpus[cpu]
	delete(u.cpus, cpu)
	count, err := e.count()
	if u.cfg.Event == EventCPUClock {
		u.timerNS += count
	}
	if err := errors.Join(err, e.close()); err != nil {
		return fmt.Errorf("stop sampling CPU %d: %w", cpu, err)
	}
	return nil
}
