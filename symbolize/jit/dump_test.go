// SPDX-License-Identifier: Apache-2.0

package jit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/lowflame/lowflame/stack"
)

// dumpWriter makes a jitdump.
type dumpWriter []byte

func newDump() dumpWriter {
	var w dumpWriter
	w.u32(dumpMagic, dumpVersion, dumpHeader, 62, 0, 1)
	w.u64(0, 0)
	return w
}

func (w *dumpWriter) u32(vs ...uint32) {
	for _, v := range vs {
		*w = binary.NativeEndian.AppendUint32(*w, v)
	}
}

func (w *dumpWriter) u64(vs ...uint64) {
	for _, v := range vs {
		*w = binary.NativeEndian.AppendUint64(*w, v)
	}
}

func (w *dumpWriter) record(id uint32, body []byte) {
	w.u32(id, uint32(dumpPrefix+len(body)))
	w.u64(0)
	*w = append(*w, body...)
}

func (w *dumpWriter) load(code, size uint64, name string) {
	var b dumpWriter
	b.u32(1, 1)
	b.u64(code, code, size, 0)
	b = append(append(b, name...), 0)
	w.record(recordLoad, append(b, make([]byte, size)...))
}

func (w *dumpWriter) move(from, to, size uint64) {
	var b dumpWriter
	b.u32(1, 1)
	b.u64(to, from, to, size, 0)
	w.record(recordMove, b)
}

type debugLine struct {
	addr uint64
	line uint32
	file string
}

func (w *dumpWriter) debug(code uint64, lines ...debugLine) {
	var b dumpWriter
	b.u64(code, uint64(len(lines)))
	for _, l := range lines {
		b.u64(l.addr)
		b.u32(l.line, 0)
		b = append(append(b, l.file...), 0)
	}
	w.record(recordDebug, b)
}

// dumpFile is a dump of this process, which names it.
func dumpFile(t testing.TB, content []byte) (*Maps, Process, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "jit-1.dump")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	m, p := New(Config{}), Process{PID: uint32(os.Getpid())}
	m.AddDump(p, path)
	return m, p, path
}

func describe(s Symbol, ok bool) string {
	if !ok {
		return ""
	}
	return fmt.Sprintf("%s %s:%d", s.Name, s.File, s.Line)
}

func TestDump(t *testing.T) {
	w := newDump()
	w.record(4, make([]byte, 48)) // how to unwind
	w.debug(0x1000, debugLine{0x1000, 10, "a.jl"}, debugLine{0x1010, 12, "\xff"}, debugLine{0x1020, 3, "b.jl"}, debugLine{0x1020, 4, "b.jl"})
	w.load(0x1000, 0x40, "first")
	w.load(0x2000, 0x40, "second")
	w.load(0x2020, 0x40, "third") // over a part of second
	w.debug(0x3000, debugLine{0x3040, 7, "/s.js"}, debugLine{0x3048, 8, "/s.js"})
	w.load(0x3000, 0x10, "JS:*f /s.js:7:1") // V8's addresses
	w.debug(0x4000, debugLine{0x5000, 1, "far"})
	w.load(0x4000, 0x10, "lines elsewhere")
	w.load(0x5000, 0, "no code")
	w.load(0x5000, 8, "")
	w.move(0x1000, 0x6000, 0x40)
	w.move(0x9999, 0x7000, 0x40)
	w.debug(0x8000, debugLine{0x8000, 1, "\xff"})
	w.load(0x8000, 8, "same as none")
	w.record(99, []byte("unknown"))
	m, p, path := dumpFile(t, w)
	if err := m.Refresh(p); err != nil {
		t.Fatal(err)
	}
	check := func(addr stack.Addr, want string) {
		t.Helper()
		s, ok, err := m.Lookup(p, addr)
		if got := describe(s, ok); got != want || err != nil {
			t.Errorf("Lookup(%#x) = %q, %v; want %q", addr, got, err, want)
		}
	}
	check(0x0fff, "")
	check(0x1000, "first a.jl:10")
	check(0x1011, "first a.jl:12")
	check(0x103f, "first b.jl:4")
	check(0x1040, "")
	check(0x201f, "second :0")
	check(0x2020, "third :0")
	check(0x3007, "JS:*f /s.js:7:1 /s.js:7")
	check(0x3008, "JS:*f /s.js:7:1 /s.js:8")
	check(0x4001, "lines elsewhere :0")
	check(0x5001, "")
	check(0x6011, "first a.jl:12")
	check(0x7001, "")
	check(0x8001, "same as none :0")

	// It grows by half a record, then by the rest, with lines told of before.
	before := len(w)
	w.debug(0x1000, debugLine{0x1000, 99, "c.jl"})
	w.load(0x1000, 0x40, "reused")
	write(t, path, w[:len(w)-10])
	refresh(t, m, p)
	check(0x1000, "first a.jl:10")
	write(t, path, w)
	refresh(t, m, p)
	check(0x1000, "reused c.jl:99")
	check(0x6000, "first a.jl:10")
	// A move of what an earlier reading saw, and the end.
	w.move(0x1000, 0xa000, 0x40)
	w.record(recordClose, nil)
	write(t, path, w)
	refresh(t, m, p)
	check(0xa001, "reused c.jl:99")
	w.load(0xb000, 0x40, "behind the end")
	write(t, path, w)
	refresh(t, m, p)
	check(0xb000, "")
	// Written anew.
	write(t, path, w[:before])
	refresh(t, m, p)
	check(0x1000, "first a.jl:10")
	check(0xa001, "")
}

// TestFreedFileNames reads lines as V8 writes them, see splitFreed.
func TestFreedFileNames(t *testing.T) {
	const script = "/srv/application/fib.js"
	garbage := "%M\x03\x00\x00\x00\x00\x00\x01\x02\x03\x04\x05\x06\x07\x08" + script[16:]
	for name, want := range map[string]string{
		"JS:^fib " + script + ":1:13":              script + ":4",
		"JS:^fib /srv/application/fob.js:1:13":     ":0", // other code's lines
		"JS:^fib /srv/application/dir/fib.js:1:13": ":0",
		"fib": ":0",
	} {
		w := newDump()
		w.debug(0x1000, debugLine{0x1040, 2, garbage}, debugLine{0x1050, 4, garbage}, debugLine{0x1060, 5, garbage})
		w.load(0x1000, 0x40, name)
		m, p, _ := dumpFile(t, w)
		refresh(t, m, p)
		s, ok, _ := m.Lookup(p, 0x1011)
		if got := describe(s, ok); got != name+" "+want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func refresh(t *testing.T, m *Maps, p Process) {
	t.Helper()
	if err := m.Refresh(p); err != nil {
		t.Fatal(err)
	}
}

func TestDumpRefused(t *testing.T) {
	short, version, swapped, header := newDump(), newDump(), newDump(), newDump()
	short.u32(recordLoad, 3)
	short.u64(0)
	short.load(0x1000, 8, "behind what is no record")
	version[4] = 9
	swapped[0], swapped[3] = swapped[3], swapped[0]
	header[8] = 4
	for name, content := range map[string][]byte{"record": short, "version": version, "order": swapped, "header": header} {
		m, p, path := dumpFile(t, content)
		if err := m.Refresh(p); !errors.Is(err, errDump) {
			t.Errorf("%s: %v", name, err)
		}
		if s, ok, _ := m.Lookup(p, 0x1004); ok {
			t.Errorf("%s: %+v", name, s)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := exec.Command("mkfifo", path).Run(); err != nil {
			t.Fatal(err)
		}
		if err := m.Refresh(p); !errors.Is(err, errRefused) {
			t.Errorf("FIFO: %v", err)
		}
	}
}

func TestDumpIsBounded(t *testing.T) {
	w := newDump()
	for i := range uint64(5000) {
		w.debug(0x900000+i*64, debugLine{0x900000, 1, strings.Repeat("f", 3000)}) // never loaded
		w.load(0x1000+i*64, 64, fmt.Sprintf("f%d", i))
	}
	_, p, path := dumpFile(t, w)
	m := New(Config{MaxBytes: 128 << 10, MaxEntries: 1000, MaxFile: 1 << 20})
	m.AddDump(p, path)
	for range 40 {
		if err := m.Refresh(p); err != nil {
			t.Fatal(err)
		}
	}
	if s, ok, _ := m.Lookup(p, 0x1000+4999*64); !ok || s.Name != "f4999" {
		t.Errorf("the last function is %q", s.Name)
	}
	if st := m.Stats(); st.Entries > 1000 || st.Bytes > 128<<10+maxPending+4096 || st.Read < uint64(len(w))/2 {
		t.Errorf("%+v", st)
	}
	for i := range 2 * maxDumps {
		m.AddDump(p, fmt.Sprintf("/nowhere/jit-%d.dump", i))
	}
	if n := len(m.procs[p].dumps); n != maxDumps {
		t.Errorf("%d dumps", n)
	}
}

func TestIsDump(t *testing.T) {
	for path, want := range map[string]bool{
		"/tmp/jit-123.dump": true, "/a b/jit-1.dump": true, "": false, "jit-1.dump": false, "/tmp/jit-.dump": false,
		"/tmp/jit-1.dump (deleted)": false, "/tmp/jit-x.dump": false, "/tmp/xjit-1.dump": false, "/jit-1.dump/x": false,
	} {
		if got := IsDump(path); got != want {
			t.Errorf("IsDump(%q) = %v", path, got)
		}
	}
}

func FuzzDump(f *testing.F) {
	w := newDump()
	w.debug(0x1000, debugLine{0x1000, 10, "a"}, debugLine{0x1010, 12, "\xff"})
	w.load(0x1000, 0x40, "JS:f")
	w.move(0x1000, 0x1020, 0x40)
	f.Add([]byte(w), uint16(60), uint64(0x1030))
	w.record(recordClose, nil)
	f.Add([]byte(w), uint16(0), uint64(0x1000))
	f.Fuzz(func(t *testing.T, b []byte, cut uint16, addr uint64) {
		path := filepath.Join(t.TempDir(), "jit-1.dump")
		m, p := New(Config{MaxBytes: 4096, MaxEntries: 8}), Process{PID: uint32(os.Getpid())}
		m.AddDump(p, path)
		write(t, path, b[:min(int(cut), len(b))])
		_ = m.Refresh(p) // what is wrong with it does not matter, only that it ends
		write(t, path, b)
		_ = m.Refresh(p)
		_, _, _ = m.Lookup(p, stack.Addr(addr))
		entries := m.procs[p].dumps[0].entries
		for i := range entries {
			if _, ok, _ := m.Lookup(p, stack.Addr(entries[i].start)); !ok {
				t.Fatalf("%+v is not found", entries[i])
			}
			if i > 0 && entries[i-1].end() > entries[i].start {
				t.Fatalf("%+v overlaps %+v", entries[i-1], entries[i])
			}
		}
	})
}

// TestNodeDump reads what node writes while it runs, and says which lines it gave.
func TestNodeDump(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("needs node")
	}
	dir := t.TempDir()
	script := filepath.Join(dir, "fib.js")
	text := "function fib(n) {\n  if (n < 2)\n    return n;\n  return fib(n-1) + fib(n-2);\n}\nconst end = Date.now() + 1000;\nwhile (Date.now() < end) fib(20);\n"
	if err := os.WriteFile(script, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(node, "--perf-prof", script)
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := Process{PID: uint32(cmd.Process.Pid)}
	m := New(Config{})
	m.AddDump(p, filepath.Join(dir, fmt.Sprintf("jit-%d.dump", p.PID)))
	deadline := time.Now().Add(30 * time.Second)
	for m.Stats().Entries == 0 && time.Now().Before(deadline) {
		_ = m.Refresh(p) // not there at first
		time.Sleep(10 * time.Millisecond)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	refresh(t, m, p)
	d := m.procs[p].dumps[0]
	seen := map[uint32]bool{}
	for _, e := range d.entries {
		name, _, table := splitRecord(recordAt(d.text, e.name))
		if !strings.HasPrefix(string(name), "JS:*fib "+script) {
			continue
		}
		eachLine(table, func(l tableLine) {
			if string(l.file) != script && l.line != 0 {
				t.Errorf("line of %s", l.file)
			}
			seen[uint32(l.line)] = true
		})
		s, ok, _ := m.Lookup(p, stack.Addr(e.start+uint64(e.size)/2))
		if !ok || s.File != script || s.Line < 1 || s.Line > 5 {
			t.Errorf("in the middle of fib: %+v", s)
		}
	}
	t.Logf("%s: %+v, lines of fib: %v", runtime.GOARCH, m.Stats(), seen)
	if !seen[2] || !seen[4] {
		t.Errorf("lines 2 and 4 are missing: %v", seen)
	}
	for line := range seen {
		if line < 1 || line > 5 {
			t.Errorf("line %d is not of fib", line)
		}
	}
}
