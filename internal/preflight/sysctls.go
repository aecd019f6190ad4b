// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// defaultHz is the sampling rate of `lowflame record`.
const defaultHz = 199

func (h host) sysctls() []Check {
	return []Check{
		h.perfParanoid(),
		h.sysctl("kernel.perf_event_max_sample_rate", func(c *Check, n int) {
			if n < defaultHz {
				c.State = Warn
				c.Fix = "Recordings cannot sample faster than this. Allow more with `sudo sysctl kernel.perf_event_max_sample_rate=100000`."
			}
		}),
		h.sysctl("kernel.kptr_restrict", func(c *Check, n int) {
			if n >= 2 {
				c.State = Warn
				c.Fix = "Kernel functions have no names for anyone. Show them to root with `sudo sysctl kernel.kptr_restrict=1`."
			}
		}),
		h.unprivilegedBPF(),
		h.sysctl("net.core.bpf_jit_enable", func(c *Check, n int) {
			if n == 0 {
				c.State = Warn
				c.Fix = "BPF programs are interpreted, so each sample costs several times more. " +
					"Compile them with `sudo sysctl net.core.bpf_jit_enable=1`."
			}
		}),
	}
}

// sysctl reads a number and lets judge say what it means. One that is not there
// is no obstacle: the kernel lacks the feature that it limits, or (net.core) it
// is shown in the host's network namespace only.
func (h host) sysctl(name string, judge func(c *Check, n int)) Check {
	c := Check{Name: name}
	text, err := h.read("proc/sys/" + slashes(name))
	if err != nil {
		c.Found = "not readable"
		return c
	}
	c.Found = text
	if n, err := strconv.Atoi(text); err == nil {
		judge(&c, n)
	}
	return c
}

func slashes(name string) string {
	b := []byte(name)
	for i := range b {
		if b[i] == '.' {
			b[i] = '/'
		}
	}
	return string(b)
}

// paranoidFix lowers the sysctl to the highest value at which CAP_PERFMON counts.
const paranoidFix = "CAP_PERFMON does not count at this level on Debian's and Ubuntu's kernels. Lower it with " +
	"`sudo sysctl kernel.perf_event_paranoid=2`, or run it with sudo."

// perfParanoid: upstream kernels know levels up to 2, and a process with
// CAP_PERFMON passes them all. Debian and Ubuntu added levels 3 and 4, which
// only CAP_SYS_ADMIN passes; whether this kernel is one of theirs, the trial of
// a perf event tells.
func (h host) perfParanoid() Check {
	return h.sysctl("kernel.perf_event_paranoid", func(c *Check, n int) {
		if n >= 3 && !h.holds(unix.CAP_SYS_ADMIN) && h.PerfEvent() != nil {
			c.State, c.Fix = Fail, paranoidFix
		}
	})
}

func (h host) unprivilegedBPF() Check {
	return h.sysctl("kernel.unprivileged_bpf_disabled", func(c *Check, n int) {
		if n != 0 {
			c.Found = fmt.Sprintf("%d (bpf needs CAP_BPF)", n)
		}
	})
}

// kernelNamesOpen is kernel: kallsyms_show_value for a process without CAP_SYSLOG.
func (h host) kernelNamesOpen() bool {
	kptr, err := h.read("proc/sys/kernel/kptr_restrict")
	return err == nil && kptr == "0" && h.paranoid <= 1
}
