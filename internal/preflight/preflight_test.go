// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// tree is a machine on which everything works, changed by files (an empty
// text removes the file).
func tree(files map[string]string) fstest.MapFS {
	all := map[string]string{
		"proc/sys/kernel/osrelease":                  "6.1.0-28-amd64\n",
		"proc/sys/kernel/perf_event_paranoid":        "2\n",
		"proc/sys/kernel/perf_event_max_sample_rate": "100000\n",
		"proc/sys/kernel/kptr_restrict":              "1\n",
		"proc/sys/kernel/unprivileged_bpf_disabled":  "2\n",
		"proc/sys/net/core/bpf_jit_enable":           "1\n",
		"proc/self/status":                           status("000001ffffffffff", "000001ffffffffff"),
		"proc/self/cgroup":                           "0::/user.slice/a.scope\n",
		"proc/meminfo":                               "MemTotal:       8000000 kB\nMemAvailable:    4000000 kB\n",
		"proc/cmdline":                               "quiet\n",
		"sys/kernel/btf/vmlinux":                     "\x9f\xeb\x01\x00",
		"sys/kernel/security/lockdown":               "[none] integrity confidentiality\n",
	}
	maps.Copy(all, files)
	m := fstest.MapFS{
		"proc/self/ns/pid":  {Data: []byte(initialPIDNS), Mode: fs.ModeSymlink},
		"proc/self/ns/user": {Data: []byte(initialUserNS), Mode: fs.ModeSymlink},
	}
	for name, text := range all {
		if text == "" {
			continue
		}
		mode := fs.FileMode(0o444)
		if strings.HasPrefix(name, "proc/self/ns/") {
			mode |= fs.ModeSymlink
		}
		m[name] = &fstest.MapFile{Data: []byte(text), Mode: mode}
	}
	return m
}

func status(effective, bounding string, more ...string) string {
	return "Name:\tlowflame\nCapEff:\t" + effective + "\nCapBnd:\t" + bounding + "\n" +
		strings.Join(append(more, "Seccomp_filters:\t0"), "\n") + "\n"
}

func works() error { return nil }

func fails(err error) func() error { return func() error { return err } }

const (
	all        = "000001ffffffffff"
	none       = "0000000000000000"
	bpfPerfmon = "000000c000000000" // bits 39 and 38
	sysAdmin   = "0000000000200000" // bit 21
)

func TestChecks(t *testing.T) {
	eperm, eacces := fails(unix.EPERM), fails(unix.EACCES)
	tests := []struct {
		name      string
		files     map[string]string
		bpf, perf func() error
		// want has the checks that are not ok: "state name: a part of found | a part of fix".
		want []string
	}{
		{name: "all there"},
		{
			name:  "old kernel",
			files: map[string]string{"proc/sys/kernel/osrelease": "5.4.0-200-generic\n"},
			want:  []string{"fail kernel: 5.4.0-200-generic | 5.10 or newer"},
		},
		{
			name:  "no BTF",
			files: map[string]string{"sys/kernel/btf/vmlinux": ""},
			want:  []string{"fail BTF: no type information | CONFIG_DEBUG_INFO_BTF=y"},
		},
		{
			name:  "lockdown",
			files: map[string]string{"sys/kernel/security/lockdown": "none integrity [confidentiality]\n"},
			want:  []string{"fail lockdown: confidentiality | lockdown=integrity is fine"},
		},
		{
			name: "lockdown without securityfs",
			files: map[string]string{
				"sys/kernel/security/lockdown": "",
				"proc/cmdline":                 "quiet lockdown=confidentiality\n",
			},
			want: []string{"fail lockdown: command line | lockdown=integrity is fine"},
		},
		{
			name:  "integrity is enough",
			files: map[string]string{"sys/kernel/security/lockdown": "none [integrity] confidentiality\n"},
		},
		{
			name:  "Debian's paranoid=3 against CAP_PERFMON",
			files: map[string]string{"proc/sys/kernel/perf_event_paranoid": "3\n", "proc/self/status": status(bpfPerfmon, all)},
			perf:  eacces,
			want: append([]string{
				"fail kernel.perf_event_paranoid: 3 | sudo sysctl kernel.perf_event_paranoid=2",
				"fail perf event: permission denied | sudo sysctl kernel.perf_event_paranoid=2",
			}, fewer...),
		},
		{
			name:  "paranoid=3 upstream means no more than 2",
			files: map[string]string{"proc/sys/kernel/perf_event_paranoid": "3\n", "proc/self/status": status(bpfPerfmon, all)},
			want:  fewer,
		},
		{
			name:  "paranoid=3 does not stop CAP_SYS_ADMIN",
			files: map[string]string{"proc/sys/kernel/perf_event_paranoid": "3\n", "proc/self/status": status(sysAdmin, all)},
			want: []string{
				"warn CAP_SYS_PTRACE: missing | setcap", "warn CAP_DAC_READ_SEARCH: missing | setcap",
				"warn CAP_SYSLOG: kernel functions have no names | setcap",
			},
		},
		{
			name:  "no rights",
			files: map[string]string{"proc/self/status": status(none, all)},
			bpf:   eperm, perf: eacces,
			want: append([]string{
				"fail CAP_BPF: missing | cap_checkpoint_restore,cap_syslog+ep /opt/lowflame",
				"fail CAP_PERFMON: missing | Run it with sudo",
				"fail bpf system call: operation not permitted | Run it with sudo",
				"fail perf event: permission denied | Run it with sudo",
			}, fewer...),
		},
		{
			name:  "a container that lacks them",
			files: map[string]string{"proc/self/status": status(bpfPerfmon, bpfPerfmon)},
			want: []string{
				"warn CAP_SYS_PTRACE: missing | --cap-add=SYS_PTRACE", "warn CAP_DAC_READ_SEARCH: missing | docker run",
				"warn CAP_CHECKPOINT_RESTORE: missing | docker run", "warn CAP_SYSLOG: missing | docker run",
			},
		},
		{
			name:  "no_new_privs",
			files: map[string]string{"proc/self/status": status(bpfPerfmon, all, "NoNewPrivs:\t1")},
			want: []string{
				"warn CAP_SYS_PTRACE: missing | AmbientCapabilities=CAP_BPF CAP_PERFMON", "warn CAP_DAC_READ_SEARCH: missing | neither sudo",
				"warn CAP_CHECKPOINT_RESTORE: missing | neither sudo", "warn CAP_SYSLOG: missing | neither sudo",
			},
		},
		{
			name: "kernel symbols open to all",
			files: map[string]string{
				"proc/self/status":                    status(sysAdmin, all),
				"proc/sys/kernel/kptr_restrict":       "0\n",
				"proc/sys/kernel/perf_event_paranoid": "1\n",
			},
			want: []string{"warn CAP_SYS_PTRACE: missing | setcap", "warn CAP_DAC_READ_SEARCH: missing | setcap"},
		},
		{
			name: "sysctls",
			files: map[string]string{
				"proc/sys/kernel/perf_event_max_sample_rate": "50\n",
				"proc/sys/kernel/kptr_restrict":              "2\n",
				"proc/sys/net/core/bpf_jit_enable":           "0\n",
			},
			want: []string{
				"warn kernel.perf_event_max_sample_rate: 50 | sudo sysctl kernel.perf_event_max_sample_rate=100000",
				"warn kernel.kptr_restrict: 2 | sudo sysctl kernel.kptr_restrict=1",
				"warn net.core.bpf_jit_enable: 0 | sudo sysctl net.core.bpf_jit_enable=1",
			},
		},
		{
			name:  "PID namespace",
			files: map[string]string{"proc/self/ns/pid": "pid:[4026532179]"},
			want:  []string{"fail PID namespace: pid:[4026532179] | docker run --pid=host"},
		},
		{
			name:  "capabilities of a user namespace",
			files: map[string]string{"proc/self/ns/user": "user:[4026532177]"},
			bpf:   eperm, perf: eacces,
			want: []string{
				"fail CAP_BPF: missing | user namespace", "fail CAP_PERFMON: missing | user namespace",
				"warn CAP_SYS_PTRACE: missing | user namespace", "warn CAP_DAC_READ_SEARCH: missing | user namespace",
				"warn CAP_CHECKPOINT_RESTORE: missing | user namespace", "warn CAP_SYSLOG: missing | user namespace",
				"fail user namespace: user:[4026532177] | sudo",
				"fail bpf system call: not permitted | user namespace", "fail perf event: denied | user namespace",
			},
		},
		{
			name:  "seccomp",
			files: map[string]string{"proc/self/status": status(all, all, "Seccomp:\t2")},
			bpf:   eperm, perf: fails(unix.ENOSYS),
			want: []string{
				"fail bpf system call: not permitted | seccomp=unconfined",
				"fail perf event: not implemented | seccomp=unconfined",
			},
		},
		{
			name: "a security module",
			bpf:  eacces,
			want: []string{"fail bpf system call: permission denied | SELinux, AppArmor"},
		},
		{
			name: "no perf events in the kernel",
			perf: fails(unix.ENOSYS),
			want: []string{"fail perf event: not implemented | CONFIG_PERF_EVENTS=y"},
		},
		{
			name:  "cgroup v2 limit of an ancestor",
			files: map[string]string{"sys/fs/cgroup/user.slice/memory.max": "67108864\n", "sys/fs/cgroup/user.slice/a.scope/memory.max": "max\n"},
			want:  []string{"warn memory limit: 64 MiB (/sys/fs/cgroup/user.slice/memory.max) | to 160 MiB"},
		},
		{
			name: "cgroup v1 limit of a container",
			files: map[string]string{
				"proc/self/cgroup":                           "9:name=systemd:/\n4:cpu,memory:/docker/8a\n0::/\n",
				"sys/fs/cgroup/memory/memory.limit_in_bytes": "104857600\n",
			},
			want: []string{"warn memory limit: 100 MiB (/sys/fs/cgroup/memory/memory.limit_in_bytes) | to 160 MiB"},
		},
		{
			name: "cgroup v1 without limit",
			files: map[string]string{
				"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
			},
		},
		{
			name:  "little memory",
			files: map[string]string{"proc/meminfo": "MemTotal: 262144 kB\nMemAvailable:   65536 kB\n"},
			want:  []string{"warn memory available: 64 MiB | Free some memory"},
		},
		{
			name: "locked memory on 5.10",
			files: map[string]string{
				"proc/sys/kernel/osrelease": "5.10.0-28-amd64\n",
				"proc/self/status":          status(bpfPerfmon, all),
				"proc/self/limits":          "Max locked memory         65536                65536                bytes\n",
			},
			bpf: eperm,
			want: append([]string{
				"fail locked memory: limited | LimitMEMLOCK=infinity",
				"fail bpf system call: not permitted | LimitMEMLOCK=infinity",
			}, fewer...),
		},
		{
			name: "locked memory lifted on 5.10",
			files: map[string]string{
				"proc/sys/kernel/osrelease": "5.10.0-28-amd64\n",
				"proc/self/status":          status(bpfPerfmon, all),
				"proc/self/limits":          "Max locked memory         unlimited            unlimited            bytes\n",
			},
			want: fewer,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := Machine{Files: tree(tt.files), Exe: "/opt/lowflame", BPF: works, PerfEvent: works}
			if tt.bpf != nil {
				m.BPF = tt.bpf
			}
			if tt.perf != nil {
				m.PerfEvent = tt.perf
			}
			compare(t, m.Checks(), tt.want)
		})
	}
}

// fewer are the warnings where only CAP_BPF and CAP_PERFMON are held.
var fewer = []string{
	"warn CAP_SYS_PTRACE: missing | setcap", "warn CAP_DAC_READ_SEARCH: missing | setcap",
	"warn CAP_CHECKPOINT_RESTORE: missing | setcap", "warn CAP_SYSLOG: missing | setcap",
}

func compare(t *testing.T, checks []Check, want []string) {
	t.Helper()
	left := map[string]string{}
	for _, w := range want {
		head, parts, _ := strings.Cut(w, ": ")
		left[head] = parts
	}
	for _, c := range checks {
		if c.State == OK {
			if c.Fix != "" || c.Found == "" {
				t.Errorf("%s is ok, yet: found %q, fix %q", c.Name, c.Found, c.Fix)
			}
			continue
		}
		head := c.State.String() + " " + c.Name
		parts, ok := left[head]
		delete(left, head)
		found, fix, _ := strings.Cut(parts, " | ")
		if !ok || !strings.Contains(c.Found, found) || !strings.Contains(c.Fix, fix) {
			t.Errorf("got %s: %s | %s\nwant %q", head, c.Found, c.Fix, parts)
		}
	}
	for head := range left {
		t.Errorf("no check says %q", head)
	}
}

// TestEmptyTree is a machine that shows nothing: no panic, and not fit.
func TestEmptyTree(t *testing.T) {
	m := Machine{Files: fstest.MapFS{}, BPF: fails(unix.EPERM), PerfEvent: fails(unix.EPERM)}
	if err := Failures(m.Checks()); err == nil {
		t.Error("a machine without /proc and rights is said to be fit")
	}
}

func TestFailures(t *testing.T) {
	m := Machine{Files: tree(map[string]string{"proc/self/status": status(none, all)}), Exe: "x", BPF: works, PerfEvent: works}
	broken := Check{Name: "BPF program", State: Fail, Found: "rejected by the verifier", Fix: "Tell its authors."}
	err := Failures(m.Checks(func() Check { return broken }))
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want an *Error", err)
	}
	const want = `this machine does not let lowflame record
  CAP_BPF: missing: BPF programs cannot be loaded
  CAP_PERFMON: missing: other processes and the kernel cannot be sampled
  BPF program: rejected by the verifier
Run it with sudo, or give the program the rights: ` +
		"`sudo setcap cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search,cap_checkpoint_restore,cap_syslog+ep x`.\n" +
		"Tell its authors."
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("error text (-want +got):\n%s", diff)
	}
	if err := Failures(nil); err != nil {
		t.Errorf("Failures(nil) = %v", err)
	}
}

func TestWriteTable(t *testing.T) {
	checks := []Check{
		{Name: "kernel", Found: "6.1.0"},
		{Name: "CAP_SYSLOG", State: Warn, Found: "missing", Fix: "Run it with sudo."},
		{Name: "CAP_BPF", State: Fail, Found: "missing", Fix: "Run it with sudo."},
	}
	const want = `ok    kernel      6.1.0
warn  CAP_SYSLOG  missing
fail  CAP_BPF     missing

To mend:
  CAP_SYSLOG, CAP_BPF
    Run it with sudo.

1 ok, 1 warnings, 1 failures
`
	var b strings.Builder
	if err := WriteTable(&b, checks, false); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
	b.Reset()
	if err := WriteTable(&b, checks, true); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "\x1b[1;31mfail\x1b[0m  CAP_BPF") {
		t.Errorf("no red failure in %q", b.String())
	}
}

// TestLocal looks at the machine of the test itself.
func TestLocal(t *testing.T) {
	checks := Local().Checks()
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		t.Fatal(err)
	}
	if release := unix.ByteSliceToString(uts.Release[:]); checks[0].Found != release {
		t.Errorf("kernel is %q, uname says %q", checks[0].Found, release)
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: whether a recording can start here")
	}
	if err := Failures(checks); err != nil {
		t.Errorf("root cannot record: %v", err)
	}
}
