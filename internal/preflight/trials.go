// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// trials do what no file tells: a filter, a security module or a patched
// kernel may refuse what the capabilities allow.
func (h host) trials() []Check {
	return []Check{
		h.trial("bpf system call", h.BPF, h.bpf(), unix.CAP_BPF),
		h.trial("perf event", h.PerfEvent, h.perfmon(), unix.CAP_PERFMON),
	}
}

func (h host) trial(name string, try func() error, allowed bool, bit uint) Check {
	c := Check{Name: name, Found: "works"}
	err := try()
	if err == nil {
		return c
	}
	c.State, c.Found = Fail, err.Error()
	refused := errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)
	switch {
	case refused && !allowed:
		c.Fix = h.rights(bit)
	case refused && bit == unix.CAP_PERFMON && h.paranoid >= 3 && !h.holds(unix.CAP_SYS_ADMIN):
		c.Fix = paranoidFix
	case refused && bit == unix.CAP_BPF && h.lockedMemoryShort():
		c.Fix = h.lockedMemory().Fix
	case h.filtered && (refused || errors.Is(err, unix.ENOSYS)):
		c.Fix = "The seccomp filter refuses it. Allow bpf and perf_event_open in the profile, or start the container with " +
			"`docker run --security-opt seccomp=unconfined`."
	case refused:
		c.Fix = "The rights are there, so a security module (SELinux, AppArmor) refuses it: `sudo dmesg | grep -i denied` names the rule."
	case errors.Is(err, unix.ENOSYS):
		c.Fix = "Boot a kernel built with CONFIG_BPF_SYSCALL=y and CONFIG_PERF_EVENTS=y."
	default:
		c.Fix = "Ask the kernel why: `sudo dmesg | tail`."
	}
	return c
}

func (h host) lockedMemoryShort() bool {
	return h.older(5, 11) && h.lockedMemory().State == Fail
}

// createMap makes the smallest BPF map there is and closes it. Before 5.11 maps
// count against RLIMIT_MEMLOCK together with all others of the user, so a refusal
// may only mean that others have used it up: a recording lifts the limit. Here it
// is put back, for a command started later inherits it.
func createMap() error {
	err := tryMap()
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	var before unix.Rlimit
	unlimited := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if unix.Prlimit(0, unix.RLIMIT_MEMLOCK, &unlimited, &before) != nil {
		return err
	}
	err = tryMap()
	return errors.Join(err, unix.Prlimit(0, unix.RLIMIT_MEMLOCK, &before, nil))
}

func tryMap() error {
	// kernel: include/uapi/linux/bpf.h, union bpf_attr for BPF_MAP_CREATE.
	attr := struct{ mapType, keySize, valueSize, maxEntries, flags uint32 }{
		mapType: unix.BPF_MAP_TYPE_ARRAY, keySize: 4, valueSize: 4, maxEntries: 1,
	}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_MAP_CREATE, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return os.NewSyscallError("bpf(BPF_MAP_CREATE)", errno)
	}
	return unix.Close(int(fd))
}

// openEvent opens the event that recordings use on the first online CPU, for
// all processes, and closes it before it counts.
func openEvent() error {
	attr := unix.PerfEventAttr{
		Type:   unix.PERF_TYPE_SOFTWARE,
		Config: unix.PERF_COUNT_SW_CPU_CLOCK,
		Size:   uint32(unsafe.Sizeof(unix.PerfEventAttr{})),
		Sample: 1,
		Bits:   unix.PerfBitDisabled | unix.PerfBitFreq,
	}
	cpu, err := firstCPU()
	if err != nil {
		return err
	}
	fd, err := unix.PerfEventOpen(&attr, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("perf_event_open", err)
	}
	return unix.Close(fd)
}

// firstCPU is the first of a list such as 0-3,8.
func firstCPU() (int, error) {
	const file = "/sys/devices/system/cpu/online"
	text, err := os.ReadFile(file)
	if errors.Is(err, syscall.ENOENT) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var cpu int
	if _, err := fmt.Sscanf(strings.TrimSpace(string(text)), "%d", &cpu); err != nil {
		return 0, fmt.Errorf("read %s: %w", file, err)
	}
	return cpu, nil
}
