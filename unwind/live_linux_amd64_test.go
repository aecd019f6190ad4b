// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lowflame/lowflame/internal/testutil"
	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/stack"
)

// live is a process under ptrace. All calls come from one locked thread.
type live struct {
	t      *testing.T
	pid    int
	mem    *os.File
	maps   []liveMap
	cache  map[string]*Table // by path
	syms   map[string][]elf.Symbol
	page   [4096]byte
	pageAt uint64 // 1: none
	calls  map[uint64]bool
	wrong  int
}

type liveMap struct {
	begin, end uint64
	path       string
	code       Code
	loaded     bool
	off        uint64
}

// newLive opens the memory of a stopped process.
func newLive(t *testing.T, pid int) *live {
	t.Helper()
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mem.Close() })
	l := &live{t: t, pid: pid, mem: mem, cache: map[string]*Table{}, syms: map[string][]elf.Symbol{}, pageAt: 1, calls: map[uint64]bool{}}
	l.readMaps()
	return l
}

func (l *live) readMaps() {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", l.pid))
	if err != nil {
		l.t.Fatal(err)
	}
	l.maps = l.maps[:0]
	for _, line := range strings.Split(string(text), "\n") {
		var m liveMap
		var perm, dev string
		var ino uint64
		n, _ := fmt.Sscanf(line, "%x-%x %s %x %s %d %s", &m.begin, &m.end, &perm, &m.off, &dev, &ino, &m.path)
		if n >= 6 && perm[2] == 'x' {
			l.maps = append(l.maps, m)
		}
	}
}

// At implements Space.
func (l *live) At(pc uint64) (Code, bool) {
	for range 2 {
		for i := range l.maps {
			m := &l.maps[i]
			if pc >= m.begin && pc < m.end {
				if !m.loaded {
					l.load(m)
				}
				return m.code, true
			}
		}
		l.readMaps() // a library has been loaded since
	}
	return Code{}, false
}

func (l *live) load(m *liveMap) {
	m.loaded = true
	m.code = Code{Begin: m.begin, End: m.end}
	o := l.object(m)
	if o == nil {
		m.code.FPWalk = true
		return
	}
	var ok bool
	if m.code.Bias, ok = o.Bias(stack.Addr(m.begin), stack.Addr(m.end), stack.FileOff(m.off)); !ok {
		l.t.Fatalf("%s: mapping at %#x has no bias", m.path, m.begin)
	}
	if m.code.Table = l.cache[m.path]; m.code.Table != nil {
		return
	}
	table, err := Build(o)
	if err != nil {
		l.t.Fatalf("%s: %v", m.path, err)
	}
	m.code.Table = table
	l.cache[m.path] = table
	l.syms[m.path] = symbolsOf(m.path)
}

// object opens the file of a mapping, nil if it has none.
func (l *live) object(m *liveMap) *objfile.Object {
	if m.path == "[vdso]" {
		image := make([]byte, m.end-m.begin)
		if _, err := l.mem.ReadAt(image, int64(m.begin)); err != nil {
			l.t.Fatal(err)
		}
		o, err := objfile.Open(bytes.NewReader(image), int64(len(image)))
		if err != nil {
			l.t.Fatal(err)
		}
		return o
	}
	if _, err := os.Stat(m.path); err != nil {
		return nil
	}
	return testutil.OpenObject(l.t, m.path)
}

// Word implements Memory.
func (l *live) Word(addr uint64) (uint64, bool) {
	var b [8]byte
	if addr&4095 > 4088 {
		_, err := l.mem.ReadAt(b[:], int64(addr))
		return binary.LittleEndian.Uint64(b[:]), err == nil
	}
	if addr&^4095 != l.pageAt {
		l.pageAt = 1
		if int64(addr) < 0 {
			return 0, false
		}
		if _, err := l.mem.ReadAt(l.page[:], int64(addr&^4095)); err != nil {
			return 0, false
		}
		l.pageAt = addr &^ 4095
	}
	return binary.LittleEndian.Uint64(l.page[addr&4095:]), true
}

// walk walks the stack of a stopped thread.
func (l *live) walk(tid, max int) Result {
	var r syscall.PtraceRegs
	if err := syscall.PtraceGetRegs(tid, &r); err != nil {
		l.t.Fatalf("PTRACE_GETREGS of %d: %v", tid, err)
	}
	l.pageAt = 1
	regs := Regs{PC: r.Rip, SP: r.Rsp, FP: r.Rbp, AllValid: true}
	general := []uint64{r.Rax, r.Rdx, r.Rcx, r.Rbx, r.Rsi, r.Rdi, r.Rbp, r.Rsp, r.R8, r.R9, r.R10, r.R11, r.R12, r.R13, r.R14, r.R15, r.Rip}
	copy(regs.General[:], general)
	return Walk(AMD64, l, l, regs, max)
}

// names names the frames of a walk.
func (l *live) names(res Result) []string {
	names := make([]string, len(res.PCs))
	for i, pc := range res.PCs {
		exact := i == 0
		for _, n := range res.Interrupted {
			exact = exact || n == i
		}
		if !exact {
			pc--
		}
		names[i] = l.name(pc)
	}
	return names
}

func (l *live) name(pc uint64) string {
	for _, m := range l.maps {
		if pc < m.begin || pc >= m.end {
			continue
		}
		syms := l.syms[m.path]
		at := pc - m.code.Bias
		n := sort.Search(len(syms), func(i int) bool { return syms[i].Value > at })
		if n > 0 && (at < syms[n-1].Value+syms[n-1].Size || syms[n-1].Size == 0) {
			return syms[n-1].Name
		}
		return fmt.Sprintf("%s+%#x", filepath.Base(m.path), at)
	}
	return fmt.Sprintf("%#x", pc)
}

// startStopped runs a program until it stops itself, and attaches to all its
// threads. The caller's thread is locked for the rest of the test.
func startStopped(t *testing.T, path string, args ...string) (*live, []int) {
	t.Helper()
	return start(t, func(int) {}, path, args...)
}

// start is startStopped for a program that stop stops.
func start(t *testing.T, stop func(pid int), path string, args ...string) (*live, []int) {
	t.Helper()
	runtime.LockOSThread()
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	pid := cmd.Process.Pid
	stop(pid)
	waitState(t, pid, "T")
	tids := threads(t, pid)
	for _, tid := range tids {
		attach(t, tid)
	}
	return newLive(t, pid), tids
}

func threads(t *testing.T, pid int) []int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	var tids []int
	for _, e := range entries {
		var tid int
		fmt.Sscan(e.Name(), &tid)
		tids = append(tids, tid)
	}
	return tids
}

func waitState(t *testing.T, pid int, want string) {
	t.Helper()
	for range 1000 {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		if f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])); f[0] == want {
			return
		} else if f[0] == "Z" {
			t.Fatal("the program ended")
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("the program did not stop")
}

func attach(t *testing.T, tid int) {
	t.Helper()
	if err := syscall.PtraceAttach(tid); err != nil {
		t.Fatalf("PTRACE_ATTACH to %d: %v", tid, err)
	}
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(tid, &ws, syscall.WALL, nil); err != nil {
		t.Fatalf("wait for %d: %v", tid, err)
	}
	t.Cleanup(func() { syscall.PtraceDetach(tid) })
}

// TestLiveC walks real stacks of C programs from a stop deep inside to the end.
func TestLiveC(t *testing.T) {
	flags := map[string][]string{
		"O2":             {"-O2", "-fomit-frame-pointer"},
		"O0":             {"-O0"},
		"frame pointers": {"-O2", "-fno-omit-frame-pointer"},
		"static":         {"-O2", "-static"},
		"clang":          {"-O2", "clang-19"},
		"debug_frame":    {"-O2", "-g", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-no-pie"},
		"gz":             {"-O2", "-g", "-gz=zlib", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables"},
	}
	modes := []struct {
		mode, name string
		frames     []string // that must be there, in this order
		signals    int
	}{
		{"p", "plain", []string{"stop", "leaf", "f"}, 0},
		{"s", "signal on another stack", []string{"stop", "handler", "leaf", "f"}, 1},
		{"d", "DRAP", []string{"stop", "aligned", "leaf", "f"}, 0},
		{"q", "callback from libc", []string{"stop", "compare", "leaf", "f"}, 0},
		{"v", "after vfork", []string{"stop", "leaf", "f"}, 0},
	}
	for kind, f := range flags {
		t.Run(kind, func(t *testing.T) {
			cc := "gcc"
			if last := f[len(f)-1]; last[0] != '-' {
				cc, f = last, f[:len(f)-1]
			}
			path := build(t, "deep", append(append([]string{cc}, f...), "-fno-inline", "-fno-optimize-sibling-calls", "-o", "OUT", "deep.c")...)
			for _, m := range modes {
				t.Run(m.name, func(t *testing.T) {
					l, tids := startStopped(t, path, m.mode)
					res := l.walk(tids[0], 127)
					names := l.names(res)
					if res.Stop != stack.StopEnd {
						t.Fatalf("stop %v (missing %#x) after %q", res.Stop, res.Missing, names)
					}
					want := append([]string{}, m.frames...)
					for range 39 {
						want = append(want, "f")
					}
					want = append(want, "main")
					if !inOrder(names, want) {
						t.Errorf("got  %q\nwant %q", names, want)
					}
					if len(res.Interrupted) != m.signals {
						t.Errorf("interrupted frames %v, want %d", res.Interrupted, m.signals)
					}
				})
			}
		})
	}
}

// inOrder reports whether want occurs in got in order, and got has f exactly as
// often as want.
func inOrder(got, want []string) bool {
	n, fs := 0, 0
	for _, g := range got {
		if n < len(want) && g == want[n] {
			n++
		}
		if g == "f" {
			fs++
		}
	}
	return n == len(want) && fs == 40
}
