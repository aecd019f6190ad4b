// SPDX-License-Identifier: GPL-2.0

package unwinder

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// cpuEvent is the sampling event of one CPU.
type cpuEvent struct {
	cpu  int
	fd   int
	link link.Link // nil where the program is attached by ioctl
}

// Start attaches the program to the process tracepoints and then to a timer on
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
	for _, cpu := range cpus {
		e, err := openCPU(cpu, u.cfg.Frequency, u.objs.UnwSample)
		if errors.Is(err, unix.ENODEV) { // went offline meanwhile
			continue
		}
		if err != nil {
			return fmt.Errorf("sample CPU %d: %w", cpu, err)
		}
		u.cpus = append(u.cpus, e)
	}
	return nil
}

// Frequency is the rate in force, in samples a second and CPU. It is lower than
// asked for when kernel.perf_event_max_sample_rate is.
func (u *Unwinder) Frequency() int { return u.cfg.Frequency }

// TimerNS is how long the events of all CPUs have been counting, in ns: divided
// by the period, how often they should have fired.
func (u *Unwinder) TimerNS() (uint64, error) {
	u.attachMu.Lock()
	defer u.attachMu.Unlock()
	var total uint64
	for _, e := range u.cpus {
		var count uint64
		if _, err := unix.Read(e.fd, unsafe.Slice((*byte)(unsafe.Pointer(&count)), 8)); err != nil {
			return 0, fmt.Errorf("read the timer of CPU %d: %w", e.cpu, err)
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
	for _, e := range u.cpus {
		if e.link != nil {
			errs = append(errs, e.link.Close())
		}
		errs = append(errs, unix.Close(e.fd))
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

func openCPU(cpu, frequency int, prog *ebpf.Program) (cpuEvent, error) {
	attr := unix.PerfEventAttr{
		Type:   unix.PERF_TYPE_SOFTWARE,
		Config: unix.PERF_COUNT_SW_CPU_CLOCK,
		Sample: uint64(frequency),
		Bits:   unix.PerfBitFreq | unix.PerfBitDisabled,
		Size:   uint32(unsafe.Sizeof(unix.PerfEventAttr{})),
	}
	fd, err := unix.PerfEventOpen(&attr, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return cpuEvent{}, fmt.Errorf("perf_event_open cpu-clock at %d Hz: %w", frequency, err)
	}
	e := cpuEvent{cpu: cpu, fd: fd}
	e.link, err = link.AttachRawLink(link.RawLinkOptions{Target: fd, Program: prog, Attach: ebpf.AttachPerfEvent})
	if err != nil { // no perf event links before 5.15
		e.link = nil
		if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_SET_BPF, prog.FD()); err != nil {
			return cpuEvent{}, errors.Join(fmt.Errorf("attach to the perf event: %w", err), unix.Close(fd))
		}
	}
	if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_ENABLE, 0); err != nil {
		return cpuEvent{}, errors.Join(fmt.Errorf("enable the perf event: %w", err), unix.Close(fd))
	}
	return e, nil
}

// OnlineCPUs lists the CPUs that can be sampled now.
func OnlineCPUs() ([]int, error) {
	const path = "/sys/devices/system/cpu/online"
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var cpus []int
	for part := range strings.SplitSeq(strings.TrimSpace(string(text)), ",") {
		low, high, ranged := strings.Cut(part, "-")
		if !ranged {
			high = low
		}
		first, err1 := strconv.Atoi(low)
		last, err2 := strconv.Atoi(high)
		if err := errors.Join(err1, err2); err != nil || last-first > 1<<16 {
			return nil, fmt.Errorf("%s: unexpected %q", path, part)
		}
		for cpu := first; cpu <= last; cpu++ {
			cpus = append(cpus, cpu)
		}
	}
	return cpus, nil
}

// maxSampleRate reads the rate above which perf_event_open gives EINVAL. The
// kernel lowers it by itself when interrupts take too long.
func maxSampleRate() (int, error) {
	const path = "/proc/sys/kernel/perf_event_max_sample_rate"
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	rate, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || rate < 1 {
		return 0, fmt.Errorf("%s: unexpected %q", path, text)
	}
	return rate, nil
}
