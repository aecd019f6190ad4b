// SPDX-License-Identifier: Apache-2.0

package index

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/symbolize/dwarf"
)

func openDir(t *testing.T, path string, maxBytes int64) *Dir {
	t.Helper()
	d, err := OpenDir(path, maxBytes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// simple is a unit of one function at [0x1000, 0x2000).
func simple(name string) *dwarf.Unit {
	return &dwarf.Unit{
		Files:  []string{"", "/src/a.c"},
		Lines:  []dwarf.Line{{Addr: 0x1000, File: 1, Line: 7}, {Addr: 0x2000, End: true}},
		Scopes: []dwarf.Scope{{Name: name, Parent: -1, DeclFile: 1, DeclLine: 5, Ranges: []dwarf.Range{{Begin: 0x1000, End: 0x2000}}}},
	}
}

// build puts an index of simple(name) into d.
func build(t *testing.T, d *Dir, id, name string) {
	t.Helper()
	p, err := d.Begin(id)
	if err != nil {
		t.Fatal(err)
	}
	data := (&model{units: []*dwarf.Unit{simple(name)}}).write(t)
	if _, err := p.File().WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	if err := p.Commit(); err != nil {
		t.Fatal(err)
	}
}

func lookupName(t *testing.T, h *Handle) string {
	t.Helper()
	lines, err := h.Lookup(0x1800, nil)
	if err != nil || len(lines) != 1 {
		t.Fatalf("lines %v, error %v", lines, err)
	}
	return lines[0].Name
}

func listDir(t *testing.T, path string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestDir(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	d := openDir(t, path, 1<<20)
	if _, err := d.Open("abcd"); !errors.Is(err, ErrNotBuilt) {
		t.Errorf("open before it is built: %v", err)
	}
	build(t, d, "abcd", "first")
	h, err := d.Open("abcd")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if got := lookupName(t, h); got != "first" {
		t.Errorf("name %q", got)
	}
	build(t, d, "abcd", "second")
	again, err := d.Open("abcd")
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if got := lookupName(t, again); got != "second" {
		t.Errorf("name after it was built anew: %q", got)
	}
	if got := lookupName(t, h); got != "first" {
		t.Errorf("name from the index that was open: %q", got)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, error %v", info.Mode(), err)
	}
	if got, want := listDir(t, path), []string{"abcd.v1"}; !slices.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
}

func TestDirRefusesNames(t *testing.T) {
	d := openDir(t, filepath.Join(t.TempDir(), "x"), 1<<20)
	for _, id := range []string{"", "a", "../../etc", "ABCD", "ab/cd", "ab.cd", strings.Repeat("a", 129), "ab\x00"} {
		if _, err := d.Open(id); !errors.Is(err, ErrBuildID) {
			t.Errorf("open %q: %v", id, err)
		}
		if _, err := d.Begin(id); !errors.Is(err, ErrBuildID) {
			t.Errorf("begin %q: %v", id, err)
		}
	}
}

func TestDirRemembersFailures(t *testing.T) {
	d := openDir(t, filepath.Join(t.TempDir(), "x"), 1<<20)
	now := time.Now()
	d.now = func() time.Time { return now }
	p, err := d.Begin("abcd")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Abort("it took\ntoo long"); err != nil {
		t.Fatal(err)
	}
	var failed *FailedError
	if _, err := d.Open("abcd"); !errors.As(err, &failed) || failed.Reason != "it took\ntoo long" {
		t.Errorf("open: %v", err)
	}
	now = now.Add(failedFor + time.Second)
	if _, err := d.Open("abcd"); !errors.Is(err, ErrNotBuilt) {
		t.Errorf("open a day later: %v", err)
	}
	if names := listDir(t, d.path); len(names) > 0 {
		t.Errorf("files left: %q", names)
	}
	if p, err = d.Begin("abcd"); err != nil {
		t.Fatal(err)
	}
	if err := p.Abort(strings.Repeat("x", 1<<20)); err != nil {
		t.Fatal(err)
	}
	build(t, d, "abcd", "name")
	if got, want := listDir(t, d.path), []string{"abcd.v1"}; !slices.Equal(got, want) {
		t.Errorf("files after success %q, want %q", got, want)
	}
}

func TestDirEvicts(t *testing.T) {
	d := openDir(t, filepath.Join(t.TempDir(), "x"), 3*fileCost)
	now := time.Now()
	for i, id := range []string{"aa", "bb", "cc"} {
		build(t, d, id, id)
		at := now.Add(time.Duration(i-10) * time.Hour)
		if err := os.Chtimes(filepath.Join(d.path, indexName(id)), at, at); err != nil {
			t.Fatal(err)
		}
	}
	a, err := d.Open("aa") // now it is the one used last
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	build(t, d, "dd", "dd")
	if got, want := listDir(t, d.path), []string{"aa.v1", "cc.v1", "dd.v1"}; !slices.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
	old := now.Add(-24 * time.Hour)
	if err := os.Chtimes(filepath.Join(d.path, "aa.v1"), old, old); err != nil {
		t.Fatal(err)
	}
	build(t, d, "ee", "ee")
	if slices.Contains(listDir(t, d.path), "aa.v1") {
		t.Error("the index used longest ago is there still")
	}
	if got := lookupName(t, a); got != "aa" {
		t.Errorf("name after eviction: %q", got)
	}
	again, err := d.Open("aa")
	if err != nil {
		t.Fatalf("an index that is open cannot be opened again: %v", err)
	}
	defer again.Close()
	if n := d.Stats().Evicted; n != 2 {
		t.Errorf("%d evicted, want 2", n)
	}
}

func TestDirTooLarge(t *testing.T) {
	d := openDir(t, filepath.Join(t.TempDir(), "x"), 100)
	p, err := d.Begin("abcd")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.File().WriteAt((&model{units: []*dwarf.Unit{simple("f")}}).write(t), 0); err != nil {
		t.Fatal(err)
	}
	if err := p.Commit(); !errors.Is(err, ErrTooLarge) {
		t.Errorf("commit: %v", err)
	}
	if names := listDir(t, d.path); len(names) > 0 {
		t.Errorf("files left: %q", names)
	}
}

func TestDirDeletesDamaged(t *testing.T) {
	d := openDir(t, filepath.Join(t.TempDir(), "x"), 1<<20)
	build(t, d, "aa", "name")
	file := filepath.Join(d.path, "aa.v1")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	damage := func(at int) {
		broken := bytes.Clone(data)
		broken[at] ^= 0x40
		if err := os.WriteFile(file, broken, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, at := range []int{0, 8, 20, 40, len(data) - 1} { // header and last directory
		damage(at)
		if _, err := d.Open("aa"); !errors.Is(err, ErrNotBuilt) {
			t.Errorf("damaged at %d: %v", at, err)
		}
	}
	damage(headerSize + 1) // the first block, which Open does not read
	h, err := d.Open("aa")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if _, err := h.Lookup(0x1800, nil); !errors.Is(err, ErrFormat) {
		t.Errorf("lookup: %v", err)
	}
	if _, err := d.Open("aa"); !errors.Is(err, ErrNotBuilt) {
		t.Errorf("open after lookup: %v", err)
	}
	if n := d.Stats().Corrupt; n != 6 {
		t.Errorf("%d corrupt, want 6", n)
	}
}

func TestCommitChecks(t *testing.T) {
	d := openDir(t, filepath.Join(t.TempDir(), "x"), 1<<20)
	p, err := d.Begin("abcd")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.File().WriteString("no index"); err != nil {
		t.Fatal(err)
	}
	if err := p.Commit(); !errors.Is(err, ErrFormat) {
		t.Errorf("commit: %v", err)
	}
	if names := listDir(t, d.path); len(names) > 0 {
		t.Errorf("files left: %q", names)
	}
}

func TestDirSweeps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	d := openDir(t, path, 1<<20)
	p, err := d.Begin("aa")
	if err != nil {
		t.Fatal(err)
	}
	keep := []string{"README", "aa.tmp", "bb.v01", "bb.v1x", "dd.tmp.bak", "dd.v2", "xyz.v0"}
	for _, name := range append([]string{"bb.tmp", "cc.v0", "cc.v0.failed"}, keep...) {
		f, err := os.OpenFile(filepath.Join(path, name), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	other := openDir(t, path, 1<<20)
	if got := listDir(t, path); !slices.Equal(got, keep) {
		t.Errorf("files %q, want %q", got, keep)
	}
	if n := other.Stats().Swept; n != 3 {
		t.Errorf("%d swept, want 3", n)
	}
	if _, err := other.Begin("aa"); !errors.Is(err, ErrBusy) {
		t.Errorf("begin what is being built: %v", err)
	}
	if err := p.Abort(""); err != nil {
		t.Error(err)
	}
	if p, err = other.Begin("aa"); err != nil {
		t.Errorf("begin what was given up: %v", err)
	} else if err := p.Abort(""); err != nil {
		t.Error(err)
	}
}

func TestDirManyOpen(t *testing.T) {
	d := openDir(t, filepath.Join(t.TempDir(), "x"), 1<<30)
	data := (&model{units: []*dwarf.Unit{simple("f")}}).write(t)
	var handles []*Handle
	for i := range maxHandles + 1 {
		id := fmt.Sprintf("%04x", i)
		if err := os.WriteFile(filepath.Join(d.path, indexName(id)), data, 0o600); err != nil {
			t.Fatal(err)
		}
		h, err := d.Open(id)
		if i == maxHandles {
			if !errors.Is(err, ErrManyOpen) {
				t.Errorf("one more than may be open: %v", err)
			}
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		handles = append(handles, h)
	}
	for _, h := range handles {
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
	}
	h, err := d.Open(fmt.Sprintf("%04x", maxHandles))
	if err != nil {
		t.Fatalf("open after others were closed: %v", err)
	}
	defer h.Close()
	if n := len(d.handles); n != maxHandles {
		t.Errorf("%d open, want %d", n, maxHandles)
	}
}

// TestDirFullDisk fills a file system of its own.
func TestDirFullDisk(t *testing.T) {
	path := t.TempDir()
	if err := unix.Mount("tmpfs", path, "tmpfs", 0, "size=64k,mode=700"); err != nil {
		if os.Geteuid() == 0 {
			t.Fatal(err)
		}
		t.Skip("needs root to mount a small file system")
	}
	defer func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	d := openDir(t, path, 1<<20)
	p, err := d.Begin("abcd")
	if err != nil {
		t.Fatal(err)
	}
	w, err := Create(p.File(), Config{TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	u := simple("")
	for i := range 200000 {
		u.Scopes = append(u.Scopes, dwarf.Scope{Name: fmt.Sprint(i*i, "name", i), Parent: -1})
	}
	if err := w.AddUnit(u); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("add to a full disk: %v", err)
	}
	if err := w.Finish(); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("finish on a full disk: %v", err)
	}
	if err := p.Commit(); err == nil {
		t.Error("commit of an index that was not finished")
	}
	if names := listDir(t, path); len(names) > 0 {
		t.Errorf("files left: %q", names)
	}
	build(t, d, "abcd", "name") // there is room again
}

const helperDir = "LOWFLAME_INDEX_TEST_DIR"

// TestDirProcesses has two processes begin the same index; one ends without a word.
func TestDirProcesses(t *testing.T) {
	if path := os.Getenv(helperDir); path != "" {
		d, err := OpenDir(path, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Begin("abcd"); err != nil {
			t.Fatal(err)
		}
		fmt.Println("begun")
		if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
			os.Exit(0)
		}
		return
	}
	path := filepath.Join(t.TempDir(), "x")
	d := openDir(t, path, 1<<20)
	cmd := exec.Command(os.Args[0], "-test.run=^TestDirProcesses$")
	cmd.Env = append(os.Environ(), helperDir+"="+path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 64)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Begin("abcd"); !errors.Is(err, ErrBusy) {
		t.Errorf("begin while another process does: %v", err)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	openDir(t, path, 1<<20)
	if names := listDir(t, path); len(names) > 0 {
		t.Errorf("files left: %q", names)
	}
	build(t, d, "abcd", "name")
}
