// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"fmt"
	"io"
	"strings"
)

// The oldest kernel: BPF ring buffers and CAP_BPF came with 5.8,
// CAP_CHECKPOINT_RESTORE with 5.9; 5.10 is the first long-term one after them.
const floorMajor, floorMinor = 5, 10

// kernel checks what was decided when the kernel was built and booted.
func (h host) kernel() []Check {
	return []Check{h.kernelVersion(), h.btf(), h.lockdown()}
}

func (h host) kernelVersion() Check {
	c := Check{Name: "kernel", Found: h.release}
	switch {
	case h.major == 0:
		c.State = Warn
		c.Found = fmt.Sprintf("unknown release %q", h.release)
		c.Fix = "Mount /proc, or tell from `uname -r` whether the kernel is 5.10 or newer."
	case h.older(floorMajor, floorMinor):
		c.State = Fail
		c.Fix = fmt.Sprintf("Boot a kernel that is %d.%d or newer.", floorMajor, floorMinor)
	}
	return c
}

func (h host) btf() Check {
	c := Check{Name: "BTF", Found: "/sys/kernel/btf/vmlinux"}
	var magic [2]byte
	f, err := h.Files.Open("sys/kernel/btf/vmlinux")
	if err == nil {
		_, err = io.ReadFull(f, magic[:])
		f.Close()
	}
	// kernel: include/uapi/linux/btf.h, BTF_MAGIC, in the machine's byte order.
	if err == nil && (magic == [2]byte{0x9f, 0xeb} || magic == [2]byte{0xeb, 0x9f}) {
		return c
	}
	c.State = Fail
	c.Found = "no type information in /sys/kernel/btf/vmlinux"
	c.Fix = "Mount sysfs on /sys, or boot a kernel built with CONFIG_DEBUG_INFO_BTF=y, as distributions' own are."
	return c
}

// lockdown reads the mode in brackets: none [integrity] confidentiality.
// In confidentiality mode the kernel refuses bpf_probe_read_kernel, with which
// the program reads registers of tasks in system calls.
func (h host) lockdown() Check {
	c := Check{Name: "lockdown"}
	const fix = "Boot without lockdown=confidentiality on the kernel's command line; lockdown=integrity is fine."
	text, err := h.read("sys/kernel/security/lockdown")
	if err != nil {
		cmdline, _ := h.read("proc/cmdline")
		c.Found = "not visible (securityfs is not mounted); the kernel's command line does not ask for it"
		if strings.Contains(cmdline, "lockdown=confidentiality") {
			c.State, c.Found, c.Fix = Fail, "lockdown=confidentiality on the kernel's command line", fix
		}
		return c
	}
	_, mode, _ := strings.Cut(text, "[")
	c.Found, _, _ = strings.Cut(mode, "]")
	if c.Found == "confidentiality" {
		c.State, c.Fix = Fail, fix
	}
	return c
}
