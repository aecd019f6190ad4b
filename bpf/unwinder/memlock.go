// SPDX-License-Identifier: GPL-2.0

package unwinder

import (
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// raiseLockedMemory lifts RLIMIT_MEMLOCK where the kernel charges maps and
// programs to it: before 5.11, whatever the capabilities (kernel:
// bpf_charge_memlock). Later kernels charge the memory cgroup and the limit stays
// as it is. Where it may not be lifted, loading fails and says so.
func raiseLockedMemory() {
	const version5_11 = 5<<16 | 11<<8 // kernel: KERNEL_VERSION
	if v, err := features.LinuxVersionCode(); err != nil || v >= version5_11 {
		return
	}
	unlimited := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	_ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unlimited)
}
