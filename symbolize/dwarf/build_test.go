// SPDX-License-Identifier: Apache-2.0

package dwarf

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/lowflame/lowflame/objfile"
)

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
	root := t.TempDir()
	built := make(map[string]string) // programs by compiler, version and flags
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
					key := fmt.Sprint(compiler, version, r.flags)
					if built[key] == "" {
						dir := filepath.Join(root, strconv.Itoa(len(built)))
						if err := os.Mkdir(dir, 0o700); err != nil {
							t.Fatal(err)
						}
						built[key] = build(t, dir, compiler, version, &r)
					}
					testOracle(t, built[key], compiler, version, &r)
				})
			}
		}
	}
}

// testOracle tests a row with the program prog, which has its flags.
func testOracle(t *testing.T, prog, compiler string, version int, r *row) {
	dir := filepath.Dir(prog)
	if len(r.after) > 0 {
		dir = t.TempDir()
		run(t, dir, "cp", prog, "prog")
		prog = filepath.Join(dir, "prog")
	}
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

func TestArm64(t *testing.T) {
	need(t, "aarch64-linux-gnu-gcc", "llvm-symbolizer-19")
	dir := t.TempDir()
	var sources []string
	for _, s := range []string{"nested.c", "part.c"} {
		path, err := filepath.Abs(filepath.Join("testdata", s))
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, path)
	}
	run(t, dir, append([]string{"aarch64-linux-gnu-gcc", "-g", "-O2", "-ffunction-sections", "-Wl,--gc-sections", "-o", "prog"}, sources...)...)
	prog := filepath.Join(dir, "prog")
	addrs := addresses(symbols(t, prog), 300)
	if n := compare(t, addrs, llvm(t, prog, addrs), ours(t, open(t, prog, Config{}), addrs), true); n != 0 {
		t.Errorf("%d of %d addresses differ", n, len(addrs))
	}
}

// TestTruncated reads a file that is cut off after it was opened.
func TestTruncated(t *testing.T) {
	need(t, "gcc")
	prog := buildNested(t)
	whole, err := os.ReadFile(prog)
	if err != nil {
		t.Fatal(err)
	}
	d := open(t, prog, Config{})
	for size := int64(len(whole)); size >= 0; size -= int64(len(whole) / 50) {
		if err := os.Truncate(prog, size); err != nil {
			t.Fatal(err)
		}
		if err := d.Units(func(u *Unit) error { checkUnit(t, u); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if d.Bad() == 0 {
		t.Error("nothing bad was seen")
	}
}
