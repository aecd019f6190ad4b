// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// roomBytes is what a whole-machine recording may take: 80 MiB of its own and
// 64 MiB of BPF maps, which the kernel charges to the cgroup since 5.11.
const roomBytes = 160 << 20

// surroundings checks what a container or a service manager wraps around us.
func (h host) surroundings() []Check {
	checks := []Check{h.pidNamespace(), h.userNamespace(), h.seccomp(), h.memoryLimit(), h.memoryFree()}
	if h.older(5, 11) {
		checks = append(checks, h.lockedMemory())
	}
	return checks
}

// pidNamespace: samples carry the host's PIDs; in another namespace /proc lists
// other numbers, or other processes under the same ones.
func (h host) pidNamespace() Check {
	c := Check{Name: "PID namespace", Found: "the host's"}
	link := h.namespace("pid")
	switch link {
	case initialPIDNS:
	case "":
		c.State, c.Found = Warn, "unknown: /proc/self/ns/pid cannot be read"
		c.Fix = "Mount proc on /proc."
	default:
		c.State, c.Found = Fail, "not the host's: "+link
		c.Fix = "Run it in the host's PID namespace: `docker run --pid=host`, hostPID: true in Kubernetes, or outside the container."
	}
	return c
}

func (h host) userNamespace() Check {
	c := Check{Name: "user namespace", Found: "the host's"}
	if !h.initialUser {
		c.State, c.Found = Fail, "not the host's: "+h.namespace("user")
		c.Fix = h.rights(unix.CAP_BPF)
	}
	return c
}

// seccomp only says what is there: whether the filter lets our system calls
// through, the trials tell.
func (h host) seccomp() Check {
	c := Check{Name: "seccomp", Found: "no filter"}
	if h.filtered {
		c.Found = "a filter is in force"
	}
	return c
}

func (h host) memoryLimit() Check {
	c := Check{Name: "memory limit", Found: "none"}
	limit, file := h.cgroupLimit()
	if file == "" {
		return c
	}
	c.Found = fmt.Sprintf("%d MiB (/%s)", limit>>20, file)
	if limit < roomBytes {
		c.State = Warn
		c.Fix = fmt.Sprintf("Raise the memory limit of the container or service to %d MiB.", roomBytes>>20)
	}
	return c
}

// cgroupLimit returns the least memory limit on the way from our cgroup to the
// root and the file that sets it, or "" if none does. See cgroups(7) for
// /proc/self/cgroup. A container without its own cgroup namespace is named a
// path that its /sys/fs/cgroup lacks, but the root of that is its own cgroup.
func (h host) cgroupLimit() (limit uint64, file string) {
	text, err := h.read("proc/self/cgroup")
	if err != nil {
		return 0, ""
	}
	for line := range strings.Lines(text) {
		field := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(field) != 3 {
			continue
		}
		mount, name := "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		if field[0] == "0" {
			mount, name = "sys/fs/cgroup", "memory.max"
		} else if !slices.Contains(strings.Split(field[1], ","), "memory") {
			continue
		}
		for dir := path.Clean("/" + field[2]); ; dir = path.Dir(dir) {
			f := mount + path.Join(dir, name)
			if dir == "/" {
				f = mount + "/" + name
			}
			if n, ok := h.limit(f); ok && (file == "" || n < limit) {
				limit, file = n, f
			}
			if dir == "/" {
				break
			}
		}
	}
	return limit, file
}

// limit reads a limit in bytes. Version 2 writes "max" for none, version 1 the
// largest multiple of the page size.
func (h host) limit(file string) (uint64, bool) {
	text, err := h.read(file)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(text, 10, 64)
	return n, err == nil && n < 1<<62
}

func (h host) memoryFree() Check {
	c := Check{Name: "memory available", Found: "unknown"}
	text, _ := h.read("proc/meminfo")
	for line := range strings.Lines(text) {
		var kib uint64
		if n, _ := fmt.Sscanf(line, "MemAvailable: %d kB", &kib); n != 1 {
			continue
		}
		c.Found = fmt.Sprintf("%d MiB", kib>>10)
		if kib<<10 < roomBytes {
			c.State = Warn
			c.Fix = fmt.Sprintf("Free some memory: a recording of the whole machine may take %d MiB.", roomBytes>>20)
		}
	}
	return c
}

// lockedMemory: before 5.11 BPF maps count as locked memory, and raising that
// limit takes CAP_SYS_RESOURCE. kernel: bpf_charge_memlock.
func (h host) lockedMemory() Check {
	c := Check{Name: "locked memory", Found: "limited, but CAP_SYS_RESOURCE raises it"}
	if h.holds(unix.CAP_SYS_RESOURCE) {
		return c
	}
	text, _ := h.read("proc/self/limits")
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, "Max locked memory")
		if f := strings.Fields(rest); ok && len(f) > 0 && f[0] == "unlimited" {
			c.Found = "unlimited"
			return c
		}
	}
	c.State, c.Found = Fail, "limited: BPF maps count as locked memory before Linux 5.11"
	c.Fix = "Run it with sudo, or lift the limit with `ulimit -l unlimited` (LimitMEMLOCK=infinity in systemd)."
	return c
}
