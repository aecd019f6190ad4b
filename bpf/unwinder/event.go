// SPDX-License-Identifier: GPL-2.0

package unwinder

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Event is what runs the program; the zero value is EventCycles on machines where
// it can be counted on every CPU, and EventCPUClock on others.
type Event string

const (
	// EventCycles counts the cycles a CPU works, in hardware; the kernel adapts the
	// period to the rate asked for. On x86-64 it interrupts code that has interrupts
	// off, too. A CPU that sleeps works no cycles.
	EventCycles Event = "cycles"
	// EventCPUClock is a timer, on CPUs that sleep too.
	EventCPUClock Event = "cpu-clock"
)

// attr describes the event. Both kinds take the rate as a frequency: only then does
// the kernel check it against perf_event_max_sample_rate when it is opened, instead
// of throttling it later.
func (e Event) attr(frequency int) unix.PerfEventAttr {
	attr := unix.PerfEventAttr{
		Type:   unix.PERF_TYPE_SOFTWARE,
		Config: unix.PERF_COUNT_SW_CPU_CLOCK,
		Sample: uint64(frequency),
		Bits:   unix.PerfBitFreq | unix.PerfBitDisabled,
		Size:   uint32(unsafe.Sizeof(unix.PerfEventAttr{})),
	}
	if e == EventCycles {
		attr.Type, attr.Config = unix.PERF_TYPE_HARDWARE, unix.PERF_COUNT_HW_CPU_CYCLES
	}
	return attr
}

// choose returns the event to use where wanted is asked for.
func choose(wanted Event, cpus []int) (Event, error) {
	switch wanted {
	case EventCPUClock:
		return wanted, nil
	case EventCycles, "":
	default:
		return "", fmt.Errorf("event %q: there are %s and %s", wanted, EventCycles, EventCPUClock)
	}
	err := tryCycles(cpus)
	switch {
	case err == nil:
		return EventCycles, nil
	case wanted == "":
		return EventCPUClock, nil
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP):
		return "", fmt.Errorf("event %s: this machine has no counter of CPU cycles that can interrupt, as most virtual machines: use %s: %w",
			wanted, EventCPUClock, err)
	}
	return "", fmt.Errorf("event %s: %w", wanted, err)
}

// tryCycles opens and closes the event on every CPU: not all may have one.
func tryCycles(cpus []int) error {
	rate, err := maxSampleRate()
	if err != nil {
		return err
	}
	attr := EventCycles.attr(min(defaultFrequency, rate))
	for _, cpu := range cpus {
		fd, err := unix.PerfEventOpen(&attr, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if errors.Is(err, unix.ENODEV) { // went offline meanwhile
			continue
		}
		if err != nil {
			return fmt.Errorf("perf_event_open on CPU %d: %w", cpu, err)
		}
		if err := unix.Close(fd); err != nil {
			return fmt.Errorf("close the perf event of CPU %d: %w", cpu, err)
		}
	}
	return nil
}

// cpuEvent is the sampling event of one CPU.
type cpuEvent struct {
	fd        int
	frequency int
	link      link.Link // nil where the program is attached by ioctl
}

// openCPU begins to run prog on a CPU, at the frequency or at what
// kernel.perf_event_max_sample_rate allows now. The error is unix.ENODEV for a CPU
// that is offline.
func openCPU(cpu int, event Event, frequency int, prog *ebpf.Program) (*cpuEvent, error) {
	rate, err := maxSampleRate()
	if err != nil {
		return nil, err
	}
	e := &cpuEvent{frequency: min(frequency, rate)}
	attr := event.attr(e.frequency)
	if e.fd, err = unix.PerfEventOpen(&attr, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC); err != nil {
		return nil, fmt.Errorf("perf_event_open %s at %d Hz: %w", event, e.frequency, err)
	}
	e.link, err = link.AttachRawLink(link.RawLinkOptions{Target: e.fd, Program: prog, Attach: ebpf.AttachPerfEvent})
	if err != nil { // no perf event links before 5.15
		e.link = nil
		if err := unix.IoctlSetInt(e.fd, unix.PERF_EVENT_IOC_SET_BPF, prog.FD()); err != nil {
			return nil, errors.Join(fmt.Errorf("attach to the perf event: %w", err), e.close())
		}
	}
	if err := unix.IoctlSetInt(e.fd, unix.PERF_EVENT_IOC_ENABLE, 0); err != nil {
		return nil, errors.Join(fmt.Errorf("enable the perf event: %w", err), e.close())
	}
	return e, nil
}

// count reads what the event has counted: ns, or cycles.
func (e *cpuEvent) count() (uint64, error) {
	var count uint64
	if _, err := unix.Read(e.fd, unsafe.Slice((*byte)(unsafe.Pointer(&count)), 8)); err != nil {
		return 0, fmt.Errorf("read the perf event: %w", err)
	}
	return count, nil
}

func (e *cpuEvent) close() error {
	var detached error
	if e.link != nil {
		detached = e.link.Close()
	}
	return errors.Join(detached, unix.Close(e.fd))
}
