// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// confine gives up what a worker has no need for: most of the processor, memory and
// time beyond a limit, capabilities, and all system calls that reach something it has
// not got open already.
func confine(memory int64, cpu time.Duration) error {
	// The threads that run already too: they are this process group's only ones.
	if err := unix.Setpriority(unix.PRIO_PGRP, 0, 19); err != nil {
		return fmt.Errorf("set nice value: %w", err)
	}
	debug.SetMemoryLimit(memory / 2)
	seconds := uint64(max(1, (cpu+time.Second-1)/time.Second))
	for _, l := range []struct {
		what int
		max  uint64
	}{
		{unix.RLIMIT_CORE, 0},
		{unix.RLIMIT_CPU, seconds},
		// Memory that is reserved counts too, which is more than is ever used.
		{unix.RLIMIT_DATA, 2*uint64(memory) + 256<<20},
		{unix.RLIMIT_FSIZE, 8 << 30},
	} {
		if err := lower(l.what, l.max); err != nil {
			return fmt.Errorf("set resource limit %d: %w", l.what, err)
		}
	}
	if err := dropCapabilities(); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return filterSystemCalls()
}

// lower lowers a resource limit, which needs no capability.
func lower(what int, limit uint64) error {
	var now unix.Rlimit
	if err := unix.Getrlimit(what, &now); err != nil {
		return err
	}
	limit = min(limit, now.Max)
	return unix.Setrlimit(what, &unix.Rlimit{Cur: limit, Max: limit})
}

// dropCapabilities makes sure that no thread has a capability.
func dropCapabilities() error {
	if has, err := capable(); err != nil || !has {
		return err
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET,
		uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none[0])), 0)
	if errno != 0 {
		return fmt.Errorf("in all threads: %w", errno)
	}
	if has, err := capable(); err != nil || has {
		return errors.Join(errors.New("some are left"), err)
	}
	return nil
}

// capable reports whether this process has a capability, or may get one.
func capable() (bool, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		if (name == "CapEff" || name == "CapPrm") && strings.Trim(value, "0 \t\n") != "" {
			return true, nil
		}
	}
	return false, nil
}

// allowed are the system calls of the Go runtime and of reading and writing files
// that are open. sendmsg and recvmsg need a socket, and there is one.
var allowed = []uint32{
	unix.SYS_READ, unix.SYS_WRITE, unix.SYS_PREAD64, unix.SYS_PWRITE64, unix.SYS_READV, unix.SYS_WRITEV,
	unix.SYS_LSEEK, unix.SYS_FSTAT, unix.SYS_FTRUNCATE, unix.SYS_FALLOCATE, unix.SYS_FSYNC, unix.SYS_FCNTL,
	unix.SYS_CLOSE, unix.SYS_SENDMSG, unix.SYS_RECVMSG,
	unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EVENTFD2, unix.SYS_PIPE2,
	unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MADVISE, unix.SYS_MINCORE, unix.SYS_BRK,
	unix.SYS_FUTEX, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_GETTIMEOFDAY,
	unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY, unix.SYS_GETPID, unix.SYS_GETTID, unix.SYS_TGKILL,
	unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK,
	unix.SYS_SETITIMER, unix.SYS_TIMER_CREATE, unix.SYS_TIMER_SETTIME, unix.SYS_TIMER_DELETE,
	unix.SYS_CLONE, unix.SYS_SET_ROBUST_LIST, unix.SYS_RSEQ, unix.SYS_MPROTECT, unix.SYS_PRCTL,
	unix.SYS_GETRANDOM, unix.SYS_GETRUSAGE, unix.SYS_RESTART_SYSCALL, unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
}

const (
	// Where struct seccomp_data has the call's number, and the architecture
	// (uapi/linux/seccomp.h).
	seccompNumber = 0
	seccompArch   = 4

	retAllow  = unix.SECCOMP_RET_ALLOW
	retKill   = unix.SECCOMP_RET_KILL_PROCESS
	retEPERM  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	retENOSYS = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
)

// filter returns the program that seccomp(2) runs for each system call: those that
// are not allowed fail with EPERM.
func filter() []unix.SockFilter {
	load := func(off uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: off}
	}
	equal := func(k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: yes, Jf: no, K: k}
	}
	ret := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	p := []unix.SockFilter{load(seccompArch), equal(auditArch, 1, 0), ret(retKill), load(seccompNumber)}
	numbers := slices.Clone(allowed)
	slices.Sort(numbers)
	for _, n := range slices.Compact(numbers) {
		p = append(p, equal(n, 0, 1), ret(retAllow))
	}
	// Without clone3 the C library uses clone.
	return append(p, equal(unix.SYS_CLONE3, 0, 1), ret(retENOSYS), ret(retEPERM))
}

// filterSystemCalls has the kernel run filter for every thread, now and later. It
// takes away what executing a set-user-ID file would give, too.
func filterSystemCalls() error {
	runtime.LockOSThread() // TSYNC gives the other threads what this one has
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	p := filter()
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	r, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return fmt.Errorf("filter system calls: %w", errno)
	}
	if r != 0 {
		return fmt.Errorf("filter system calls: thread %d has another filter", r)
	}
	return nil
}
