// SPDX-License-Identifier: Apache-2.0

package process

import (
	"strings"
)

// parseCgroup returns the path of /proc/PID/cgroup that says most, and the
// container ID in it. Lines are "hierarchy:controllers:path" (cgroups(7)); the
// path may hold colons. With versions 1 and 2 mounted together the unified path
// is often "/" while the systemd or a controller's hierarchy has the real one.
func parseCgroup(b []byte) (path, container string) {
	best, rank := "", -1
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 || !strings.HasPrefix(f[2], "/") {
			continue
		}
		id := containerID(f[2])
		if r := cgroupRank(f[0], f[1], f[2], id); r > rank {
			best, container, rank = f[2], id, r
		}
	}
	return strings.Clone(best), strings.Clone(container)
}

func cgroupRank(hierarchy, controllers, path, container string) int {
	r := 0
	switch {
	case hierarchy == "0" && controllers == "":
		r = 3
	case controllers == "name=systemd":
		r = 2
	case controllers == "memory" || controllers == "pids":
		r = 1
	}
	if path != "/" {
		r += 10
	}
	if container != "" {
		r += 20
	}
	return r
}

// containerID returns the ID, or for LXC, systemd-nspawn and the like the name,
// of the innermost container that a cgroup path belongs to, or "".
func containerID(path string) string {
	for len(path) > 0 {
		i := strings.LastIndexByte(path, '/')
		name := path[i+1:]
		path = path[:max(i, 0)]
		parent := path[strings.LastIndexByte(path, '/')+1:]
		if id, ok := componentID(name, parent); ok {
			return id
		}
	}
	return ""
}

// componentID looks at one component of a cgroup path. It returns ok true and
// an empty ID for a component that is known to belong to no container.
func componentID(name, parent string) (id string, ok bool) {
	base, scope := strings.CutSuffix(name, ".scope")
	if i := strings.LastIndexByte(base, ':'); i >= 0 {
		// "kubepods-pod….slice:cri-containerd:<id>": a systemd path given to a
		// runtime that uses the cgroupfs driver.
		base = base[i+1:]
	}
	if i := strings.LastIndexByte(base, '-'); i >= 0 && isHex(base[i+1:], 64) {
		// docker-, cri-containerd-, crio-, libpod-, nerdctl-… <id>
		if strings.HasSuffix(base[:i], "conmon") {
			return "", true // the monitor beside the container
		}
		return base[i+1:], true
	}
	switch {
	case isHex(base, 64):
		return base, true
	case isFargate(base) && !scope:
		return base, true
	case parent == "garden" || parent == "buildkit":
		return name, name != ""
	case parent == "lxc" || parent == "lxc.payload":
		return name, name != ""
	}
	if s, found := strings.CutPrefix(name, "lxc.payload."); found && s != "" {
		return s, true
	}
	if strings.HasPrefix(name, "lxc.monitor.") {
		return "", true
	}
	return machineName(base, scope, name)
}

// machineName returns the name of a systemd-nspawn machine. Virtual machines
// are registered with systemd-machined too; what runs there is the hypervisor.
func machineName(base string, scope bool, name string) (string, bool) {
	if s, found := strings.CutPrefix(base, "machine-"); found && scope && s != "" {
		s = unescapeUnit(s)
		if strings.HasPrefix(s, "qemu-") {
			return "", true
		}
		return s, true
	}
	if s, found := strings.CutPrefix(name, "systemd-nspawn@"); found {
		s, found = strings.CutSuffix(s, ".service")
		return unescapeUnit(s), found && s != ""
	}
	return "", false
}

// isFargate reports whether s is the ID of a container of an ECS task on
// Fargate: 32 hexadecimal digits, a dash, up to 10 decimal ones.
func isFargate(s string) bool {
	task, n, ok := strings.Cut(s, "-")
	if !ok || !isHex(task, 32) || n == "" || len(n) > 10 {
		return false
	}
	_, rest, ok := cutDec([]byte(n))
	return ok && len(rest) == 0
}

func isHex(s string, n int) bool {
	if len(s) != n {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// unescapeUnit undoes systemd-escape(1): \xNN, of which only \x2d ("-") is
// common in names of machines.
func unescapeUnit(s string) string {
	return strings.ReplaceAll(s, `\x2d`, "-")
}
