// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"debug/elf"
	"slices"
	"strings"
	"testing"

	"github.com/lowflame/lowflame/stack"
)

// bareFlags make compilers write no call frame information.
func bareFlags(cmd ...string) []string {
	return append(cmd, "-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-fno-exceptions", "-o", "OUT")
}

// bareBuilds are compilers of testdata/live/bare.c.
var bareBuilds = map[string][]string{
	"gcc O2":          bareFlags("gcc", "-O2"),
	"gcc O0":          bareFlags("gcc", "-O0"),
	"gcc Os":          bareFlags("gcc", "-Os", "-static"),
	"gcc O3":          bareFlags("gcc", "-O3", "-no-pie", "-fno-plt"),
	"gcc CET, probes": bareFlags("gcc", "-O2", "-fcf-protection=full", "-fstack-clash-protection", "-fstack-protector-strong"),
	"gcc rbp":         bareFlags("gcc", "-O2", "-fno-omit-frame-pointer"),
	"clang O2":        bareFlags("clang-19", "-O2"),
	"clang O0":        bareFlags("clang-19", "-O0"),
	"clang probes":    bareFlags("clang-19", "-O2", "-fstack-clash-protection"),
	"musl":            bareFlags("musl-gcc", "-O2", "-static"),
	"musl dynamic":    bareFlags("musl-gcc", "-O2"), // its library exports but a part of its functions
}

// TestSingleStepBare walks the stack at every instruction of programs whose
// functions have no call frame information. All walks have to reach the end.
func TestSingleStepBare(t *testing.T) {
	if testing.Short() {
		t.Skip("walks some 200 000 stacks under ptrace")
	}
	t.Parallel()
	for name, cmd := range bareBuilds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := build(t, "bare", append(append([]string{}, cmd...), "bare.c")...)
			own := ownFunctions(t, path)
			bad, inside, gaps := map[string]int{}, 0, 0
			steps := singleStep(t, 300_000, func(l *live, tid int) {
				res := l.walk(tid, 127)
				names := l.names(res)
				for _, n := range names {
					if own[n] {
						inside++
						break
					}
				}
				if res.Stop == stack.StopEnd {
					l.checkCalls(res)
					return
				}
				last := names[len(names)-1]
				crt := isStartup(&res, last)
				if !own[last] && (crt || knownGap(l, res, last) != "") {
					gaps++
					return
				}
				if key := res.Stop.String() + " in " + last; bad[key] < 1 && len(bad) < 10 {
					bad[key]++
					t.Errorf("%v: %x %q", res.Stop, res.PCs, names)
				}
			}, path)
			t.Logf("%d instructions, %d below functions of the program, %d in known gaps", steps, inside, gaps)
			if inside < 3_000 || gaps > steps/5 {
				t.Errorf("%d of %d instructions below functions of the program, %d in known gaps", inside, steps, gaps)
			}
		})
	}
}

// isStartup reports whether a walk ended in code that a C library's start-up files
// and dynamic linker have without rules: musl's crti.o has no type on its functions,
// which are put together from pieces, and __dls3 jumps to the program.
func isStartup(res *Result, last string) bool {
	if res.Stop == stack.StopUnsupportedRule {
		return len(res.PCs) == 1 && slices.Contains([]string{"_init", "_fini", "__dls3"}, last)
	}
	return res.Stop == stack.StopNoRule && (strings.HasPrefix(last, "bare+") || strings.HasPrefix(last, "libc.so+"))
}

// ownFunctions returns the names of the functions of bare.c.
func ownFunctions(t *testing.T, path string) map[string]bool {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	syms, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for _, s := range syms {
		all[s.Name] = true
	}
	own := map[string]bool{}
	for _, n := range []string{"touch", "checked", "many", "pass", "large", "huge", "variable", "varargs", "table", "compare", "handler", "rare", "tail", "main"} {
		if all[n] {
			own[n] = true
		}
	}
	if len(own) < 10 {
		t.Fatalf("%s has only %v", path, own)
	}
	return own
}
