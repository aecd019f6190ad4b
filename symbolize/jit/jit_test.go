// SPDX-License-Identifier: Apache-2.0

package jit

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/stack"
)

func TestParseLine(t *testing.T) {
	type result struct {
		Start uint64
		Size  uint32
		Name  string
		OK    bool
	}
	tests := []struct {
		name, line string
		want       result
	}{
		{"bare hex, name with spaces (V8)", "7f0c1000 5a JS:*fib /a b.js:1:13", result{0x7f0c1000, 0x5a, "JS:*fib /a b.js:1:13", true}},
		{"0x prefixed (JDK 17)", "0x00007f2a14001000 0x0000000000000150 long J.f(long)", result{0x7f2a14001000, 0x150, "long J.f(long)", true}},
		{"upper case, tabs, carriage return", "7F00\tA0\tx\r", result{0x7f00, 0xa0, "x", true}},
		{"no name", "7f00 10", result{}},
		{"blank name", "7f00 10  ", result{}},
		{"no size", "7f00", result{}},
		{"size 0 names nothing", "7f00 0 x", result{}},
		{"not hex", "7g00 10 x", result{}},
		{"empty number", "0x 10 x", result{}},
		{"number over 64 bits", "11111111111111111 10 x", result{}},
		{"size over 32 bits", "1000 100000000 x", result{}},
		{"range past the last address", "fffffffffffffff0 20 x", result{}},
		{"empty", "", result{}},
		{"name cut at 4 KiB", "1 1 " + strings.Repeat("n", 5000), result{1, 1, strings.Repeat("n", 4096), true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got result
			var name []byte
			got.Start, got.Size, name, got.OK = parseLine([]byte(tt.line))
			got.Name = string(name)
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestOverlapAgainstBytes compares the interval arithmetic with one name per
// byte of a small address space.
func TestOverlapAgainstBytes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		var bytes [64]uint32
		var known []entry
		name := uint32(1)
		for range 1 + rng.IntN(3) {
			var batch []entry
			for range rng.IntN(8) {
				start := rng.Uint64N(60)
				size := 1 + rng.Uint32N(uint32(min(20, 64-start)))
				batch = append(batch, entry{start: start, size: size, name: name})
				for i := range size {
					bytes[start+uint64(i)] = name
				}
				name++
			}
			known = overlay(known, flatten(batch))
		}
		var got [64]uint32
		for i, e := range known {
			if e.size == 0 || (i > 0 && known[i-1].end() > e.start) {
				t.Fatalf("not sorted and apart: %v", known)
			}
			for b := e.start; b < e.end(); b++ {
				got[b] = e.name
			}
		}
		if got != bytes {
			t.Fatalf("got %v\nwant %v", got, bytes)
		}
	}
}

// fakeProc is a /proc with one process, 7, that calls itself 3.
type fakeProc struct {
	t    *testing.T
	dir  string
	proc Process
}

func newFakeProc(t *testing.T) *fakeProc {
	t.Helper()
	f := &fakeProc{t: t, dir: t.TempDir(), proc: Process{PID: 7, Start: 1}}
	for _, d := range []string{"7/root/tmp", "7/ns", "self/ns"} {
		if err := os.MkdirAll(filepath.Join(f.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	uid := os.Getuid()
	f.write("7/status", fmt.Sprintf("Name:\tx\nUid:\t%d\t%d\t%d\t%d\nNSpid:\t7\t3\n", uid, uid, uid, uid))
	return f
}

func (f *fakeProc) write(name, text string) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), []byte(text), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fakeProc) append(text string) {
	f.t.Helper()
	w, err := os.OpenFile(f.path(), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		f.t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.WriteString(text); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fakeProc) path() string { return filepath.Join(f.dir, "7/root/tmp/perf-3.map") }

const mapFile = "7/root/tmp/perf-3.map"

func (f *fakeProc) maps(c Config) *Maps {
	c.Proc = f.dir
	return New(c)
}

// want refreshes and compares the names at addresses.
func (f *fakeProc) want(m *Maps, names map[stack.Addr]string) {
	f.t.Helper()
	m.Refresh(f.proc)
	for addr, want := range names {
		if got, ok, err := m.Lookup(f.proc, addr); got.Name != want || ok != (want != "") {
			f.t.Errorf("Lookup(%#x) = %q, %v, %v; want %q", addr, got.Name, ok, err, want)
		}
	}
}

func TestMapGrows(t *testing.T) {
	f := newFakeProc(t)
	m := f.maps(Config{})
	f.write(mapFile, "1000 100 a\n2000 100 b\n30")
	f.want(m, map[stack.Addr]string{0xfff: "", 0x1000: "a", 0x10ff: "a", 0x1100: "", 0x2000: "b", 0x3000: ""})
	f.append("00 10 c d\n1080 10 over\n")
	f.want(m, map[stack.Addr]string{0x1000: "a", 0x1080: "over", 0x1090: "a", 0x2000: "b", 0x3000: "c d"})
	if got, all := m.Stats().Read, uint64(len("1000 100 a\n2000 100 b\n3000 10 c d\n1080 10 over\n")); got != all {
		t.Errorf("read %d bytes of a file of %d", got, all)
	}
}

func TestMapIsReplaced(t *testing.T) {
	tests := []struct {
		name   string
		change func(f *fakeProc)
	}{
		{"another inode", func(f *fakeProc) {
			f.write("7/root/tmp/new", "1000 100 new\n2000 100 n2\n")
			if err := os.Rename(filepath.Join(f.dir, "7/root/tmp/new"), f.path()); err != nil {
				f.t.Fatal(err)
			}
		}},
		{"shrunk", func(f *fakeProc) { f.write(mapFile, "1000 1 new\n") }},
		{"written anew, longer", func(f *fakeProc) { f.write(mapFile, "1000 100 new\n5000 100 another that is longer\n") }},
		{"written anew, as long", func(f *fakeProc) {
			time.Sleep(20 * time.Millisecond) // past the granularity of file times
			f.write(mapFile, "1000 100 new\n2000 100 xyz\n")
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFakeProc(t)
			m := f.maps(Config{})
			f.write(mapFile, "1000 100 old\n3000 100 xyz\n")
			f.want(m, map[stack.Addr]string{0x1000: "old", 0x3000: "xyz"})
			tt.change(f)
			f.want(m, map[stack.Addr]string{0x1000: "new", 0x3000: ""})
		})
	}
}

func TestHostileFiles(t *testing.T) {
	tests := []struct {
		name string
		make func(t *testing.T, f *fakeProc)
	}{
		{"FIFO without a writer", func(t *testing.T, f *fakeProc) { must(t, unix.Mkfifo(f.path(), 0o666)) }},
		{"directory", func(t *testing.T, f *fakeProc) { must(t, os.Mkdir(f.path(), 0o755)) }},
		{"symbolic link", func(t *testing.T, f *fakeProc) {
			f.write("7/root/secret", "1000 100 secret\n")
			must(t, os.Symlink("../secret", f.path()))
		}},
		{"file of another user", func(t *testing.T, f *fakeProc) {
			if os.Getuid() != 0 {
				t.Skip("needs root to give a file away")
			}
			f.write(mapFile, "1000 100 planted\n")
			must(t, os.Chown(f.path(), 12345, 12345))
		}},
		{"/tmp leads out of the root", func(t *testing.T, f *fakeProc) {
			f.write("perf-3.map", "1000 100 outside\n")
			must(t, os.Remove(filepath.Join(f.dir, "7/root/tmp")))
			must(t, os.Symlink(f.dir, filepath.Join(f.dir, "7/root/tmp")))
		}},
		{"no file", func(t *testing.T, f *fakeProc) {}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFakeProc(t)
			tt.make(t, f)
			name, ok, err := f.maps(Config{}).Lookup(f.proc, 0x1000)
			if ok || err == nil {
				t.Errorf("Lookup = %q, %v, %v; want an error", name.Name, ok, err)
			}
			if tt.name == "no file" && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("error %v is not fs.ErrNotExist", err)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestNamesOutliveTheProcess(t *testing.T) {
	f := newFakeProc(t)
	m := f.maps(Config{})
	f.write(mapFile, "1000 100 a\n")
	f.want(m, map[stack.Addr]string{0x1000: "a"})
	must(t, os.RemoveAll(filepath.Join(f.dir, "7")))
	f.want(m, map[stack.Addr]string{0x1000: "a"})
	other := f.proc
	other.Start++
	if name, ok, _ := m.Lookup(other, 0x1000); ok {
		t.Errorf("a process with a reused PID got %q", name.Name)
	}
	m.Forget(f.proc)
	f.want(m, map[stack.Addr]string{0x1000: ""})
}

func TestIntervalBetweenLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeProc(t)
		m := f.maps(Config{})
		f.write(mapFile, "1000 100 a\n")
		m.Lookup(f.proc, 0x1000)
		f.append("2000 100 b\n")
		if _, ok, _ := m.Lookup(f.proc, 0x2000); ok {
			t.Error("looked again at once")
		}
		time.Sleep(1100 * time.Millisecond)
		if name, _, _ := m.Lookup(f.proc, 0x2000); name.Name != "b" {
			t.Errorf("Lookup = %q after the interval, want b", name.Name)
		}
	})
}

// manyLines is a map of 5000 functions.
func manyLines() string {
	var b strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&b, "%x 10 function number %d\n", 0x10000+i*16, i)
	}
	return b.String()
}

func TestBounds(t *testing.T) {
	t.Run("entries: the newest stay", func(t *testing.T) {
		f := newFakeProc(t)
		m := f.maps(Config{MaxEntries: 1000})
		f.write(mapFile, manyLines())
		f.want(m, map[stack.Addr]string{0x10000: "", 0x10000 + 4999*16: "function number 4999"})
		if st := m.Stats(); st.Entries > 1000 || st.Skipped < 4000 {
			t.Errorf("%+v", st)
		}
		f.append("1 1 x\n")
		f.want(m, map[stack.Addr]string{1: "x"})
	})
	t.Run("bytes of one process", func(t *testing.T) {
		f := newFakeProc(t)
		m := f.maps(Config{MaxBytes: 64 << 10})
		f.write(mapFile, manyLines())
		f.want(m, map[stack.Addr]string{0x10000 + 4999*16: "function number 4999"})
		if st := m.Stats(); st.Bytes > 128<<10 {
			t.Errorf("%d bytes kept", st.Bytes)
		}
	})
	t.Run("file: only the end of a huge one", func(t *testing.T) {
		f := newFakeProc(t)
		m := f.maps(Config{MaxFile: 1000})
		f.write(mapFile, manyLines())
		f.want(m, map[stack.Addr]string{0x10000: "", 0x10000 + 4999*16: "function number 4999"})
		if st := m.Stats(); st.Read > 1000 {
			t.Errorf("read %d bytes", st.Read)
		}
	})
}

func TestProcessesShareTheBudget(t *testing.T) {
	f := newFakeProc(t)
	m := f.maps(Config{MaxBytes: 1 << 20})
	f.write(mapFile, manyLines())
	for i := range uint64(50) {
		must(t, m.Refresh(Process{PID: 7, Start: i}))
	}
	if st := m.Stats(); st.Bytes > 1<<20 || st.Processes < 2 {
		t.Errorf("%+v", st)
	}
	if _, ok := m.procs[Process{PID: 7, Start: 49}]; !ok {
		t.Error("the process used last was dropped")
	}
}

func TestLineWithoutEnd(t *testing.T) {
	f := newFakeProc(t)
	m := f.maps(Config{})
	f.write(mapFile, "1000 10 a\n2000 10 "+strings.Repeat("x", 1<<20))
	f.want(m, map[stack.Addr]string{0x1000: "a"})
	f.append("y\n3000 10 c\n")
	f.want(m, map[stack.Addr]string{0x2000: strings.Repeat("x", maxName), 0x3000: "c"})
}

func FuzzPerfMap(f *testing.F) {
	f.Add([]byte("7f0c1000 5a JS:*fib /a b.js:1:13\n0x7f0c1010 0x10 long J.f(long)\n"), []byte("7f0c1000 1 x\n"), uint64(0x7f0c1005))
	f.Add([]byte("ffffffffffffff00 ff x\n0 ffffffff y\n"), []byte(""), uint64(3))
	f.Add([]byte("\n\n1 1 \xff\x00\n"), []byte("no newline"), uint64(1))
	f.Fuzz(func(t *testing.T, first, second []byte, addr uint64) {
		var pm perfMap
		for _, b := range [][]byte{first, second} {
			l := lines{maxEntries: 100, maxText: 5000}
			if n, err := l.read(strings.NewReader(string(b))); err != nil || n > int64(len(b)) {
				t.Fatalf("read %d of %d bytes: %v", n, len(b), err)
			}
			pm.merge(&l)
		}
		for i, e := range pm.entries {
			if e.size == 0 || (i > 0 && pm.entries[i-1].end() > e.start) {
				t.Fatalf("not sorted and apart: %v", pm.entries)
			}
			pm.nameAt(e.name)
		}
		pm.find(addr)
	})
}
