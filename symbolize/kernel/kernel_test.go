// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/stack"
)

// files writes a kallsyms and a modules file and returns Symbols that read them.
func files(t *testing.T, kallsyms, modules string) (*Symbols, Config) {
	t.Helper()
	dir := t.TempDir()
	c := Config{Kallsyms: filepath.Join(dir, "kallsyms"), Modules: filepath.Join(dir, "modules")}
	write(t, c.Kallsyms, kallsyms)
	write(t, c.Modules, modules)
	return New(c), c
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

const sample = `0000000000000000 A fixed_percpu_data
ffffffff81000000 T _stext
ffffffff81000000 T _text
ffffffff81000000 t entry
ffffffff81000100 t __pfx_worker
ffffffff81000110 t local_alias
ffffffff81000110 T worker
ffffffff81000110 T __cfi_worker
ffffffff81000200 d data
ffffffff81000300 W weak
ffffffff81000400 T _etext
ffffffff82000000 D after
ffffffff83000000 T _sinittext
ffffffff83000000 t do_init
ffffffff83000100 T _einittext
ffffffffc0001000 t mod_first	[nf_tables]
ffffffffc0001080 t mod_last	[nf_tables]
ffffffffc0004000 t other_first	[veth]
ffffffffc0010000 t bpf_prog_6deef7357e7b4530_sd_devices	[bpf]
ffffffffc0010100 t bpf_trampoline_42	[bpf]
ffffffffc0200000 t ftrace_trampoline	[__builtin__ftrace]
`

const sampleModules = `nf_tables 8192 3 nft_compat,nft_chain_nat, Live 0xffffffffc0001000
veth 4096 0 - Live 0xffffffffc0004000 (OE)
`

func TestLookup(t *testing.T) {
	s, _ := files(t, sample, sampleModules)
	tests := []struct {
		name   string
		addr   stack.Addr
		want   string // module:function
		exists bool
	}{
		{"a function wins over section markers at its address", 0xffffffff81000000, "[kernel.kallsyms]:entry", true},
		{"padding before a function", 0xffffffff81000108, "[kernel.kallsyms]:__pfx_worker", true},
		{"global wins over local and __cfi_", 0xffffffff81000110, "[kernel.kallsyms]:worker", true},
		{"data is not a function and does not end one", 0xffffffff81000208, "[kernel.kallsyms]:worker", true},
		{"weak", 0xffffffff810003ff, "[kernel.kallsyms]:weak", true},
		{"_etext ends the last function", 0xffffffff81000400, "[kernel.kallsyms]:", false},
		{"init text", 0xffffffff830000ff, "[kernel.kallsyms]:do_init", true},
		{"_einittext ends init text", 0xffffffff83000100, "[kernel.kallsyms]:", false},
		{"module", 0xffffffffc0001084, "[nf_tables]:mod_last", true},
		{"last byte of a module", 0xffffffffc0002fff, "[nf_tables]:mod_last", true},
		{"gap between modules", 0xffffffffc0003000, "[kernel.kallsyms]:", false},
		{"next module", 0xffffffffc0004000, "[veth]:other_first", true},
		{"BPF program", 0xffffffffc00100ff, "[bpf]:bpf_prog_6deef7357e7b4530_sd_devices", true},
		{"BPF trampoline", 0xffffffffc0010100, "[bpf]:bpf_trampoline_42", true},
		{"ftrace trampoline belongs to the kernel", 0xffffffffc0200000, "[kernel.kallsyms]:ftrace_trampoline", true},
		{"below everything", 0x1000, "[kernel.kallsyms]:", false},
		{"last address", ^stack.Addr(0), "[kernel.kallsyms]:", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			sym, ok := s.Lookup(tt.addr)
			if got := sym.Module + ":" + sym.Name; got != tt.want || ok != tt.exists {
				t.Errorf("Lookup(%#x) = %s, %v; want %s, %v", tt.addr, got, ok, tt.want, tt.exists)
			}
			if ok && (tt.addr < sym.Start || tt.addr >= sym.End) {
				t.Errorf("Lookup(%#x) = [%#x,%#x), which does not contain it", tt.addr, sym.Start, sym.End)
			}
		})
	}
	if err := s.Err(); err != nil {
		t.Error(err)
	}
}

func TestRestricted(t *testing.T) {
	var b strings.Builder
	for i := range 3 * hiddenLines {
		fmt.Fprintf(&b, "0000000000000000 t f%d\n", i)
	}
	for name, text := range map[string]string{"many": b.String(), "few": "0000000000000000 T a\n"} {
		t.Run(name, func(t *testing.T) {
			s, _ := files(t, text, "")
			if sym, ok := s.Lookup(0xffffffff81000000); ok || sym.Module != Core {
				t.Errorf("Lookup = %+v, %v", sym, ok)
			}
			if err := s.Err(); !errors.Is(err, ErrRestricted) {
				t.Errorf("Err = %v; want ErrRestricted", err)
			}
		})
	}
}

func TestReloadWhenModulesChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := files(t, sample, sampleModules)
		const addr = 0xffffffffc0008010
		if _, ok := s.Lookup(addr); ok {
			t.Fatal("found a module that is not loaded")
		}
		busier := strings.Replace(sampleModules, " 3 ", " 4 ", 1)
		write(t, c.Modules, busier)
		time.Sleep(11 * time.Second)
		s.Lookup(addr)
		if n := s.Stats().Loads; n != 1 {
			t.Errorf("read kallsyms %d times; a use count alone must not cause it", n)
		}

		write(t, c.Kallsyms, sample+"ffffffffc0008000 t fresh\t[fresh]\n")
		write(t, c.Modules, busier+"fresh 4096 0 - Live 0xffffffffc0008000\n")
		if _, ok := s.Lookup(addr); ok {
			t.Error("looked at the modules again within 10 s")
		}
		time.Sleep(11 * time.Second)
		if sym, ok := s.Lookup(addr); !ok || sym.Name != "fresh" || sym.Module != "[fresh]" {
			t.Errorf("Lookup = %+v, %v; want fresh", sym, ok)
		}
		if n := s.Stats().Loads; n != 2 {
			t.Errorf("read kallsyms %d times, want 2", n)
		}
	})
}

func TestEvents(t *testing.T) {
	s, _ := files(t, sample, sampleModules)
	name := func(addr stack.Addr) string {
		sym, _ := s.Lookup(addr)
		return sym.Module + ":" + sym.Name
	}
	check := func(addr stack.Addr, want string) {
		t.Helper()
		if got := name(addr); got != want {
			t.Errorf("Lookup(%#x) = %s, want %s", addr, got, want)
		}
	}
	// Before the table is loaded, and into a hole.
	s.Apply(Event{Addr: 0xffffffffc0030000, Len: 0x40, Type: 1, Name: "bpf_prog_1_early"})
	check(0xffffffffc003003f, "[bpf]:bpf_prog_1_early")
	check(0xffffffffc0030040, "[kernel.kallsyms]:")
	// Into the guessed reach of one that kallsyms listed.
	s.Apply(Event{Addr: 0xffffffffc0010180, Len: 0x80, Type: 1, Name: "bpf_prog_2_near"})
	check(0xffffffffc001017f, "[bpf]:bpf_trampoline_42")
	check(0xffffffffc0010180, "[bpf]:bpf_prog_2_near")
	check(0xffffffffc0010200, "[kernel.kallsyms]:")
	// Gone: the name stays for late samples, until the place is taken.
	s.Apply(Event{Addr: 0xffffffffc0010180, Len: 0x80, Type: 1, Unregister: true, Name: "bpf_prog_2_near"})
	check(0xffffffffc0010190, "[bpf]:bpf_prog_2_near")
	s.Apply(Event{Addr: 0xffffffffc0010140, Len: 0x60, Type: 1, Name: "bpf_prog_3_next"})
	check(0xffffffffc0010190, "[bpf]:bpf_prog_3_next")
	check(0xffffffffc00101a0, "[kernel.kallsyms]:")
	// Other code made at run time.
	s.Apply(Event{Addr: 0xffffffffc0050000, Len: 0x1000, Type: 2, Name: "kprobe_insn_page"})
	check(0xffffffffc0050fff, "[kernel.kallsyms]:kprobe_insn_page")
	// Nonsense.
	s.Apply(Event{Addr: ^stack.Addr(0) - 1, Len: 100, Name: strings.Repeat("x", 4000)})
	s.Apply(Event{Addr: 0x1234, Len: 0, Name: "empty"})
	check(0x1234, "[kernel.kallsyms]:")
	s.Apply(Event{Addr: 0x9999, Unregister: true})
}

func TestDynamicIsBounded(t *testing.T) {
	s := New(Config{})
	for i := range 3 * maxDynamic / 2 {
		a := stack.Addr(0xffffffffc0000000) + stack.Addr(i)*64
		s.Apply(Event{Addr: a, Len: 64, Type: 1, Name: "p"})
		if i%2 == 0 {
			s.Apply(Event{Addr: a, Len: 64, Unregister: true})
		}
	}
	if n := len(s.dynamic.syms); n > maxDynamic {
		t.Errorf("%d symbols, more than %d", n, maxDynamic)
	}
	if s.dynamic.gone > 1024 || s.dynamic.gone < 0 {
		t.Errorf("%d gone", s.dynamic.gone)
	}
}

// liveFunctions returns every function in the running kernel's list, by address.
func liveFunctions(tb testing.TB) map[stack.Addr][]string {
	tb.Helper()
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		tb.Skip(err)
	}
	defer f.Close()
	byAddr := map[stack.Addr][]string{}
	for sc := bufio.NewScanner(f); sc.Scan(); {
		var a stack.Addr
		var typ, name string
		if _, err := fmt.Sscanf(sc.Text(), "%x %s %s", &a, &typ, &name); err != nil {
			tb.Fatal(err)
		}
		if strings.Contains("TtWw", typ) {
			byAddr[a] = append(byAddr[a], name)
		}
	}
	if len(byAddr) < 1000 {
		tb.Skip("the kernel hides its symbols from this user")
	}
	return byAddr
}

func TestRunningKernelRoundTrips(t *testing.T) {
	byAddr := liveFunctions(t)
	s := New(Config{})
	addrs := make([]stack.Addr, 0, len(byAddr))
	for a := range byAddr {
		addrs = append(addrs, a)
	}
	slices.Sort(addrs)
	bad, asked := 0, 0
	for i, a := range addrs {
		names := byAddr[a]
		if names[0] == "_etext" || names[0] == "_einittext" {
			continue
		}
		if strings.HasPrefix(names[0], "bpf_prog_") || strings.HasPrefix(names[0], "bpf_trampoline_") {
			continue // loaded and gone as other programs please
		}
		for _, at := range []stack.Addr{a, a + 1} {
			if at > a && i+1 < len(addrs) && at >= addrs[i+1] {
				continue
			}
			asked++
			sym, ok := s.Lookup(at)
			if !ok || !slices.Contains(names, sym.Name) {
				if bad++; bad < 10 {
					t.Errorf("Lookup(%#x) = %+v, %v; want one of %v", at, sym, ok, names)
				}
			}
		}
	}
	t.Logf("%d addresses, %d wrong, %+v", asked, bad, s.Stats())
	if asked < len(addrs)*9/10 {
		t.Errorf("asked only %d of %d", asked, len(addrs))
	}
	if st := s.Stats(); st.Bytes > 6<<20 {
		t.Errorf("table of %d bytes, more than 6 MiB", st.Bytes)
	}
}

func TestParseModules(t *testing.T) {
	got := parseModules([]byte(sampleModules + "bad\nx y z\nz 1 2 3 4 0xzz\n"))
	want := []module{
		{name: "nf_tables", state: "Live", start: 0xffffffffc0001000, size: 8192},
		{name: "veth", state: "Live", start: 0xffffffffc0004000, size: 4096},
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(module{})); d != "" {
		t.Error(d)
	}
}

func FuzzKallsyms(f *testing.F) {
	f.Add([]byte(sample), []byte(sampleModules), uint64(0xffffffff81000110))
	f.Add([]byte("ffffffffffffffff t \xff\t[]\n0 t\n"), []byte(""), uint64(0))
	f.Add([]byte("1 t a\nfffffffffffffff0 W b\t[bpf]\n"), []byte("a 1 1 1 1 0x1"), uint64(1))
	f.Fuzz(func(t *testing.T, kallsyms, modules []byte, addr uint64) {
		raw, err := parse(strings.NewReader(string(kallsyms)))
		if err != nil {
			return
		}
		tab, dyn := build(raw, parseModules(modules))
		var d dynamic
		d.merge(dyn)
		for _, find := range []func(stack.Addr) (Symbol, bool){tab.find, d.find} {
			if s, ok := find(stack.Addr(addr)); ok && (stack.Addr(addr) < s.Start || stack.Addr(addr) >= s.End) {
				t.Fatalf("%#x is not in %+v", addr, s)
			}
		}
		for i := 1; i < len(d.syms); i++ {
			if d.syms[i].Start < d.syms[i-1].End {
				t.Fatalf("%+v overlaps %+v", d.syms[i-1], d.syms[i])
			}
		}
	})
}

// cpuTime returns the CPU time this process has used.
func cpuTime(b *testing.B) time.Duration {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

func BenchmarkLoad(b *testing.B) {
	n := len(liveFunctions(b))
	b.ReportAllocs()
	before, rounds := cpuTime(b), 0
	defer func() { b.ReportMetric((cpuTime(b)-before).Seconds()*1000/float64(rounds), "cpu-ms/op") }()
	for b.Loop() {
		rounds++
		s := New(Config{})
		s.Lookup(0xffffffff81000000)
		if st := s.Stats(); st.Symbols < uint64(n)*9/10 {
			b.Fatalf("%d of %d functions", st.Symbols, n)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	byAddr := liveFunctions(b)
	addrs := make([]stack.Addr, 0, len(byAddr))
	for a, names := range byAddr {
		if names[0] != "_etext" && names[0] != "_einittext" {
			addrs = append(addrs, a)
		}
	}
	s := New(Config{})
	s.Lookup(addrs[0])
	i := 0
	for b.Loop() {
		if _, ok := s.Lookup(addrs[i%len(addrs)]); !ok {
			b.Fatalf("no name for %#x", addrs[i%len(addrs)])
		}
		i++
	}
}

func BenchmarkHeap(b *testing.B) {
	liveFunctions(b)
	var before, after runtime.MemStats
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		s := New(Config{})
		s.Lookup(0xffffffff81000000)
		runtime.GC()
		runtime.ReadMemStats(&after)
		if s.Stats().Symbols == 0 {
			b.Fatal("no symbols")
		}
		runtime.KeepAlive(s)
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc), "heap-B")
}
