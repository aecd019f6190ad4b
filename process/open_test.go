// SPDX-License-Identifier: Apache-2.0

package process

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// checkOpen opens a mapping and compares what is read with the file at path.
func checkOpen(t *testing.T, table *Table, p *Process, m *Mapping, path string, verified bool) {
	t.Helper()
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	checkOpenBytes(t, table, p, m, want, verified)
}

func checkOpenBytes(t *testing.T, table *Table, p *Process, m *Mapping, want []byte, verified bool) {
	t.Helper()
	f, ok, err := table.Open(p, m)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := io.ReadAll(f)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %d bytes of %s, %v; want %d", len(got), f.Name(), err, len(want))
	}
	if ok != verified {
		t.Errorf("open %+v: verified %v", *m, ok)
	}
}

// mainMapping returns the lowest mapping of a file: of the executable.
func mainMapping(p *Process) *Mapping {
	return &p.Mappings[slices.IndexFunc(p.Mappings, func(m Mapping) bool { return m.Kind == KindFile })]
}

func copyFile(t *testing.T, from, to string) []byte {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOpenDeleted(t *testing.T) {
	w := watch(t)
	path := filepath.Join(t.TempDir(), "prog")
	want := copyFile(t, "/bin/sleep", path)
	pid := start(t, exec.Command(path, "1000"))
	w.until("start", func() bool { q := w.Live(pid); return q != nil && q.Exe == path && len(q.Mappings) >= 3 })
	q := w.Live(pid)
	checkOpenBytes(t, w.Table, q, mainMapping(q), want, false) // by build ID only
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	checkOpenBytes(t, w.Table, q, mainMapping(q), want, false)
	w.Rescan(pid)
	q = w.Live(pid)
	m := mainMapping(q)
	if m.Path != path || !m.Deleted || q.Exe != path {
		t.Errorf("deleted: %+v of %s", m, q.Exe)
	}
	checkOpenBytes(t, w.Table, q, m, want, true)

	// Part of the mapping, as after an mprotect: its name in map_files is gone.
	part := m.upTo(m.Begin + 4096)
	checkOpenBytes(t, w.Table, q, &part, want, true)

	// Another file at the path is not taken for it.
	copyFile(t, "/bin/true", path)
	elsewhere := *m
	elsewhere.Begin, elsewhere.End = 4096, 8192
	if f, _, err := w.Open(q, &elsewhere); err == nil {
		f.Close()
		t.Error("opened another file")
	}
}

// A process in its own mount and PID namespaces, run from a tmpfs only it sees.
func TestOtherNamespaces(t *testing.T) {
	w := watch(t)
	dir := t.TempDir()
	want, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/usr/bin/unshare", "-m", "-p", "-f", "--kill-child", "/bin/sh", "-c",
		"mount -t tmpfs none "+dir+" && cp /bin/sleep "+dir+"/hidden && exec "+dir+"/hidden 1000")
	start(t, cmd)
	var q *Process
	w.until("the hidden program", func() bool {
		all := w.All()
		i := slices.IndexFunc(all, func(p *Process) bool { return p.Comm == "hidden" && len(p.Mappings) >= 3 })
		if i >= 0 {
			q = all[i]
		}
		return i >= 0
	})
	if q = w.Refresh(q.PID); !q.OwnRoot || q.NSPID != 1 {
		t.Errorf("details: %+v", q)
	}
	if _, err := os.Stat(filepath.Join(dir, "hidden")); err == nil {
		t.Fatal("the program can be seen from here")
	}
	checkOpenBytes(t, w.Table, q, mainMapping(q), want, false)
	w.Rescan(q.PID)
	q = w.Live(q.PID)
	checkOpenBytes(t, w.Table, q, mainMapping(q), want, true)
	byPath := *mainMapping(q)
	byPath.Begin, byPath.End = 4096, 8192 // not in map_files
	checkOpenBytes(t, w.Table, q, &byPath, want, true)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	w.until("exit", func() bool { return w.Live(q.PID) == nil })
}

// A process with its own root directory cannot lead us out of it.
func TestOpenHostile(t *testing.T) {
	w := watch(t)
	root := t.TempDir()
	prog := compile(t, steps+"int main(void) { step(); return 0; }", "-static")
	want := copyFile(t, prog, filepath.Join(root, "prog"))
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{"abs": secret, "rel": "../../../../../../../.." + secret, "good": "/prog", "magic": "/proc/self/exe"} {
		if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(root, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mknod(filepath.Join(root, "null"), unix.S_IFCHR|0o644, int(unix.Mkdev(1, 3))); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/prog")
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	p := startTarget(t, cmd)
	w.until("start", func() bool { q := w.Live(p.pid); return q != nil && q.Exe == "/prog" })
	q := w.Refresh(p.pid)
	if !q.OwnRoot {
		t.Errorf("details: %+v", q)
	}
	for _, path := range []string{"/abs", "/rel", "/magic", "/fifo", "/null", "/", "/missing", secret, "/../../../../../../" + secret, "relative", ""} {
		f, _, err := w.Open(q, &Mapping{Begin: 4096, End: 8192, Path: path, File: FileID{BuildID: "x"}})
		if err == nil {
			f.Close()
			t.Errorf("opened %q", path)
		}
	}
	checkOpenBytes(t, w.Table, q, &Mapping{Begin: 4096, End: 8192, Path: "/good", File: FileID{BuildID: "x"}}, want, false)
	if _, _, err := w.Open(q, &Mapping{Kind: KindAnon}); err == nil {
		t.Error("opened anonymous memory")
	}

	// Maps shows the path as we see it; as the process sees it there is none.
	w.Rescan(p.pid)
	q = w.Live(p.pid)
	m := *mainMapping(q)
	if m.Path != filepath.Join(root, "prog") {
		t.Errorf("path in maps: %q", m.Path)
	}
	m.Begin, m.End = 4096, 8192
	checkOpenBytes(t, w.Table, q, &m, want, true)
	m.File.Ino++
	if f, _, err := w.Open(q, &m); err == nil {
		f.Close()
		t.Error("opened a file with another inode")
	}
}

// The file of a process that is gone is found by its path.
func TestOpenAfterExit(t *testing.T) {
	w := watch(t)
	cmd := exec.Command("/bin/true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	pid := uint32(cmd.Process.Pid)
	w.until("exit", func() bool { return w.procs[pid] != nil && w.Live(pid) == nil })
	q := w.At(pid, monotonic())
	if q == nil || q.Comm != "true" {
		t.Fatalf("after exit: %+v", q)
	}
	checkOpen(t, w.Table, q, mainMapping(q), "/bin/true", false)

	// One that saw other files is not believed about paths of ours.
	jailed := *q
	jailed.OwnRoot, jailed.PPID = true, 0
	if _, _, err := w.Open(&jailed, mainMapping(q)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open for a process with its own root: %v", err)
	}
}
