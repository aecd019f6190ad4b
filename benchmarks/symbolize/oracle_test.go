// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lowflame/lowflame/benchmarks/measure"
)

// agreement is the least share of addresses, in percent, at which the answers of
// lowflame and of the oracle are the same, after the list of docs/symbols.md.
const agreement = 99.5

// way is a way to build and change a test program. What is not named "prog" is not
// looked at.
type way struct {
	name  string
	flags []string
	after [][]string
	// before asks the oracle before the commands of after, which make the file one
	// that it cannot read.
	before bool
	// symbols are all there is: names are compared, and there are no inlined calls.
	symbols bool
	not     func(compiler string, version int) bool
}

var ways = []way{
	{name: "plain"},
	{name: "O0", flags: []string{"-O0"}},
	{name: "zlib", after: [][]string{{"objcopy", "--compress-debug-sections=zlib", "prog"}}},
	{name: "zstd", after: [][]string{{"objcopy", "--compress-debug-sections=zstd", "prog"}}},
	{name: "zlib-gnu", after: [][]string{{"objcopy", "--compress-debug-sections=zlib-gnu", "prog"}}, before: true},
	{name: "split", flags: []string{"-gsplit-dwarf"}},
	// dwp knows no DWARF 5, and llvm-dwp does not end on what gcc makes of it.
	{name: "dwp", flags: []string{"-gsplit-dwarf"}, not: func(compiler string, version int) bool { return compiler == "gcc" && version == 5 }},
	{name: "dwz", after: [][]string{{"cp", "prog", "other"}, {"dwz", "-m", "common", "prog", "other"}}, before: true,
		// dwz does not know .debug_addr.
		not: func(compiler string, version int) bool { return compiler != "gcc" && version == 5 }},
	{name: "debuglink", after: [][]string{
		{"objcopy", "--only-keep-debug", "prog", "prog.debug"},
		{"strip", "--strip-all", "prog"}, {"objcopy", "--add-gnu-debuglink=prog.debug", "prog"},
	}, before: true},
	{name: "minidebuginfo", after: [][]string{
		{"sh", "-c", "objcopy -S --remove-section .comment prog mini && nm -D prog --format=posix --defined-only | awk '{print $1}' | sort > dyn; " +
			"nm prog --format=posix --defined-only | awk '$2 ~ /[TtW]/ {print $1}' | sort > fun; comm -13 dyn fun > keep; " +
			"objcopy --only-keep-debug prog full; objcopy -S --remove-section .gdb_index --remove-section .comment --keep-symbols=keep full mini; " +
			"xz -f mini; strip --strip-all prog; objcopy --add-section .gnu_debugdata=mini.xz prog"},
	}, before: true, symbols: true},
	{name: "line-tables-only", flags: []string{"-gline-tables-only"}, not: func(compiler string, _ int) bool { return compiler == "gcc" }},
	{name: "g1", flags: []string{"-g1"}, not: func(compiler string, _ int) bool { return compiler != "gcc" }},
	{name: "no-pie", flags: []string{"-no-pie"}},
}

// TestOracle asks lowflame, which builds an index in a worker, and llvm-symbolizer
// what is at addresses all over programs
// built in every way that compilers and packagers know.
func TestOracle(t *testing.T) {
	need(t, "gcc", "g++", "clang-19", "clang++-19", peer, "llvm-dwp-19", "dwp", "dwz", "objcopy", "xz")
	lowflame := buildLowflame(t)
	for _, compiler := range []string{"gcc", "clang-19"} {
		for _, version := range []int{4, 5} {
			for _, w := range ways {
				if w.not != nil && w.not(compiler, version) {
					continue
				}
				t.Run(fmt.Sprintf("%s/%d/%s", compiler, version, w.name), func(t *testing.T) {
					testWay(t, lowflame, compiler, version, &w)
				})
			}
		}
	}
}

func testWay(t *testing.T, lowflame, compiler string, version int, w *way) {
	dir := t.TempDir()
	compile(t, dir, compiler, version, w.flags)
	prog := filepath.Join(dir, "prog")
	if w.name == "dwp" {
		packer := "llvm-dwp-19"
		if compiler == "gcc" {
			packer = "dwp"
		}
		tool(t, dir, packer, "-e", "prog", "-o", "prog.dwp")
		tool(t, dir, "sh", "-c", "rm *.dwo")
	}
	symbols, err := functionSymbols(prog)
	if err != nil {
		t.Fatal(err)
	}
	addrs, aliases := spread(symbols, 1000), symbolAliases(symbols)
	var want []answer
	if w.before {
		want = must(t)(askLLVM(t.Context(), prog, addrs))
	}
	for _, command := range w.after {
		tool(t, dir, command...)
	}
	if !w.before {
		want = must(t)(askLLVM(t.Context(), prog, addrs))
	}
	got := must(t)(askLowflame(t.Context(), lowflame, prog, addrs))
	if w.symbols {
		want, got = outermost(want), outermost(got)
	} else if w.name != "O0" {
		deep(t, want, got)
	}
	check(t, compareAnswers(addrs, want, got, aliases))
}

// outermost leaves the names of functions.
func outermost(in []answer) []answer {
	out := make([]answer, len(in))
	for i, a := range in {
		out[i] = answer{{name: a[len(a)-1].name, place: "??:0"}}
	}
	return out
}

// deep checks that there are inlined calls to compare at all.
func deep(t *testing.T, all ...[]answer) {
	t.Helper()
	for _, answers := range all {
		n := 0
		for _, a := range answers {
			if len(a) >= 2 {
				n++
			}
		}
		if n < len(answers)/20 {
			t.Errorf("%d of %d answers have inlined calls", n, len(answers))
		}
	}
}

func check(t *testing.T, v *verdict) {
	t.Helper()
	t.Log(v)
	if v.n < 300 {
		t.Errorf("%d addresses are too few", v.n)
	}
	if v.percent() < agreement {
		t.Errorf("%.2f %% agree, not %v %%\n%s", v.percent(), agreement, strings.Join(v.examples, "\n"))
	}
}

// TestRust does the same with Rust, with names of both kinds.
func TestRust(t *testing.T) {
	need(t, "rustc", peer)
	lowflame := buildLowflame(t)
	for _, mangling := range []string{"legacy", "v0"} {
		t.Run(mangling, func(t *testing.T) {
			dir := t.TempDir()
			flags := []string{"-O", "-g", "-Csymbol-mangling-version=" + mangling}
			if mangling == "legacy" {
				flags = []string{"-O", "-g"}
			}
			tool(t, dir, append(append([]string{"rustc"}, flags...), "-o", "prog", source(t, "walk.rs"))...)
			compareFile(t, lowflame, filepath.Join(dir, "prog"), 3000)
		})
	}
}

func compareFile(t *testing.T, lowflame, file string, n int) {
	t.Helper()
	symbols, err := functionSymbols(file)
	if err != nil {
		t.Fatal(err)
	}
	addrs := spread(symbols, n)
	want := must(t)(askLLVM(t.Context(), file, addrs))
	got := must(t)(askLowflame(t.Context(), lowflame, file, addrs))
	deep(t, want, got)
	check(t, compareAnswers(addrs, want, got, symbolAliases(symbols)))
}

func need(t *testing.T, tools ...string) {
	t.Helper()
	for _, name := range tools {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatalf("%s is not installed: TEST_PACKAGES of the Makefile has it", name)
		}
	}
}

func buildLowflame(t *testing.T) string {
	t.Helper()
	lowflame, err := measure.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return lowflame
}

// source returns the path of a program that the tests of the DWARF reader use too.
func source(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../../symbolize/dwarf/testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// compile makes the program "prog" in dir, of several units.
func compile(t *testing.T, dir, compiler string, version int, flags []string) {
	t.Helper()
	cxx := map[string]string{"gcc": "g++", "clang-19": "clang++-19"}[compiler]
	flags = append([]string{"-O2", "-g", fmt.Sprintf("-gdwarf-%d", version)}, flags...)
	link := append([]string{cxx, "-o", "prog", "-Wl,--build-id=sha1"}, flags...)
	for _, name := range []string{"main.cc", "shapes.cc", "part.c"} {
		cc := compiler
		if strings.HasSuffix(name, ".cc") {
			cc = cxx
		}
		tool(t, dir, append(append([]string{cc, "-c", "-o", name + ".o"}, flags...), source(t, name))...)
		link = append(link, name+".o")
	}
	tool(t, dir, link...)
}

func tool(t *testing.T, dir string, command ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", command, err, out)
	}
}

func must(t *testing.T) func([]answer, cost, error) []answer {
	return func(a []answer, _ cost, err error) []answer {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
}
