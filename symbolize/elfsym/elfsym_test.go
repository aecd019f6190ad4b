// SPDX-License-Identifier: Apache-2.0

package elfsym

import (
	"bufio"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/lowflame/lowflame/internal/testutil"
	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/stack"
)

func open(tb testing.TB, path string) *objfile.Object {
	tb.Helper()
	if _, err := os.Stat(path); err != nil {
		tb.Skip(err)
	}
	return testutil.OpenObject(tb, path)
}

func build(tb testing.TB, path string) (*objfile.Object, *Table) {
	tb.Helper()
	o := open(tb, path)
	t, err := Build(o)
	if err != nil {
		tb.Fatalf("%s: %v", path, err)
	}
	return o, t
}

// run runs a tool and returns what it prints.
func run(tb testing.TB, name string, args ...string) string {
	tb.Helper()
	if _, err := exec.LookPath(name); err != nil {
		tb.Skipf("needs %s", name)
	}
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		tb.Fatalf("%s %v: %v\n%s", name, args, err, errs.String())
	}
	return out.String()
}

func compile(tb testing.TB, source, out string, args ...string) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), out)
	run(tb, "gcc", append(append([]string{}, args...), "-o", path, filepath.Join("testdata", source))...)
	return path
}

// nmSymbol is a line of nm -S.
type nmSymbol struct {
	addr stack.LinkAddr
	size uint64
	name string
}

// nm returns the functions that nm lists.
func nm(tb testing.TB, path string, args ...string) []nmSymbol {
	tb.Helper()
	var syms []nmSymbol
	out := run(tb, "nm", append(append([]string{"-S", "--defined-only"}, args...), path)...)
	for sc := bufio.NewScanner(strings.NewReader(out)); sc.Scan(); {
		f := strings.Fields(sc.Text())
		// node puts a table of constants into its code.
		if len(f) != 4 || !strings.Contains("tTwWi", f[2]) || f[3] == "ecp_nistz256_precomputed" {
			continue
		}
		addr, _ := strconv.ParseUint(f[0], 16, 64)
		size, _ := strconv.ParseUint(f[1], 16, 64)
		name, _, _ := strings.Cut(f[3], "@")
		syms = append(syms, nmSymbol{stack.LinkAddr(addr), size, name})
	}
	return syms
}

// TestAgainstNM asks for the first and last byte of every sized function that nm
// lists, in programs and libraries of this machine.
func TestAgainstNM(t *testing.T) {
	gobin := filepath.Join(runtime.GOROOT(), "bin/go") //nolint:staticcheck // tests run where they are built
	tests := []struct {
		path string
		args []string
	}{
		{compile(t, "funcs.c", "plain", "-O1"), nil},
		{compile(t, "funcs.c", "static", "-O1", "-static"), nil},
		{libc(t), []string{"-D"}},
		{"/usr/bin/node", []string{"-D"}},
		{"/usr/lib/llvm-19/lib/libLLVM.so.1", []string{"-D"}},
		{libjvm(t), []string{"-D"}},
		{gobin, nil},
	}
	for _, tt := range tests {
		t.Run(filepath.Base(tt.path), func(t *testing.T) {
			if _, err := os.Stat(tt.path); err != nil {
				t.Skip(err)
			}
			compareNM(t, tt.path, tt.args)
		})
	}
}

func compareNM(t *testing.T, path string, args []string) {
	o, table := build(t, path)
	byAddr := map[stack.LinkAddr][]string{}
	var syms []nmSymbol
	for _, s := range nm(t, path, args...) {
		if _, ok := o.FileOff(s.addr); ok && s.size > 0 {
			byAddr[s.addr] = append(byAddr[s.addr], s.name)
			syms = append(syms, s)
		}
	}
	slices.SortStableFunc(syms, func(a, b nmSymbol) int { return int(int64(a.addr) - int64(b.addr)) })
	bad, asked := 0, 0
	check := func(at stack.LinkAddr, want []string) {
		asked++
		f, ok := table.Lookup(at)
		if !ok {
			t.Errorf("%#x: nothing; want one of %v", at, want)
			bad++
			return
		}
		name, err := table.Name(o, f)
		name, _, _ = strings.Cut(name, "@")
		if err != nil || !slices.Contains(want, name) {
			t.Errorf("%#x: %q, %v; want one of %v", at, name, err, want)
			bad++
		}
	}
	for i, s := range syms {
		if bad > 10 {
			t.Fatal("and so on")
		}
		check(s.addr, byAddr[s.addr])
		last := s.addr + stack.LinkAddr(s.size) - 1
		if j := slices.IndexFunc(syms[i:], func(n nmSymbol) bool { return n.addr > s.addr }); j < 0 || syms[i+j].addr > last {
			if sameSize(syms, s) {
				check(last, byAddr[s.addr])
			}
		}
	}
	if asked < 10 {
		t.Errorf("only %d addresses asked", asked)
	}
	t.Logf("%d addresses, %d wrong, %d ranges, %d bytes", asked, bad, table.Len(), table.Bytes())
}

// sameSize reports whether all symbols at the address of s have its size.
func sameSize(syms []nmSymbol, s nmSymbol) bool {
	i, _ := slices.BinarySearchFunc(syms, s.addr, func(x nmSymbol, a stack.LinkAddr) int {
		return int(int64(x.addr) - int64(a))
	})
	for ; i < len(syms) && syms[i].addr == s.addr; i++ {
		if syms[i].size != s.size {
			return false
		}
	}
	return true
}

func libc(tb testing.TB) string {
	return libraryOf(tb, "libc.so.6")
}

func libraryOf(tb testing.TB, name string) string {
	tb.Helper()
	out, err := exec.Command("gcc", "-print-file-name="+name).Output()
	if err != nil {
		return "no " + name
	}
	return strings.TrimSpace(string(out))
}

func libjvm(tb testing.TB) string {
	tb.Helper()
	found, _ := filepath.Glob("/usr/lib/jvm/java-17-openjdk-*/lib/server/libjvm.so")
	if len(found) == 0 {
		return "no libjvm.so"
	}
	return found[0]
}

// nameAt returns the name at an address, or "".
func nameAt(tb testing.TB, o *objfile.Object, t *Table, addr stack.LinkAddr) string {
	tb.Helper()
	f, ok := t.Lookup(addr)
	if !ok {
		return ""
	}
	name, err := t.Name(o, f)
	if err != nil {
		tb.Errorf("%#x: %v", addr, err)
	}
	return name
}

func TestAssembly(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("assembly for x86-64")
	}
	path := compile(t, "labels.s", "labels.so", "-shared", "-nostdlib")
	o, table := build(t, path)
	addr := map[string]stack.LinkAddr{}
	for _, line := range strings.Split(run(t, "nm", path), "\n") {
		if f := strings.Fields(line); len(f) == 3 {
			a, _ := strconv.ParseUint(f[0], 16, 64)
			addr[f[2]] = stack.LinkAddr(a)
		}
	}
	tests := []struct {
		name string
		addr stack.LinkAddr
		want string
	}{
		{"global without type or size", addr["bare"], "bare"},
		{"reaches up to the next symbol", addr["sized"] - 1, "bare"},
		{"sized", addr["sized"] + 1, "sized"},
		{"a label inside a sized function is not a function", addr["label_inside"], "sized"},
		{"a sized function inside another", addr["inner"], "inner"},
		{"behind the inner one", addr["inner"] + 2, "outer"},
		{"gap behind a sized function", addr["after_gap"] - 1, ""},
		{"global wins over local, fewer underscores over more", addr["alias"], "alias"},
		{"local of another section", addr["last"], "last"},
		{"last byte of the section", addr["last"] + 3, "last"},
		{"behind the section", addr["last"] + 4, ""},
		{"data without a type", addr["datum"], ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := nameAt(t, o, table, tt.addr); got != tt.want {
				t.Errorf("%#x is %q, want %q", tt.addr, got, tt.want)
			}
		})
	}
}

// TestNoSectionHeaders finds the dynamic symbols through program headers alone.
func TestNoSectionHeaders(t *testing.T) {
	b, err := os.ReadFile(compile(t, "funcs.c", "lib.so", "-O1", "-shared", "-fPIC", "-s"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	syms, err := f.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	copy(b[0x28:0x30], make([]byte, 8)) // e_shoff
	copy(b[0x3c:0x40], make([]byte, 4)) // e_shnum, e_shstrndx
	o, err := objfile.Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	table, err := Build(o)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, s := range syms {
		if elf.ST_TYPE(s.Info) == elf.STT_FUNC && s.Section != elf.SHN_UNDEF && s.Size > 0 {
			n++
			if got := nameAt(t, o, table, stack.LinkAddr(s.Value)); got != s.Name {
				t.Errorf("%#x is %q, want %q", s.Value, got, s.Name)
			}
		}
	}
	if n == 0 {
		t.Error("the library exports nothing")
	}
}

func TestNoSymbols(t *testing.T) {
	b := make([]byte, 64)
	copy(b, "\x7fELF\x02\x01\x01")
	b[16], b[18], b[20], b[52] = 2, 62, 1, 64
	o, err := objfile.Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Build(o); !errors.Is(err, ErrNoSymbols) {
		t.Errorf("Build: %v; want ErrNoSymbols", err)
	}
	c := NewCache(0)
	for range 3 {
		if table, err := c.Table("x", o); !errors.Is(err, ErrNoSymbols) || table == nil {
			t.Errorf("Table = %v, %v", table, err)
		}
	}
	if _, _, builds := c.Stats(); builds != 1 {
		t.Errorf("read %d times, want once", builds)
	}
}

func TestCacheIsBounded(t *testing.T) {
	o := open(t, libc(t))
	table, err := Build(o)
	if err != nil {
		t.Fatal(err)
	}
	c := NewCache(3 * (table.Bytes() + 200))
	for i := range 10 {
		if _, err := c.Table(fmt.Sprint(i), o); err != nil {
			t.Fatal(err)
		}
	}
	if n, size, builds := c.Stats(); n != 3 || size > 3*(table.Bytes()+200) || builds != 10 {
		t.Errorf("%d tables, %d bytes, %d builds", n, size, builds)
	}
}

func FuzzSymbols(f *testing.F) {
	for _, args := range [][]string{{"-Os", "-shared", "-fPIC", "-nostdlib", "-s"}, {"-Os", "-shared", "-fPIC", "-nostdlib"}} {
		out := filepath.Join(f.TempDir(), "lib.so")
		if exec.Command("gcc", append(args, "-Wl,-z,noseparate-code", "-o", out, "testdata/small.c")...).Run() == nil {
			if b, err := os.ReadFile(out); err == nil {
				f.Add(b, uint64(0x300))
			}
		}
	}
	f.Add([]byte("\x7fELF"), uint64(0))
	f.Fuzz(func(t *testing.T, b []byte, addr uint64) {
		o, err := objfile.Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		table, _ := Build(o)
		if table == nil {
			return
		}
		for i := 1; i < len(table.funcs); i++ {
			p, n := table.funcs[i-1], table.funcs[i]
			if n.size == 0 || uint64(p.off)+uint64(p.size) > uint64(n.off) {
				t.Fatalf("%+v, %+v are not sorted and apart", p, n)
			}
		}
		if fn, ok := table.Lookup(stack.LinkAddr(addr)); ok {
			if stack.LinkAddr(addr) < fn.Start || stack.LinkAddr(addr) >= fn.End {
				t.Fatalf("%#x is not in %+v", addr, fn)
			}
			table.Name(o, fn)
		}
	})
}
