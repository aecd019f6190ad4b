// SPDX-License-Identifier: Apache-2.0

package process

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrNotPermitted says that the kernel does not let this program watch the
// whole machine.
var ErrNotPermitted = errors.New("not permitted to watch all processes: CAP_PERFMON is needed, or CAP_SYS_ADMIN where kernel.perf_event_paranoid is above 2")

// SidebandConfig holds the options of OpenSideband. The zero value is good.
type SidebandConfig struct {
	// RingBytes is the size of each CPU's ring, rounded down to a power of
	// two of pages; 0 means 256 KiB. Less is taken where the memory lock limit
	// is lower.
	RingBytes int
	// WakeupBytes is how much must be in a ring before Read is woken; 0 means
	// at once.
	WakeupBytes uint32
	// ExecWakeup is how long after an exec Read is woken, whatever is in the
	// rings; 0 means not for its sake.
	ExecWakeup time.Duration
	// NoBuildID has the kernel identify files by inode only.
	NoBuildID bool
	// KernelSymbols asks for EventKernelSymbol as well.
	KernelSymbols bool
}

// Sideband reads what the kernel tells of every fork, exec, executable mapping
// and exit, through one PERF_COUNT_SW_DUMMY event per CPU. It is to be used by
// one goroutine at a time.
type Sideband struct {
	config  SidebandConfig
	attr    unix.PerfEventAttr
	rings   []*ring
	bells   []*ring // see SidebandConfig.ExecWakeup; what is in them is not read
	epoll   int
	wake    int // eventfd that ends a wait
	names   names
	pending []Event // read from the rings, not delivered yet
	events  []Event // what Read returned last
	last    uint64  // time of the newest event delivered
	stats   SidebandStats
}

// SidebandStats counts since OpenSideband.
type SidebandStats struct {
	Events    uint64 // delivered
	Lost      uint64 // records dropped by the kernel for want of room
	Malformed uint64 // records not understood
	// Late counts events delivered after one that was younger: a CPU was held
	// up between taking the time and writing the record.
	Late uint64
}

const wakeID = -1 // marks the eventfd among epoll's events

// Bits of perf_event_attr that x/sys does not name.
const (
	bitKSymbol = 1 << 29
	bitBuildID = 1 << 34
)

// OpenSideband begins to watch the given CPUs. A CPU that is offline is left
// out; Reopen takes it in later. It returns an error that is ErrNotPermitted
// when the kernel refuses, and needs no BPF, tracefs or resource limit.
func OpenSideband(cpus []int, config SidebandConfig) (*Sideband, error) {
	if config.RingBytes <= 0 {
		config.RingBytes = 256 << 10
	}
	s := &Sideband{config: config, epoll: -1, wake: -1, names: names{}}
	s.attr = sidebandAttr(config)
	err := s.open(cpus)
	if err != nil {
		_ = s.Close() // err says more
		return nil, err
	}
	return s, nil
}

func sidebandAttr(config SidebandConfig) unix.PerfEventAttr {
	attr := unix.PerfEventAttr{
		Type:        unix.PERF_TYPE_SOFTWARE,
		Size:        uint32(unsafe.Sizeof(unix.PerfEventAttr{})),
		Config:      unix.PERF_COUNT_SW_DUMMY,
		Sample_type: sampleType,
		// Without watermark the kernel counts samples to decide when to wake
		// the reader, and sideband records are none: it would wake never.
		Bits: unix.PerfBitMmap | unix.PerfBitMmap2 | unix.PerfBitComm | unix.PerfBitCommExec | unix.PerfBitTask |
			unix.PerfBitSampleIDAll | unix.PerfBitWatermark | unix.PerfBitUseClockID | bitBuildID,
		Wakeup:  max(config.WakeupBytes, 1),
		Clockid: unix.CLOCK_MONOTONIC,
	}
	if config.NoBuildID {
		attr.Bits &^= bitBuildID
	}
	if config.KernelSymbols {
		attr.Bits |= bitKSymbol
	}
	return attr
}

func (s *Sideband) open(cpus []int) error {
	var err error
	if s.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("create epoll: %w", err)
	}
	if s.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("create eventfd: %w", err)
	}
	if err = s.watch(s.wake, wakeID); err != nil {
		return err
	}
	for _, cpu := range cpus {
		if _, err := s.openCPU(cpu); err != nil && !errors.Is(err, unix.ENODEV) {
			return err
		}
	}
	if len(s.rings) == 0 {
		return fmt.Errorf("watch CPUs %v: none is online: %w", cpus, unix.ENODEV)
	}
	return nil
}

func (s *Sideband) watch(fd int, id int32) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: id}
	if err := unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("watch perf ring: %w", err)
	}
	return nil
}

// Reopen begins to watch a CPU afresh, which is needed when it was offline in
// between: its event is dead for good then, on every kernel. What happened in
// between is not known, so an EventLost whose Lost is 0 is delivered, which makes
// a Scan due. The error is unix.ENODEV for an offline CPU.
func (s *Sideband) Reopen(cpu int) error {
	s.drain() // what is in the old ring is still good
	opened, err := s.openCPU(cpu)
	if opened {
		s.pending = append(s.pending, Event{Kind: EventLost, Time: monotonic()})
	}
	return err
}

// openCPU opens the ring of a CPU, in place of the one there is, and its bell.
// opened says that the ring is there, whatever the error.
func (s *Sideband) openCPU(cpu int) (opened bool, err error) {
	r, err := openRing(cpu, s.config.RingBytes, &s.attr)
	if errors.Is(err, unix.EINVAL) && s.attr.Bits&bitBuildID != 0 { // before 5.12
		s.attr.Bits &^= bitBuildID
		r, err = openRing(cpu, s.config.RingBytes, &s.attr)
	}
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		return false, fmt.Errorf("%w (it is %s now): %w", ErrNotPermitted, paranoid(), err)
	}
	if err != nil {
		return false, err
	}
	if err := s.watch(r.fd, int32(cpu)); err != nil {
		_ = r.close() // err says more
		return false, err
	}
	for i, old := range s.rings {
		if old.cpu == cpu {
			s.rings[i] = r
			return true, errors.Join(old.close(), s.openBell(cpu))
		}
	}
	s.rings = append(s.rings, r)
	return true, s.openBell(cpu)
}

func paranoid() string {
	b, err := os.ReadFile("/proc/sys/kernel/perf_event_paranoid")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}

// Read returns the events since the last call in the order of their times over
// all CPUs, waiting for at least one until timeout has passed (0: not at all,
// negative: for ever) or ctx is done, whose error it then returns. lost is how
// many records the kernel dropped for want of room; an EventLost stands where
// that was noticed, and Table.Scan makes it good. The slice is valid until the
// next call.
//
// An event is held back while one from another CPU could still come before it,
// so a fork is delivered before what the child does on another CPU.
func (s *Sideband) Read(ctx context.Context, timeout time.Duration) (events []Event, lost uint64, err error) {
	stop := context.AfterFunc(ctx, s.Wake)
	defer stop()
	deadline := time.Now().Add(timeout)
	before := s.stats.Lost
	for {
		bound := monotonic()
		s.drain()
		if s.deliver(bound); len(s.events) > 0 {
			return s.events, s.stats.Lost - before, nil
		}
		if err := ctx.Err(); err != nil {
			return nil, 0, err
		}
		if len(s.pending) > 0 {
			continue // younger than bound, and so by now in order
		}
		wait := -1
		if timeout >= 0 {
			left := time.Until(deadline)
			if left <= 0 {
				return nil, 0, nil
			}
			wait = int(min(left/time.Millisecond+1, math.MaxInt32))
		}
		woken, err := s.wait(wait)
		if woken || err != nil {
			return nil, 0, cmp.Or(err, ctx.Err())
		}
	}
}

// Wake ends a Read that waits, or the next one that would. It may be called
// from any goroutine until Close.
func (s *Sideband) Wake() {
	// A full counter means that it is woken already.
	_, _ = unix.Write(s.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

// wait blocks until a ring has something, or for at most ms milliseconds.
func (s *Sideband) wait(ms int) (woken bool, err error) {
	var buf [16]unix.EpollEvent
	n, err := unix.EpollWait(s.epoll, buf[:], ms)
	if errors.Is(err, unix.EINTR) { // the runtime preempts threads with signals
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("wait for perf records: %w", err)
	}
	rung := false
	for _, ev := range buf[:n] {
		switch {
		case ev.Fd == wakeID:
			s.resetWake()
			woken = true
		case ev.Events&(unix.EPOLLHUP|unix.EPOLLERR) != 0:
			s.end(int(ev.Fd))
		case ev.Fd <= firstBellID:
			rung = true
		}
	}
	if rung && !woken {
		woken, err = s.settle()
	}
	if rung { // epoll forgets that it rang: a full bell would ring no more
		for _, r := range s.bells {
			r.discard()
		}
	}
	return woken, err
}

func (s *Sideband) resetWake() {
	var b [8]byte
	_, _ = unix.Read(s.wake, b[:]) // only fails if it is 0
}

// end stops waiting for a ring or a bell the kernel has given up: epoll would
// report it for ever.
func (s *Sideband) end(id int) {
	rings, cpu := s.rings, id
	if id <= firstBellID {
		rings, cpu = s.bells, firstBellID-id
	}
	for _, r := range rings {
		if r.cpu == cpu && !r.ended {
			r.ended = true
			_ = unix.EpollCtl(s.epoll, unix.EPOLL_CTL_DEL, r.fd, nil) // fails only if it is not there
		}
	}
}

// Ended returns the CPUs whose event the kernel has ended. Reopen starts it
// again once the CPU is online.
func (s *Sideband) Ended() []int {
	var cpus []int
	for _, r := range s.rings {
		if r.ended {
			cpus = append(cpus, r.cpu)
		}
	}
	return cpus
}

// drain moves what the rings hold to s.pending, in order.
func (s *Sideband) drain() {
	n := len(s.pending)
	for _, r := range s.rings {
		sane := r.read(func(rec []byte) {
			ev, ok, err := decode(rec, s.names)
			if err != nil {
				s.stats.Malformed++
			}
			if ok {
				s.stats.Lost += ev.Lost
				s.pending = append(s.pending, ev)
			}
		})
		if !sane {
			s.stats.Lost++
			s.pending = append(s.pending, Event{Kind: EventLost, Time: monotonic(), Lost: 1})
		}
	}
	if now := monotonic(); len(s.pending) > n {
		for i := range s.pending[n:] {
			// A time to come would have Read wait for it without rest.
			s.pending[n+i].Time = min(s.pending[n+i].Time, now)
		}
		slices.SortStableFunc(s.pending, func(a, b Event) int { return cmp.Compare(a.Time, b.Time) })
	}
}

// deliver moves the events up to the time bound, which was read before the
// rings were, from s.pending to s.events.
func (s *Sideband) deliver(bound uint64) {
	n := 0
	for n < len(s.pending) && s.pending[n].Time <= bound {
		if s.pending[n].Time < s.last {
			s.stats.Late++
		}
		s.last = max(s.last, s.pending[n].Time)
		n++
	}
	s.events = append(s.events[:0], s.pending[:n]...)
	s.pending = slices.Delete(s.pending, 0, n)
	s.stats.Events += uint64(n)
}

// Stats returns the counters.
func (s *Sideband) Stats() SidebandStats { return s.stats }

// Close ends the watch. No other method may be running or be called later.
func (s *Sideband) Close() error {
	var errs []error
	for _, r := range slices.Concat(s.rings, s.bells) {
		errs = append(errs, r.close())
	}
	s.rings, s.bells = nil, nil
	for _, fd := range []int{s.epoll, s.wake} {
		if fd >= 0 {
			errs = append(errs, os.NewSyscallError("close", unix.Close(fd)))
		}
	}
	return errors.Join(errs...)
}

// monotonic returns CLOCK_MONOTONIC in ns, the clock of every time here.
func monotonic() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic("clock_gettime(CLOCK_MONOTONIC): " + err.Error()) // fails for an unknown clock only
	}
	return uint64(ts.Nano())
}
