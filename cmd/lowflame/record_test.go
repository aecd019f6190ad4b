// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/lowflame/lowflame/pprofexport"
)

// mainChild makes the test's binary lowflame itself.
const mainChild = "LOWFLAME_TEST_MAIN"

// lowflame returns the command `lowflame ARGS…`.
func lowflame(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), mainChild+"=1")
	return cmd
}

// finish runs cmd and returns what it wrote to standard error and its exit code.
func finish(t *testing.T, cmd *exec.Cmd) (stderr string, code int) {
	t.Helper()
	var b bytes.Buffer
	cmd.Stderr = &b
	err := cmd.Run()
	if exited := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exited) {
		t.Fatal(err)
	}
	return b.String(), cmd.ProcessState.ExitCode()
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("sampling needs root")
	}
}

func read(t *testing.T, path string) *profile.Profile {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := profile.Parse(f)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// samples counts the samples of processes called comm.
func samples(p *profile.Profile, comm string) (n int64) {
	for _, s := range p.Sample {
		if s.HasLabel("comm", comm) {
			n += s.Value[0]
		}
	}
	return n
}

const burn = "i=0; while [ $i -lt 150000 ]; do i=$((i+1)); done"

func TestRecordCommandLine(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"nothing to record", nil, 2, "say what to record"},
		{"two things to record", []string{"-a", "--", "true"}, 2, "say what to record"},
		{"no such process", []string{"-p", "4194305"}, 2, "process 4194305"},
		{"not a PID", []string{"-p", "firefox"}, 2, "firefox"},
		{"no samples", []string{"-a", "-F", "0"}, 2, "-F 0"},
		{"negative duration", []string{"-a", "-d", "-1s"}, 2, "-1s"},
		{"unknown format", []string{"-a", "--format", "svg"}, 2, "svg"},
		{"unknown extension", []string{"-a", "-o", "x.xyz"}, 2, "x.xyz"},
		{"unknown event", []string{"-a", "--event", "instructions"}, 2, "instructions"},
		{"unknown flag", []string{"-a", "--fast"}, 2, "--fast"},
	} {
		t.Run(c.name, func(t *testing.T) {
			stderr, code := finish(t, lowflame(t, append([]string{"record"}, c.args...)...))
			if code != c.code || !strings.Contains(stderr, c.want) {
				t.Errorf("exit code %d, want %d; standard error has no %q:\n%s", code, c.code, c.want, stderr)
			}
		})
	}
}

func TestRecordWithoutRights(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), copySelf(t), "record", "-a", "-d", "1s", "-o", "/dev/null", "--format", "pprof")
	cmd.Env = append(os.Environ(), mainChild+"=1")
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	began := time.Now()
	stderr, code := finish(t, cmd)
	if code != 1 || !strings.Contains(stderr, "setcap cap_bpf") || time.Since(began) > 20*time.Second {
		t.Errorf("exit code %d after %v, want 1 at once with what is missing:\n%s", code, time.Since(began), stderr)
	}
}

func TestRecordStatusOfCommand(t *testing.T) {
	needRoot(t)
	for _, c := range []struct {
		name    string
		command []string
		code    int
	}{
		{"success", []string{"true"}, 0},
		{"its own status", []string{"sh", "-c", "exit 7"}, 7},
		{"a signal", []string{"sh", "-c", "kill -KILL $$"}, 128 + 9},
		{"not found", []string{"/no/such/program"}, 127},
		{"not executable", []string{"/etc/passwd"}, 126},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "p.pb.gz")
			stderr, code := finish(t, lowflame(t, append([]string{"record", "-o", out, "--"}, c.command...)...))
			if code != c.code {
				t.Errorf("exit code %d, want %d:\n%s", code, c.code, stderr)
			}
			if c.code < 126 || c.code > 127 {
				read(t, out)
			}
		})
	}
}

func TestRecordNowhereToWrite(t *testing.T) {
	needRoot(t)
	stderr, code := finish(t, lowflame(t, "record", "-o", "/no/such/dir/p.pb.gz", "--", "true"))
	if code != 2 || !strings.Contains(stderr, "no directory /no/such/dir") {
		t.Errorf("exit code %d, want 2 before the command runs:\n%s", code, stderr)
	}
}

// TestRecordFollows has a shell start two more, one the child of the other.
func TestRecordFollows(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	for _, name := range []string{"flame-child", "flame-grand"} {
		if err := os.Symlink("/bin/sh", filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	script := fmt.Sprintf("%[1]s/flame-child -c '%[1]s/flame-grand -c \"%[2]s\"; %[3]s'; :", dir, strings.ReplaceAll(burn, "$", `\$`), burn)
	for _, follow := range []bool{true, false} {
		out := filepath.Join(dir, "p.pb.gz")
		stderr, code := finish(t, lowflame(t, "record", "-F", "997", "-o", out, fmt.Sprintf("--follow=%t", follow), "--", "sh", "-c", script))
		if code != 0 {
			t.Fatalf("exit code %d:\n%s", code, stderr)
		}
		p := read(t, out)
		for _, comm := range []string{"flame-child", "flame-grand"} {
			if n := samples(p, comm); (n > 5) != follow {
				t.Errorf("--follow=%t: %d samples of %s\n%s", follow, n, comm, stderr)
			}
		}
	}
}

// TestRecordInterrupted sends SIGINT to a recording of processes, as Ctrl-C does.
func TestRecordInterrupted(t *testing.T) {
	needRoot(t)
	target := exec.CommandContext(t.Context(), "sh", "-c", "while :; do :; done")
	if err := target.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = target.Process.Kill()
		_ = target.Wait()
	}()
	out := filepath.Join(t.TempDir(), "p.folded")
	cmd := lowflame(t, "record", "-p", strconv.Itoa(target.Process.Pid), "-o", out)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	awaitSampling(t, cmd.Process.Pid)
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(text, []byte("sh;")) || !strings.Contains(stderr.String(), "complete stacks") {
		t.Errorf("folded output:\n%.300s\nstandard error:\n%s", text, stderr.String())
	}
}

// awaitSampling waits until a lowflame has opened an event more for each CPU than the
// two it watches processes with, and has taken samples for a while.
func awaitSampling(t *testing.T, pid int) {
	t.Helper()
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		entries, err := os.ReadDir(dir)
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("does not sample: %v", err)
		}
		events := 0
		for _, e := range entries {
			if target, _ := os.Readlink(filepath.Join(dir, e.Name())); target == "anon_inode:[perf_event]" {
				events++
			}
		}
		if events >= 3*runtime.NumCPU() {
			time.Sleep(time.Second)
			return
		}
	}
}

// TestRecordEndsWithProcess records a process that ends by itself.
func TestRecordEndsWithProcess(t *testing.T) {
	needRoot(t)
	target := exec.CommandContext(t.Context(), "sleep", "4")
	if err := target.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = target.Wait() }() // so that no zombie is left to wait for
	began := time.Now()
	stderr, code := finish(t, lowflame(t, "record", "-p", strconv.Itoa(target.Process.Pid), "-o", filepath.Join(t.TempDir(), "p.pb.gz")))
	if took := time.Since(began); code != 0 || took < time.Second || took > 30*time.Second {
		t.Errorf("exit code %d after %v:\n%s", code, took, stderr)
	}
}

// TestRecordDuration ends a command that would run for ever.
func TestRecordDuration(t *testing.T) {
	needRoot(t)
	out := filepath.Join(t.TempDir(), "p.speedscope.json")
	stderr, code := finish(t, lowflame(t, "record", "-d", "1s", "-o", out, "--", "sleep", "1000"))
	if code != 128+int(syscall.SIGTERM) {
		t.Errorf("exit code %d, want that of SIGTERM:\n%s", code, stderr)
	}
	if _, err := os.Stat(out); err != nil {
		t.Error(err)
	}
}

// TestRecordEvent holds on machines with a counter of cycles, and on those without.
func TestRecordEvent(t *testing.T) {
	needRoot(t)
	used := make(map[string]string)
	for _, event := range []string{"", "cpu-clock", "cycles"} {
		out := filepath.Join(t.TempDir(), "p.pb.gz")
		stderr, code := finish(t, lowflame(t, "record", "--event", event, "-o", out, "--", "sh", "-c", burn))
		switch {
		case code == 0:
			p := read(t, out)
			used[event], _, _ = strings.Cut(pprofexport.Comment(p, "event"), " at ")
			if len(p.Sample) == 0 || p.Period != int64(time.Second/199) {
				t.Errorf("%q: %d stacks, period %d", event, len(p.Sample), p.Period)
			}
		case event != "cycles" || code != exitOwnFailure || !strings.Contains(stderr, "use cpu-clock"):
			t.Errorf("%q: exit code %d:\n%s", event, code, stderr)
		}
	}
	best := "cpu-clock"
	if used["cycles"] != "" {
		best = "cycles"
	}
	if used["cpu-clock"] != "cpu-clock" || used[""] != best {
		t.Errorf("events asked for and used: %q", used)
	}
}

// TestRecordSelf records the machine with lowflame in it and without.
func TestRecordSelf(t *testing.T) {
	needRoot(t)
	for _, self := range []bool{true, false} {
		out := filepath.Join(t.TempDir(), "p.pb.gz")
		cmd := lowflame(t, "record", "-a", "-F", "4999", "-d", "1s", "-o", out, fmt.Sprintf("--self=%t", self))
		if stderr, code := finish(t, cmd); code != 0 {
			t.Fatalf("exit code %d:\n%s", code, stderr)
		}
		n := 0
		for _, s := range read(t, out).Sample {
			if slices.Contains(s.NumLabel["pid"], int64(cmd.Process.Pid)) {
				n++
			}
		}
		if (n > 0) != self {
			t.Errorf("--self=%t: %d stacks of lowflame", self, n)
		}
	}
}
