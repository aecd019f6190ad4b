// SPDX-License-Identifier: Apache-2.0

package dwarf

import (
	"bufio"
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/stack"
)

// frame is what both sides say of one address and depth.
type frame struct {
	name, place string
}

// need returns the paths of tools, and skips the test if one is not installed.
func need(t testing.TB, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed (TEST_PACKAGES of the Makefile has it)", tool)
		}
	}
}

// run runs a command in dir and returns its output.
func run(t testing.TB, dir string, command ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, command[0], command[1:]...)
	c.Dir = dir
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", command, err, stderr.Bytes())
	}
	return out
}

// symbols returns the functions of a file, sorted.
func symbols(t *testing.T, path string) []elf.Symbol {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	all = slices.DeleteFunc(all, func(s elf.Symbol) bool {
		return elf.ST_TYPE(s.Info) != elf.STT_FUNC || s.Section == elf.SHN_UNDEF || s.Size == 0
	})
	sort.SliceStable(all, func(i, j int) bool { return all[i].Value < all[j].Value })
	return all
}

// addresses returns up to n addresses spread over the functions.
func addresses(funcs []elf.Symbol, n int) []uint64 {
	var total uint64
	for _, s := range funcs {
		total += s.Size
	}
	step := max(total/uint64(n), 1)
	var addrs []uint64
	at := uint64(0)
	for _, s := range funcs {
		for ; at < s.Size; at += step {
			addrs = append(addrs, s.Value+at)
		}
		at -= s.Size
	}
	return addrs
}

// llvm returns what llvm-symbolizer says.
func llvm(t *testing.T, path string, addrs []uint64) [][]frame {
	t.Helper()
	var in bytes.Buffer
	for _, a := range addrs {
		fmt.Fprintf(&in, "%#x\n", a)
	}
	c := exec.Command("llvm-symbolizer-19", "--no-demangle", "--inlines", "--obj="+path)
	c.Stdin = &in
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all [][]frame
	var one []frame
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		name := lines.Text()
		if name == "" {
			all, one = append(all, one), nil
			continue
		}
		lines.Scan()
		place := lines.Text()
		one = append(one, frame{name, place[:strings.LastIndexByte(place, ':')]})
	}
	if len(all) != len(addrs) {
		t.Fatalf("llvm-symbolizer answered %d of %d", len(all), len(addrs))
	}
	return all
}

// ours returns what the reader says.
func ours(t *testing.T, d *Data, addrs []uint64) [][]frame {
	t.Helper()
	all := make([][]frame, len(addrs))
	err := d.Units(func(u *Unit) error {
		checkUnit(t, u)
		for i, a := range addrs {
			if all[i] == nil {
				all[i] = flatten(u, stack.LinkAddr(a))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if d.Bad() != 0 {
		t.Errorf("%d bad units: %v", d.Bad(), d.BadErr())
	}
	return all
}

// checkUnit checks what unit.go promises.
func checkUnit(t testing.TB, u *Unit) {
	t.Helper()
	for i, r := range u.Lines {
		if i > 0 && r.Addr < u.Lines[i-1].Addr || int(r.File) >= len(u.Files) {
			t.Fatalf("row %d of %d: %+v", i, len(u.Lines), r)
		}
	}
	for i, s := range u.Scopes {
		if int(s.Parent) >= i || s.Parent < -1 || int(s.CallFile) >= len(u.Files) || int(s.DeclFile) >= len(u.Files) || len(s.Ranges) == 0 {
			t.Fatalf("scope %d: %+v", i, s)
		}
		for _, r := range s.Ranges {
			if r.Begin >= r.End {
				t.Fatalf("scope %d: %+v", i, s)
			}
		}
	}
	if len(u.Files) == 0 || u.Files[0] != "" {
		t.Fatalf("files: %q", u.Files)
	}
}

func covers(s *Scope, a stack.LinkAddr) bool {
	return slices.ContainsFunc(s.Ranges, func(r Range) bool { return a >= r.Begin && a < r.End })
}

// flatten returns the frames at an address, innermost first; nil if u does not have it.
func flatten(u *Unit, a stack.LinkAddr) []frame {
	place := func(file, line uint32) string {
		if u.Files[file] == "" {
			return "??:" + strconv.Itoa(int(line))
		}
		return u.Files[file] + ":" + strconv.Itoa(int(line))
	}
	at := ""
	n := sort.Search(len(u.Lines), func(i int) bool { return u.Lines[i].Addr > a })
	if n > 0 && !u.Lines[n-1].End {
		at = place(u.Lines[n-1].File, u.Lines[n-1].Line)
	}
	inner := int32(-1)
	for i := range u.Scopes {
		s := &u.Scopes[i]
		if (s.Parent < 0 || s.Parent == inner) && covers(s, a) {
			inner = int32(i)
		}
	}
	if inner < 0 {
		if at == "" {
			return nil
		}
		return []frame{{"", at}}
	}
	if at == "" {
		at = "??:0"
	}
	var frames []frame
	for inner >= 0 {
		s := &u.Scopes[inner]
		frames = append(frames, frame{s.Name, at})
		at = place(s.CallFile, s.CallLine)
		inner = s.Parent
	}
	return frames
}

// compare compares frames, and returns how many addresses differ. The name of the
// outermost comes from the symbol table in llvm-symbolizer; where the file has linkage
// names it must also be ours but for what compilers put behind it.
func compare(t *testing.T, addrs []uint64, want, got [][]frame, linkage bool) (differ int) {
	t.Helper()
	for i, a := range addrs {
		w, g := slices.Clone(want[i]), slices.Clone(got[i])
		if len(w) == len(g) && len(g) > 0 {
			out := &g[len(g)-1]
			if !linkage || sameFunction(w[len(w)-1].name, out.name) {
				out.name = w[len(w)-1].name
			}
		}
		if len(w) == 1 && strings.HasSuffix(w[0].place, ":0") && len(g) == 0 {
			continue // code without debug information; the file is the symbol table's
		}
		if !slices.Equal(w, g) {
			differ++
			if differ <= 5 {
				t.Logf("%#x:\nllvm %v\nours %v", a, want[i], got[i])
			}
		}
	}
	return differ
}

// structors are the names of constructors and destructors, of which several may be at
// one address.
var structors = regexp.MustCompile(`[CD][0-5]E`)

// sameFunction reports whether a symbol is of the function with a linkage name, or a
// short one: compilers give none to functions that only one file knows.
func sameFunction(symbol, name string) bool {
	symbol, _, _ = strings.Cut(symbol, ".")
	if !strings.HasPrefix(name, "_Z") {
		return name != "" && (strings.Contains(symbol, name) || strings.HasPrefix(name, "operator"))
	}
	return structors.ReplaceAllString(symbol, "CE") == structors.ReplaceAllString(name, "CE")
}

func open(t testing.TB, path string, c Config) *Data {
	t.Helper()
	o, f, err := objfile.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	c.TempDir = t.TempDir()
	d, err := Open(o, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if left, _ := os.ReadDir(c.TempDir); len(left) != 0 {
			t.Errorf("temporary files left: %v", left)
		}
	})
	return d
}

func openObject(t testing.TB, path string) *objfile.Object {
	t.Helper()
	o, f, err := objfile.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return o
}

// openDWO opens split files as a Config has it.
func openDWO(name, compDir string) (*objfile.Object, func(), error) {
	if !filepath.IsAbs(name) {
		name = filepath.Join(compDir, name)
	}
	o, f, err := objfile.OpenFile(name)
	if err != nil {
		return nil, nil, err
	}
	return o, func() { _ = f.Close() }, nil
}

// row is a way to build the test program.
type row struct {
	name    string
	flags   []string
	after   [][]string // commands on the file prog
	dwp     bool
	clang   bool // only clang can do it
	gcc     bool // only gcc can
	alt     bool // common is its supplement
	noNames bool // no linkage names
	blind   bool // llvm-symbolizer cannot do it: it reads what was before the commands
}

var rows = []row{
	{name: "plain"},
	{name: "O0", flags: []string{"-O0"}},
	{name: "zlib", after: [][]string{{"objcopy", "--compress-debug-sections=zlib", "prog"}}},
	{name: "zlib-gnu", after: [][]string{{"objcopy", "--compress-debug-sections=zlib-gnu", "prog"}}, blind: true},
	{name: "zstd", after: [][]string{{"objcopy", "--compress-debug-sections=zstd", "prog"}}},
	{name: "split", flags: []string{"-gsplit-dwarf"}},
	{name: "dwp", flags: []string{"-gsplit-dwarf"}, dwp: true},
	{name: "dwz", after: [][]string{{"cp", "prog", "other"}, {"dwz", "-m", "common", "prog", "other"}}, blind: true, alt: true},
	{name: "dwz-alone", after: [][]string{{"dwz", "prog"}}},
	{name: "line-tables-only", flags: []string{"-gline-tables-only"}, clang: true, noNames: true},
	{name: "g1", flags: []string{"-g1"}, gcc: true, noNames: true},
	{name: "dwarf64", flags: []string{"-gdwarf64"}},
	{name: "type-units", flags: []string{"-fdebug-types-section"}},
	{name: "split-types", flags: []string{"-gsplit-dwarf", "-fdebug-types-section"}},
	{name: "gc-sections", flags: []string{"-ffunction-sections", "-Wl,--gc-sections"}},
	{name: "lld", flags: []string{"-ffunction-sections", "-Wl,--gc-sections", "-fuse-ld=lld"}, clang: true},
	{name: "lto", flags: []string{"-flto"}, gcc: true},
	{name: "no-pie", flags: []string{"-no-pie"}},
}

// build builds the program in dir.
func build(t *testing.T, dir, compiler string, version int, r *row) string {
	t.Helper()
	source, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	flags := append([]string{"-O2", "-g", fmt.Sprintf("-gdwarf-%d", version)}, r.flags...)
	cxx := "g++"
	if compiler == "clang-19" {
		cxx = "clang++-19"
	}
	var objects []string
	for _, s := range []string{"main.cc", "shapes.cc", "part.c"} {
		cc := compiler
		if strings.HasSuffix(s, ".cc") {
			cc = cxx
		}
		run(t, dir, slices.Concat([]string{cc, "-c", "-o", s + ".o"}, flags, []string{filepath.Join(source, s)})...)
		objects = append(objects, s+".o")
	}
	run(t, dir, slices.Concat([]string{cxx, "-o", "prog"}, flags, objects)...)
	return filepath.Join(dir, "prog")
}

func TestOracle(t *testing.T) {
	need(t, "gcc", "g++", "clang-19", "llvm-symbolizer-19", "llvm-dwp-19", "ld.lld-19", "objcopy", "dwz")
	for _, compiler := range []string{"gcc", "clang-19"} {
		for _, version := range []int{2, 3, 4, 5} {
			for _, r := range rows {
				if r.clang && compiler == "gcc" || r.gcc && compiler != "gcc" || version < 4 && r.name != "plain" && r.name != "zlib" ||
					// dwp knows no DWARF 5, and llvm-dwp loops on what gcc makes of it.
					r.dwp && compiler == "gcc" && version == 5 ||
					// dwz does not know .debug_addr.
					strings.HasPrefix(r.name, "dwz") && compiler != "gcc" && version == 5 {
					continue
				}
				t.Run(fmt.Sprintf("%s/%d/%s", compiler, version, r.name), func(t *testing.T) {
					testOracle(t, compiler, version, &r)
				})
			}
		}
	}
}

func testOracle(t *testing.T, compiler string, version int, r *row) {
	dir := t.TempDir()
	prog := build(t, dir, compiler, version, r)
	c := Config{OpenDWO: openDWO}
	if r.dwp {
		tool := "llvm-dwp-19"
		if version == 4 && compiler == "gcc" {
			tool = "dwp"
		}
		run(t, dir, tool, "-e", "prog", "-o", "prog.dwp")
		for _, name := range []string{"main.cc.dwo", "shapes.cc.dwo", "part.c.dwo"} {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		c = Config{DWP: openObject(t, prog+".dwp")}
	}
	addrs := addresses(symbols(t, prog), 600)
	var want [][]frame
	if r.blind {
		want = llvm(t, prog, addrs)
	}
	for _, c := range r.after {
		run(t, dir, c...)
	}
	if !r.blind {
		want = llvm(t, prog, addrs)
	}
	if r.alt {
		c.Alt = openObject(t, filepath.Join(dir, "common"))
	}
	d := open(t, prog, c)
	got := ours(t, d, addrs)
	if path, id, ok := d.AltLink(); ok != r.alt || ok && (path != "common" || len(id) != 40) {
		t.Errorf("supplement %q %q %v", path, id, ok)
	}
	if d.NoDWO() != 0 {
		t.Errorf("%d split units not found", d.NoDWO())
	}
	deep := slices.IndexFunc(got, func(f []frame) bool { return len(f) >= 3 })
	if deep < 0 && r.name != "O0" {
		t.Error("no inlined calls")
	}
	if n := compare(t, addrs, want, got, !r.noNames); n != 0 {
		t.Errorf("%d of %d addresses differ", n, len(addrs))
	}
}

func TestRust(t *testing.T) {
	need(t, "rustc", "llvm-symbolizer-19")
	dir := t.TempDir()
	source, err := filepath.Abs("testdata/walk.rs")
	if err != nil {
		t.Fatal(err)
	}
	run(t, dir, "rustc", "-O", "-g", "-Csymbol-mangling-version=v0", "-o", "prog", source)
	prog := filepath.Join(dir, "prog")
	addrs := addresses(symbols(t, prog), 1500)
	got := ours(t, open(t, prog, Config{}), addrs)
	if n := compare(t, addrs, llvm(t, prog, addrs), got, false); n > len(addrs)/200 {
		t.Errorf("%d of %d addresses differ", n, len(addrs))
	}
}

// TestNoDWO reads a program whose split files are gone: its lines are left.
func TestNoDWO(t *testing.T) {
	need(t, "gcc", "g++")
	dir := t.TempDir()
	prog := build(t, dir, "gcc", 5, &row{flags: []string{"-gsplit-dwarf"}})
	for _, c := range []Config{{}, {OpenDWO: func(name, compDir string) (*objfile.Object, func(), error) {
		return openDWO(name+".gone", compDir)
	}}} {
		d := open(t, prog, c)
		lines := 0
		if err := d.Units(func(u *Unit) error { lines += len(u.Lines); return nil }); err != nil {
			t.Fatal(err)
		}
		if d.NoDWO() != 3 || d.Bad() != 0 || lines < 50 {
			t.Errorf("%d without split file, %d bad (%v), %d lines", d.NoDWO(), d.Bad(), d.BadErr(), lines)
		}
	}
}

// TestFile compares the file that DWARF_FILE names, if it is set, at 10 000 addresses.
func TestFile(t *testing.T) {
	path := os.Getenv("DWARF_FILE")
	if path == "" {
		path = buildNested(t)
	}
	need(t, "llvm-symbolizer-19")
	addrs := addresses(symbols(t, path), 10000)
	got := ours(t, open(t, path, Config{OpenDWO: openDWO}), addrs)
	n := compare(t, addrs, llvm(t, path, addrs), got, false)
	t.Logf("%d of %d addresses differ", n, len(addrs))
	if n > len(addrs)/200 {
		t.Error("too many")
	}
}

// buildNested builds a C program with functions in functions.
func buildNested(t *testing.T) string {
	t.Helper()
	need(t, "gcc")
	dir := t.TempDir()
	source, err := filepath.Abs("testdata/nested.c")
	if err != nil {
		t.Fatal(err)
	}
	run(t, dir, "gcc", "-g", "-O2", "-o", "prog", source)
	return filepath.Join(dir, "prog")
}
