// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"strings"

	"golang.org/x/sys/unix"
)

// A capability the profiler uses.
type capability struct {
	name string
	bit  uint
	// admin: CAP_SYS_ADMIN stands in for it. It does not for CAP_SYSLOG, where
	// kernel: kallsyms_show_value asks for that one only.
	admin bool
	state State  // of the check without it
	loss  string // what is lost without it
}

var capabilities = [...]capability{
	{"CAP_BPF", unix.CAP_BPF, true, Fail, "BPF programs cannot be loaded"},
	{"CAP_PERFMON", unix.CAP_PERFMON, true, Fail, "other processes and the kernel cannot be sampled"},
	{"CAP_SYS_PTRACE", unix.CAP_SYS_PTRACE, false, Warn, "the mappings of other users' processes cannot be read"},
	{"CAP_DAC_READ_SEARCH", unix.CAP_DAC_READ_SEARCH, false, Warn, "binaries in private directories and containers cannot be read"},
	{"CAP_CHECKPOINT_RESTORE", unix.CAP_CHECKPOINT_RESTORE, true, Warn, "deleted binaries of running processes cannot be read"},
	{"CAP_SYSLOG", unix.CAP_SYSLOG, false, Warn, "kernel functions have no names"},
}

func (h host) capabilities() []Check {
	checks := make([]Check, 0, len(capabilities))
	for _, want := range capabilities {
		c := Check{Name: want.name, Found: "held"}
		switch {
		case h.holds(want.bit):
		case want.admin && h.holds(unix.CAP_SYS_ADMIN):
			c.Found = "held through CAP_SYS_ADMIN"
		case want.bit == unix.CAP_SYSLOG && h.kernelNamesOpen():
			c.Found = "not held, and not needed: kernel symbols are open to all"
		default:
			c.State, c.Found, c.Fix = want.state, "missing: "+want.loss, h.rights(want.bit)
		}
		checks = append(checks, c)
	}
	return checks
}

// holds reports whether the process has a capability that the kernel will
// honour: for bpf and perf events those of the initial user namespace count.
func (h host) holds(bit uint) bool {
	return h.initialUser && h.effective&(1<<bit) != 0
}

// perfmon is kernel: perfmon_capable.
func (h host) perfmon() bool {
	return h.holds(unix.CAP_PERFMON) || h.holds(unix.CAP_SYS_ADMIN)
}

// bpf is kernel: bpf_capable.
func (h host) bpf() bool {
	return h.holds(unix.CAP_BPF) || h.holds(unix.CAP_SYS_ADMIN)
}

// rights says how to get the capabilities, all of them at once, where bit is
// one that is missing.
func (h host) rights(bit uint) string {
	var add, file strings.Builder
	for i, c := range capabilities {
		if i > 0 {
			file.WriteString(",")
		}
		file.WriteString(strings.ToLower(c.name))
		add.WriteString(" --cap-add=" + strings.TrimPrefix(c.name, "CAP_"))
	}
	switch {
	case !h.initialUser:
		return "Leave the user namespace (rootless container, unshare -U): capabilities in it do not count for bpf and perf events. " +
			"Run it as root of the host with sudo."
	case h.bounding&(1<<bit) == 0:
		return "This process can no longer gain capabilities that are not in its bounding set. " +
			"Start the container with `docker run" + add.String() + "`, or run it outside."
	case h.status["NoNewPrivs"] == "1":
		return "no_new_privs is set, so neither sudo nor setcap helps. " +
			"Let whoever starts it pass the capabilities: in systemd AmbientCapabilities=" +
			strings.ToUpper(strings.ReplaceAll(file.String(), ",", " ")) + "."
	}
	return "Run it with sudo, or give the program the rights: `sudo setcap " + file.String() + "+ep " + h.Exe + "`."
}
