// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// host is a Machine with what several checks need of it.
type host struct {
	Machine
	release      string
	major, minor int
	status       map[string]string // /proc/self/status
	effective    uint64            // capabilities held
	bounding     uint64            // capabilities that exec can still gain
	paranoid     int               // kernel.perf_event_paranoid; -1 also when it cannot be read
	filtered     bool              // a seccomp filter is in force
	initialUser  bool              // the user namespace is the initial one
}

func look(m Machine) host {
	h := host{Machine: m, status: map[string]string{}}
	h.release, _ = h.read("proc/sys/kernel/osrelease")
	h.major, h.minor = version(h.release)
	text, _ := h.read("proc/self/status")
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, ":")
		h.status[key] = strings.TrimSpace(value)
	}
	h.effective, _ = strconv.ParseUint(h.status["CapEff"], 16, 64)
	h.bounding, _ = strconv.ParseUint(h.status["CapBnd"], 16, 64)
	h.filtered = h.status["Seccomp"] == "2"
	h.initialUser = h.namespace("user") == initialUserNS
	h.paranoid = -1
	if text, err := h.read("proc/sys/kernel/perf_event_paranoid"); err == nil {
		if n, err := strconv.Atoi(text); err == nil {
			h.paranoid = n
		}
	}
	return h
}

// read returns a small file without the space around its text.
func (h host) read(name string) (string, error) {
	b, err := fs.ReadFile(h.Files, name)
	return strings.TrimSpace(string(b)), err
}

// Namespaces of the host have inode numbers fixed in the kernel.
// kernel: include/uapi/linux/nsfs.h, PROC_USER_INIT_INO and PROC_PID_INIT_INO.
const (
	initialUserNS = "user:[4026531837]"
	initialPIDNS  = "pid:[4026531836]"
)

// namespace returns what /proc/self/ns/kind links to, or "".
func (h host) namespace(kind string) string {
	link, err := fs.ReadLink(h.Files, "proc/self/ns/"+kind)
	if err != nil {
		return ""
	}
	return link
}

// older reports whether the kernel is older than major.minor. A release that
// cannot be read is not.
func (h host) older(major, minor int) bool {
	return h.major != 0 && (h.major < major || h.major == major && h.minor < minor)
}

// version returns the first two numbers of a release such as 6.1.0-28-amd64,
// and zeros for what is none.
func version(release string) (major, minor int) {
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n != 2 {
		return 0, 0
	}
	return major, minor
}
