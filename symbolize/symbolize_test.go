// SPDX-License-Identifier: Apache-2.0

package symbolize

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lowflame/lowflame/internal/testutil"
	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/symbolize/jit"
	"github.com/lowflame/lowflame/symbolize/kernel"
)

func open(tb testing.TB, path string) *Binary {
	tb.Helper()
	if _, err := os.Stat(path); err != nil {
		tb.Skip(err)
	}
	return &Binary{ID: path, Object: testutil.OpenObject(tb, path)}
}

func run(tb testing.TB, stdin, name string, args ...string) string {
	tb.Helper()
	if _, err := exec.LookPath(name); err != nil {
		tb.Skipf("needs %s", name)
	}
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "GO111MODULE=off", "GOFLAGS=")
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		tb.Fatalf("%s %v: %v\n%s", name, args, err, errs.String())
	}
	return out.String()
}

// functions returns the address of each sized function, by the standard library.
func functions(tb testing.TB, path string) []elf.Symbol {
	tb.Helper()
	f, err := elf.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	all, err := f.Symbols()
	if err != nil {
		tb.Fatal(err)
	}
	var syms []elf.Symbol
	for _, s := range all {
		if elf.ST_TYPE(s.Info) == elf.STT_FUNC && s.Section != elf.SHN_UNDEF && s.Size > 0 {
			syms = append(syms, s)
		}
	}
	return syms
}

// TestAgainstAddr2line compares names with those of addr2line at the start and in
// the middle of each function of programs in C++ and Rust.
func TestAgainstAddr2line(t *testing.T) {
	dir := t.TempDir()
	tests := []struct {
		name  string
		build []string
		want  []string // names that must occur
	}{
		{"C++", []string{"g++", "-O2", "-std=c++17", "-o", dir + "/cc", "testdata/shapes.cc"}, []string{
			"main", "plain_c", "shapes::run", "shapes::Box<double>::area", "shapes::Box<long>::area",
			"shapes::(anonymous namespace)::hidden", "shapes::Base::kind", "shapes::Base::~Base",
		}},
		{"Rust, legacy names", []string{"rustc", "-O", "-C", "symbol-mangling-version=legacy", "-Z", "unstable-options", "-o", dir + "/rs", "testdata/walk.rs"},
			[]string{"walk::main", "walk::inner::Tree::sum", "walk::show"}},
		{"Rust, v0 names", []string{"rustc", "-O", "-C", "symbol-mangling-version=v0", "-o", dir + "/rs0", "testdata/walk.rs"},
			[]string{"walk::main", "<walk::inner::Tree>::sum", "walk::show::<u64>", "walk::show::<&str>"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("RUSTC_BOOTSTRAP", "1")
			run(t, "", tt.build[0], tt.build[1:]...)
			// Without DWARF, of which Rust's standard library has some, addr2line uses
			// symbols too.
			path := tt.build[len(tt.build)-2]
			run(t, "", "objcopy", "--strip-debug", path)
			compareAddr2line(t, path, tt.want)
		})
	}
}

func compareAddr2line(t *testing.T, path string, want []string) {
	var addrs []stack.LinkAddr
	aliases := map[uint64][]string{}
	var query strings.Builder
	for _, f := range functions(t, path) {
		aliases[f.Value] = append(aliases[f.Value], f.Name)
		for _, a := range []uint64{f.Value, f.Value + f.Size/2} {
			addrs = append(addrs, stack.LinkAddr(a))
			fmt.Fprintf(&query, "%x\n", a)
		}
	}
	out := strings.Split(run(t, query.String(), "addr2line", "-f", "-e", path), "\n")
	s, b := New(Config{}), open(t, path)
	seen := map[string]bool{}
	same := 0
	for i, a := range addrs {
		lines := s.User(b, a)
		if len(lines) != 1 {
			t.Errorf("%#x: %v", a, lines)
			continue
		}
		seen[lines[0].Name] = true
		if lines[0].SystemName == out[2*i] || oneOf(aliases, lines[0].SystemName, out[2*i]) {
			same++
		} else if i-same < 10 {
			t.Logf("%#x: %q, addr2line has %q", a, lines[0].SystemName, out[2*i])
		}
	}
	t.Logf("%d of %d as addr2line has it", same, len(addrs))
	// addr2line, without lines, takes a function of size 0 that lies inside another.
	if same < len(addrs)*995/1000 {
		t.Errorf("%d of %d as addr2line has it", same, len(addrs))
	}
	for _, name := range want {
		if !seen[name] {
			t.Errorf("no function is named %q", name)
		}
	}
}

// oneOf reports whether two names are of one address.
func oneOf(aliases map[uint64][]string, a, b string) bool {
	for _, names := range aliases {
		var hasA, hasB bool
		for _, n := range names {
			hasA, hasB = hasA || n == a, hasB || n == b
		}
		if hasA && hasB {
			return true
		}
	}
	return false
}

// TestGo compares with the frames that a program sees of itself, stripped and not.
func TestGo(t *testing.T) {
	dir := t.TempDir()
	source, err := os.ReadFile("testdata/frames.go.txt")
	if err != nil {
		t.Fatal(err)
	}
	main := filepath.Join(dir, "main.go")
	if err := os.WriteFile(main, source, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, flags := range map[string][]string{
		"plain": nil, "stripped": {"-ldflags=-s -w"}, "trimpath": {"-trimpath"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, name)
			run(t, "", "go", append(append([]string{"build", "-o", path}, flags...), main)...)
			compareFrames(t, path, run(t, "", path))
		})
	}
}

// compareFrames checks that the functions at the address of each frame are that
// frame and those it was inlined into, which follow.
func compareFrames(t *testing.T, path, output string) {
	type frame struct {
		Name, File string
		Line       int64
	}
	var pcs []uint64
	var want []frame
	for _, line := range strings.Split(strings.TrimSpace(output), "\n") {
		f := strings.Fields(line)
		pc, _ := strconv.ParseUint(f[0], 16, 64)
		n, _ := strconv.ParseInt(f[1], 10, 64)
		pcs = append(pcs, pc)
		want = append(want, frame{f[2], f[3], n})
	}
	s, b := New(Config{}), open(t, path)
	inlined := 0
	for i, pc := range pcs {
		var got []frame
		for _, l := range s.User(b, stack.LinkAddr(pc-1)) {
			got = append(got, frame{l.Name, l.File, l.Line})
			if (l.StartLine <= 0 || l.StartLine > l.Line) && l.Name != "runtime.goexit" {
				t.Errorf("%#x: %+v has a wrong start line", pc, l)
			}
		}
		inlined += len(got) - 1
		if d := cmp.Diff(want[i:min(i+max(len(got), 1), len(want))], got); d != "" {
			t.Errorf("%#x:\n%s", pc, d)
		}
	}
	if inlined < 4 {
		t.Errorf("only %d inlined frames compared", inlined)
	}
	if st := s.Stats(); st.GoOpens != 1 || st.Unnamed != 0 {
		t.Errorf("%+v", st)
	}
}

func TestSameFileOpenedAgain(t *testing.T) {
	path := "/usr/local/go/bin/go"
	if _, err := os.Stat(path); err != nil {
		path = "/proc/self/exe"
	}
	s := New(Config{LocationBytes: 1})
	for range 3 {
		o, f, err := objfile.OpenFile(path)
		if err != nil {
			t.Fatal(err)
		}
		lines := s.User(&Binary{ID: "go", Object: o}, o.Entry)
		if len(lines) == 0 || !strings.HasPrefix(lines[0].Name, "_rt0_") {
			t.Errorf("the entry point is %v", lines)
		}
		f.Close()
	}
}

func TestUnreadableFileIsTriedAgainLater(t *testing.T) {
	path := "/usr/bin/true"
	if _, err := os.Stat(path); err != nil {
		t.Skip(err)
	}
	o, f, err := objfile.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	s := New(Config{})
	b := &Binary{ID: "closed", Object: o}
	for i := range stack.LinkAddr(100) {
		if lines := s.User(b, o.Entry+i); lines != nil {
			t.Errorf("%v out of a closed file", lines)
		}
	}
	if st := s.Stats(); st.Errors == 0 || st.Errors > 2 || st.Unnamed != 100 {
		t.Errorf("%+v", st)
	}
}

func TestVDSO(t *testing.T) {
	o, err := VDSO()
	if errors.Is(err, ErrNoVDSO) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	s, b := New(Config{}), &Binary{ID: "[vdso]", Object: o}
	syms, err := o.Symbols(objfile.DynSym)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	err = syms.All(func(_ int, sym objfile.Symbol) bool {
		if sym.Type != elf.STT_FUNC || sym.Section == elf.SHN_UNDEF {
			return true
		}
		n++
		lines := s.User(b, sym.Value+1)
		if len(lines) != 1 || (!strings.HasPrefix(lines[0].Name, "__vdso_") && !strings.HasPrefix(lines[0].Name, "__kernel_")) {
			name, _ := syms.Name(sym.Name)
			t.Errorf("%s is named %v", name, lines)
		}
		return true
	})
	if err != nil || n == 0 {
		t.Errorf("%d functions, %v", n, err)
	}
}

func TestKernel(t *testing.T) {
	s := New(Config{})
	s.ApplyKernel(KernelEvent{Addr: 0xffffffffc0ff0000, Len: 0x100, Type: 1, Name: "bpf_prog_0123456789abcdef_count"})
	module, lines := s.Kernel(0xffffffffc0ff0010)
	want := []Line{{Name: "bpf_prog_0123456789abcdef_count", SystemName: "bpf_prog_0123456789abcdef_count"}}
	if d := cmp.Diff(want, lines); module != "[bpf]" || d != "" {
		t.Errorf("module %s\n%s", module, d)
	}
	if err := s.KernelErr(); err != nil {
		t.Skip(err)
	}
	if module, lines := s.Kernel(0x1000); module != "[kernel.kallsyms]" || lines != nil {
		t.Errorf("Kernel(0x1000) = %s, %v", module, lines)
	}
}

func TestJITLine(t *testing.T) {
	tests := []struct {
		symbol string
		want   Line
	}{
		{"JS:*fib /srv/my app/fib.js:1:13", Line{Name: "fib", File: "/srv/my app/fib.js", StartLine: 1}},
		{"JS:~get size file:///a/b.mjs:120:7", Line{Name: "get size", File: "/a/b.mjs", StartLine: 120}},
		{"JS:^ node:internal/timers:5:1", Line{Name: "(anonymous)", File: "node:internal/timers", StartLine: 5}},
		{"LazyCompile:*run lib/x.js:3:4", Line{Name: "run", File: "lib/x.js", StartLine: 3}},
		{"Builtin:ArrayMap", Line{Name: "Builtin:ArrayMap"}},
		{"py::Tree.walk:/srv/tree.py", Line{Name: "Tree.walk", File: "/srv/tree.py"}},
		{"py::<module>:<frozen importlib>", Line{Name: "<module>", File: "<frozen importlib>"}},
		{"long J.hot(long, java.lang.String[])", Line{Name: "J.hot"}},
		{"void java.util.HashMap.<init>(int)", Line{Name: "java.util.HashMap.<init>"}},
		{"StubRoutines (1)", Line{Name: "StubRoutines (1)"}},
		{"a\x1b]0;b\a", Line{Name: "a\uFFFD]0;b\uFFFD", SystemName: "a\uFFFD]0;b\uFFFD"}},
	}
	for _, tt := range tests {
		if tt.want.SystemName == "" {
			tt.want.SystemName = tt.symbol
		}
		if d := cmp.Diff(tt.want, jitLine(Simplified, jit.Symbol{Name: tt.symbol})); d != "" {
			t.Errorf("%q:\n%s", tt.symbol, d)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	s := New(Config{LocationBytes: 64 << 10, SymbolBytes: 1})
	var bins []*Binary
	for _, path := range []string{"/proc/self/exe", "/usr/bin/true", "/usr/bin/env"} {
		bins = append(bins, open(t, path))
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 300 {
				b := bins[(g+i)%len(bins)]
				s.User(b, b.Object.Entry+stack.LinkAddr(i*16))
				s.Kernel(0xffffffff81000000 + stack.Addr(i*64))
				s.ApplyKernel(KernelEvent{Addr: 0xffffffffc1000000 + stack.Addr(i*64), Len: 64, Name: "x"})
				s.JIT(JITProcess{PID: uint32(os.Getpid())}, stack.Addr(i))
				if i%100 == 0 {
					s.Trim()
					s.Stats()
				}
			}
		}()
	}
	wg.Wait()
	if st := s.Stats(); st.Named == 0 || st.CacheBytes > 64<<10 {
		t.Errorf("%+v", st)
	}
}

func TestUseVmlinux(t *testing.T) {
	dir := t.TempDir()
	kallsyms := filepath.Join(dir, "kallsyms")
	text := "ffffffff9b000000 T _stext\nffffffff9b000000 t entry\nffffffff9b000100 t worker.cold\nffffffff9b000200 T _etext\nffffffffc0000000 t mod\t[m]\n"
	if err := os.WriteFile(kallsyms, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := New(Config{Kernel: kernel.Config{Kallsyms: kallsyms, Modules: filepath.Join(dir, "none")}})
	s.UseVmlinux(0xffffffff81000000, func(addr stack.LinkAddr) []Line {
		return []Line{{Name: "inlined", Line: int64(addr & 0xfff)}, {Name: "worker", SystemName: "worker", File: "w.c", Line: 2}}
	})
	if _, lines := s.Kernel(0xffffffff9b000110); len(lines) != 2 || lines[0].Line != 0x110 || lines[1].File != "w.c" {
		t.Errorf("%+v", lines)
	}
	for addr, want := range map[stack.Addr]string{0xffffffff9b000010: "entry", 0xffffffffc0000000: "mod"} { // of which vmlinux says else
		if _, lines := s.Kernel(addr); len(lines) != 1 || lines[0].Name != want {
			t.Errorf("%#x: %+v", addr, lines)
		}
	}
}
