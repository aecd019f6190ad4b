// SPDX-License-Identifier: Apache-2.0

package process

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// watcher keeps a table current from the running kernel.
type watcher struct {
	*Table
	s *Sideband
	t *testing.T
}

func watch(t *testing.T) *watcher {
	t.Helper()
	w := &watcher{Table: NewTable("/proc"), s: openSideband(t, SidebandConfig{}), t: t}
	if err := w.Scan(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	return w
}

// until applies events until ok, and fails the test if that takes too long.
func (w *watcher) until(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); {
		events, _, err := w.s.Read(w.t.Context(), 20*time.Millisecond)
		if err != nil {
			w.t.Fatal(err)
		}
		w.Apply(events)
		if time.Now().After(deadline) {
			w.t.Fatalf("not seen: %s", what)
		}
	}
}

// compile builds a C program and returns its path.
func compile(t *testing.T, source string, flags ...string) string {
	t.Helper()
	dir := t.TempDir()
	src, bin := filepath.Join(dir, "prog.c"), filepath.Join(dir, "prog")
	if err := os.WriteFile(src, []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("cc", append([]string{"-O1", "-pthread", "-o", bin, src}, flags...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

// target is a program that answers each line of input with one of output.
type target struct {
	pid uint32
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Scanner
}

func startTarget(t *testing.T, cmd *exec.Cmd) *target {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	return &target{pid: start(t, cmd), cmd: cmd, in: in, out: bufio.NewScanner(out)}
}

// step has the target go on and waits until it has.
func (p *target) step(t *testing.T) string {
	t.Helper()
	if _, err := p.in.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	if !p.out.Scan() {
		t.Fatalf("target said nothing: %v", p.out.Err())
	}
	return p.out.Text()
}

// steps is the part all targets share.
const steps = `
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
static void step(void) { if (getchar() == EOF) exit(0); }
static void say(const char *s) { puts(s); fflush(stdout); }
`

func TestDlopenAndRename(t *testing.T) {
	bin := compile(t, steps+`
int main(void) {
	step();
	if (!dlopen("libresolv.so.2", RTLD_NOW)) say(dlerror()); else say("ok");
	step(); prctl(PR_SET_NAME, "a) R 1\n\xff"); say("ok");
	step(); void *p = mmap(0, 8192, PROT_READ|PROT_WRITE|PROT_EXEC, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0); say("ok");
	step(); int fd = memfd_create("jit", 0); ftruncate(fd, 4096);
	mmap(0, 4096, PROT_READ|PROT_EXEC, MAP_SHARED, fd, 0); say("ok");
	step(); (void)p; return 0;
}`, "-ldl")
	w := watch(t)
	p := startTarget(t, exec.Command(bin))
	live := func() *Process { return w.Live(p.pid) }
	has := func(ok func(m Mapping) bool) func() bool {
		return func() bool { q := live(); return q != nil && slices.ContainsFunc(q.Mappings, ok) }
	}
	w.until("the program", has(func(m Mapping) bool { return m.Path == bin && m.Kind == KindFile && len(m.File.BuildID) == 20 }))
	w.until("vDSO", has(func(m Mapping) bool { return m.Kind == KindVDSO && m.Path == "[vdso]" }))
	if q := live(); q.Exe != bin || q.Since == 0 {
		t.Errorf("started: %+v", q)
	}
	if s := p.step(t); s != "ok" {
		t.Fatal(s)
	}
	w.until("dlopen", has(func(m Mapping) bool { return strings.Contains(m.Path, "libresolv") }))
	p.step(t)
	const name = "a) R 1\n\xff"
	w.until("the new name", func() bool { return live().Comm == name })
	p.step(t)
	w.until("code made at run time", has(func(m Mapping) bool { return m.Kind == KindAnon && m.Path == "" && m.Off == 0 }))
	p.step(t)
	w.until("code in a memfd", has(func(m Mapping) bool { return m.Kind == KindMemfd && m.Path == "/memfd:jit" && m.Deleted }))

	// What /proc shows is what the events said, but for the file IDs.
	events := live()
	w.Rescan(p.pid)
	scanned := live()
	if scanned.ID != events.ID || scanned.Comm != name || len(scanned.Mappings) != len(events.Mappings) {
		t.Errorf("scanned %+v after %+v", scanned, events)
	}
	fresh := NewTable("/proc")
	fresh.Rescan(p.pid)
	q := fresh.At(p.pid, 1)
	if q == nil || q.Comm != name || q.Exe != bin || q.Inherited || q.OwnRoot || q.NSPID != p.pid || q.Start == 0 || q.PPID != uint32(os.Getpid()) {
		t.Fatalf("seen first by scan: %+v", q)
	}
	for i, m := range q.Mappings {
		if n := events.Mappings[i]; m.Begin != n.Begin || m.End != n.End || m.Off != n.Off && m.Kind != KindVDSO || m.Kind != n.Kind || m.Path != n.Path {
			t.Errorf("mapping %d: %+v by events, %+v by scan", i, n, m)
		}
	}
	p.in.Write([]byte("\n")) // it returns from main
	w.until("exit", func() bool { return live() == nil })
}

func TestExecChain(t *testing.T) {
	w := watch(t)
	cmd := exec.Command("/bin/sh", "-c", "exec /bin/bash -c 'exec /bin/sleep 1000'")
	pid := start(t, cmd)
	w.until("sleep", func() bool { q := w.Live(pid); return q != nil && q.Comm == "sleep" && len(q.Mappings) >= 3 })
	var got []string
	for _, img := range w.procs[pid].images {
		got = append(got, img.p.Comm)
		if q := img.p; q.Until != 0 && w.At(pid, q.Until-1).ID != q.ID {
			t.Errorf("At does not find %+v", q)
		}
	}
	if !slices.Equal(got[1:], []string{"sh", "bash", "sleep"}) {
		t.Errorf("images after the fork: %q", got)
	}
	if q := w.Live(pid); q.Inherited || q.NSPID != pid || q.Cgroup == "" || q.Cgroup != w.Refresh(uint32(os.Getpid())).Cgroup {
		t.Errorf("details: %+v", q)
	}
}

func TestThreads(t *testing.T) {
	bin := compile(t, steps+`
static void *work(void *arg) {
	step(); say("leader is gone");
	step();
	if (arg) execl("/bin/sleep", "sleep", "1000", NULL);
	dlopen("libresolv.so.2", RTLD_NOW); say("opened");
	step(); exit(0);
}
int main(int argc, char **argv) {
	pthread_t t;
	pthread_create(&t, NULL, work, argc > 1 ? argv[1] : NULL);
	pthread_exit(NULL);
}`, "-ldl")
	leaderGone := func(w *watcher, p *target) {
		w.until("start", func() bool { q := w.Live(p.pid); return q != nil && q.Exe == bin })
		p.step(t)
		w.until("exit of the first thread", func() bool { return !w.procs[p.pid].leader })
	}
	t.Run("leader exits first", func(t *testing.T) {
		w := watch(t)
		p := startTarget(t, exec.Command(bin))
		leaderGone(w, p)
		p.step(t)
		w.until("dlopen", func() bool {
			return slices.ContainsFunc(w.Live(p.pid).Mappings, func(m Mapping) bool { return strings.Contains(m.Path, "libresolv") })
		})
		before := w.Live(p.pid)
		if c := w.Rescan(p.pid); len(c) != 1 || c[0].Process.ID != before.ID || len(c[0].Process.Mappings) != len(before.Mappings) {
			t.Errorf("Rescan: %+v; before: %+v", c, before)
		}
		q := w.Live(p.pid)
		checkOpen(t, w.Table, q, q.Find(q.Mappings[0].Begin), bin, true)
		p.in.Write([]byte("\n"))
		w.until("exit", func() bool { return w.Live(p.pid) == nil })
	})
	t.Run("exec in another thread", func(t *testing.T) {
		w := watch(t)
		p := startTarget(t, exec.Command(bin, "exec"))
		leaderGone(w, p)
		p.in.Write([]byte("\n"))
		w.until("exec", func() bool { q := w.Live(p.pid); return q != nil && q.Comm == "sleep" && len(q.Mappings) >= 3 })
		if e := w.procs[p.pid]; !e.leader || len(e.others) != 0 {
			t.Errorf("threads: %+v", e)
		}
		if err := p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		w.until("exit", func() bool { return w.Live(p.pid) == nil })
	})
}

// Kernel threads have a name and nothing else.
func TestKernelThread(t *testing.T) {
	table := NewTable("/proc")
	table.Rescan(2)
	if p := table.Live(2); p == nil || !p.KThread || p.Comm != "kthreadd" || len(p.Mappings) != 0 {
		t.Errorf("%+v", p)
	}
}

// TestPIDReuse runs itself in a PID namespace of its own, where it can choose
// the next PID.
func TestPIDReuse(t *testing.T) {
	if os.Getenv("LOWFLAME_TEST_PIDNS") == "" {
		if os.Geteuid() != 0 {
			t.Skip("needs root to make a PID namespace")
		}
		cmd := exec.Command("/usr/bin/unshare", "-p", "-f", "--mount-proc", os.Args[0], "-test.run=^TestPIDReuse$", "-test.v")
		cmd.Env = append(os.Environ(), "LOWFLAME_TEST_PIDNS=1")
		out, err := cmd.CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("--- PASS: TestPIDReuse")) {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	w := watch(t)
	progs := []string{"/bin/true", "/bin/uname", "/bin/pwd", "/bin/true"}
	pid := uint32(0)
	for try := uint32(1); ; try++ { // a thread of ours may take the PID first
		pid = 1000 * try
		script := fmt.Sprintf("for p in %s; do echo %d > /proc/sys/kernel/ns_last_pid; $p >&2; done; true", strings.Join(progs, " "), pid-1)
		if out, err := exec.Command("/bin/sh", "-c", script).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for range 5 {
			w.Apply(readSoFar(t, w.s))
		}
		if e := w.procs[pid]; e != nil && len(e.images) == 2*len(progs) && e.live() == nil {
			break
		}
		if try == 10 {
			t.Fatal("the PID was not used again")
		}
	}
	last := uint64(0)
	for i, img := range w.procs[pid].images { // fork, exec, fork, exec, …
		p := img.p
		if p.Since < last || p.Until <= p.Since {
			t.Errorf("image %d: %d to %d after %d", i, p.Since, p.Until, last)
		}
		last = p.Until
		if want := filepath.Base(progs[i/2]); i%2 == 1 && (p.Comm != want || !strings.HasSuffix(mainMapping(p).Path, want)) {
			t.Errorf("image %d: %+v, want %s", i, p, want)
		}
		if got := w.At(pid, (p.Since+p.Until)/2); got != p {
			t.Errorf("At in image %d gives %+v", i, got)
		}
	}
}

// The root of a process that ends while it is looked at is not known, which is not
// the same as being another than ours.
func TestDetailsOfZombie(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	d, err := openProcDir("/proc", uint32(cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	if x, err := readDetails(d, d, ownRoot()); !errors.Is(err, errGone) {
		t.Errorf("readDetails of a zombie = %+v, %v, want %v", x, err, errGone)
	}
}
