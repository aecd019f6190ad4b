// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/internal/preflight"

	"github.com/lowflame/lowflame/symbolize/builder"
)

const doctorChild = "LOWFLAME_TEST_DOCTOR"

// TestMain lets the test's own binary be the doctor, for processes that have
// other rights than the test.
func TestMain(m *testing.M) {
	if os.Getenv(mainChild) != "" || len(os.Args) == 2 && os.Args[1] == builder.Worker {
		main()
	}
	switch os.Getenv(doctorChild) {
	case "":
		os.Exit(m.Run())
	case "json":
		exit(doctorCmd{JSON: true}.Run())
	default:
		exit(doctorCmd{}.Run())
	}
}

func exit(err error) {
	if err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// doctor runs the doctor as nobody, with only caps, and returns what it prints
// and its exit code. Without root it runs it as the user, who has none either.
func doctor(t *testing.T, form string, caps ...uintptr) (string, int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), copySelf(t))
	cmd.Env = append(os.Environ(), doctorChild+"="+form)
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Credential:  &syscall.Credential{Uid: 65534, Gid: 65534},
			AmbientCaps: caps,
		}
	}
	out, err := cmd.Output()
	var exited *exec.ExitError
	if err != nil && !errors.As(err, &exited) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// copySelf copies the test's binary to where anyone may execute it: the
// directories of `go test` are its user's alone.
func copySelf(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lowflame-doctor")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	src, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	name := filepath.Join(dir, "lowflame")
	dst, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(dst, src); err != nil {
		t.Fatal(err)
	}
	if err := dst.Close(); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestDoctorWithoutRights(t *testing.T) {
	out, code := doctor(t, "table")
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	for _, want := range []string{
		"fail  CAP_BPF", "fail  CAP_PERFMON", "fail  perf event", "warn  CAP_SYS_PTRACE",
		"sudo setcap cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search,cap_checkpoint_restore,cap_syslog+ep /",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("output lacks %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "\x1b") {
		t.Errorf("colors in a pipe:\n%q", out)
	}
}

// TestDoctorWithSomeRights holds the checks against what the kernel grants in
// truth: with these two capabilities a recording can start, with less in it.
func TestDoctorWithSomeRights(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to pass capabilities to another user")
	}
	out, code := doctor(t, "json", unix.CAP_BPF, unix.CAP_PERFMON)
	var got struct {
		OK     bool
		Checks []struct{ Name, State, Found, Fix string }
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v in:\n%s", err, out)
	}
	state := map[string]string{}
	for _, c := range got.Checks {
		state[c.Name] = c.State
		if (c.State == "ok") != (c.Fix == "") {
			t.Errorf("%s is %s, yet its fix is %q", c.Name, c.State, c.Fix)
		}
	}
	if state["kernel.perf_event_paranoid"] == "fail" {
		t.Skip("kernel.perf_event_paranoid refuses CAP_PERFMON on this machine, as the doctor says")
	}
	if !got.OK || code != 0 {
		t.Errorf("ok = %t, exit code %d:\n%s", got.OK, code, out)
	}
	for name, want := range map[string]string{
		"CAP_BPF": "ok", "CAP_PERFMON": "ok", "bpf system call": "ok", "perf event": "ok",
		"CAP_SYS_PTRACE": "warn", "CAP_DAC_READ_SEARCH": "warn", "CAP_CHECKPOINT_RESTORE": "warn",
	} {
		if state[name] != want {
			t.Errorf("%s is %q, want %q", name, state[name], want)
		}
	}
}

func TestRunDoctor(t *testing.T) {
	var b strings.Builder
	err := runDoctor(&b, false, []preflight.Check{{Name: "kernel", Found: "6.1.0"}})
	if err != nil || !strings.HasPrefix(b.String(), "ok    kernel  6.1.0\n") {
		t.Errorf("err %v, output %q", err, b.String())
	}
	err = runDoctor(&b, true, []preflight.Check{{Name: "BTF", State: preflight.Fail, Found: "none", Fix: "x"}})
	if !errors.Is(err, errUnfit) {
		t.Errorf("err = %v, want errUnfit", err)
	}
}
