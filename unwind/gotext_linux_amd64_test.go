// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lowflame/lowflame/stack"
)

// count returns how many of names are want.
func count(names []string, want string) int {
	n := 0
	for _, name := range names {
		if name == want {
			n++
		}
	}
	return n
}

// goBuilds are ways to link a Go program.
var goBuilds = map[string][]string{
	"static":   {"env", "CGO_ENABLED=0", "go", "build", "-o", "OUT", "./plain"},
	"PIE":      {"env", "CGO_ENABLED=0", "go", "build", "-buildmode=pie", "-o", "OUT", "./plain"},
	"no opt":   {"env", "CGO_ENABLED=0", "go", "build", "-gcflags=-N -l", "-o", "OUT", "./plain"},
	"stripped": {"env", "CGO_ENABLED=0", "go", "build", "-ldflags=-s -w", "-o", "OUT", "./plain"},
	// Frames are made by sub and mov, not by push.
	"1.19": {"env", "CGO_ENABLED=0", "GO111MODULE=off", "GOFLAGS=", "GOTOOLCHAIN=local", old119, "build", "-o", "OUT", "./plain/main.go"},
}

const old119 = "/usr/lib/go-1.19/bin/go"

// buildGo builds a program in one of those ways.
func buildGo(t *testing.T, name string) string {
	t.Helper()
	if name == "1.19" {
		library(t, old119)
	}
	return build(t, "plain", append([]string{}, goBuilds[name]...)...)
}

// TestLiveGo walks every thread of Go programs, stopped and running, to the end.
func TestLiveGo(t *testing.T) {
	for name := range goBuilds {
		t.Run(name, func(t *testing.T) {
			path := buildGo(t, name)
			t.Run("stopped", func(t *testing.T) {
				l, tids := startStopped(t, path, "stop")
				checkThreads(t, l, tids, name)
			})
			t.Run("stopped at random", func(t *testing.T) {
				l, tids := startSpinning(t, path, "spin")
				checkThreads(t, l, tids, name)
			})
		})
	}
}

// startSpinning starts a program and stops it after a while, wherever it is.
func startSpinning(t *testing.T, path string, args ...string) (*live, []int) {
	t.Helper()
	return start(t, func(pid int) {
		time.Sleep(200 * time.Millisecond)
		syscall.Kill(pid, syscall.SIGSTOP)
	}, path, args...)
}

// checkThreads walks all threads; one of them has the 40 frames of main.f.
func checkThreads(t *testing.T, l *live, tids []int, build string) {
	t.Helper()
	found := 0
	for _, tid := range tids {
		res := l.walk(tid, 127)
		names := l.names(res)
		if res.Stop != stack.StopEnd {
			t.Errorf("thread %d: %v (missing %#x) after %q", tid, res.Stop, res.Missing, names)
		}
		if n := count(names, "main.f"); n > 0 {
			found = n
		}
		if build == "stripped" && len(names) > 40 {
			found = 40 // without symbols all that can be seen is the depth
		}
	}
	if found != 40 {
		t.Errorf("found %d frames of main.f, want 40", found)
	}
}

// TestSingleStepGo walks the stack at every instruction of the main thread of a
// Go program that works its runtime.
func TestSingleStepGo(t *testing.T) {
	if testing.Short() {
		t.Skip("walks 300 000 stacks under ptrace")
	}
	t.Parallel()
	for _, name := range []string{"static", "1.19"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := buildGo(t, name)
			bad, kinds := map[string]int{}, map[Kind]int{}
			steps := singleStep(t, 150_000, func(l *live, tid int) {
				res := l.walk(tid, 127)
				names := l.names(res)
				for _, pc := range res.PCs {
					if c, ok := l.At(pc - 1); ok {
						r, _ := c.Table.Lookup(stack.LinkAddr(pc - 1 - c.Bias))
						kinds[r.Kind()]++
					}
				}
				if res.Stop == stack.StopEnd {
					l.checkCalls(res)
					return
				}
				key := res.Stop.String() + " in " + names[len(names)-1]
				if bad[key]++; bad[key] == 1 && len(bad) < 10 {
					t.Errorf("%v: %x %q", res.Stop, res.PCs, names)
				}
			}, path, "work")
			t.Logf("%d instructions, rules by kind %v, bad %v", steps, kinds, bad)
			if steps < 50_000 || kinds[KindFPJump] == 0 {
				t.Errorf("only %d instructions, rules by kind %v", steps, kinds)
			}
		})
	}
}

// TestLiveCgo walks stacks on which Go calls C and C calls Go.
func TestLiveCgo(t *testing.T) {
	for name, flags := range map[string][]string{
		"internal link": {"-ldflags=-linkmode=internal"},
		"external link": {"-ldflags=-linkmode=external"},
		"PIE":           {"-buildmode=pie"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := append([]string{"env", "CGO_ENABLED=1", "go", "build"}, flags...)
			path := build(t, "cgo", append(cmd, "-o", "OUT", "./cgo")...)
			for mode, want := range map[string]map[string]int{
				"call":     {"cStop": 1, "cf": 10, "main.f": 40, "runtime.asmcgocall.abi0": 1, "main.main": 1},
				"callback": {"cStop": 1, "cf": 13, "main.f": 45, "runtime.asmcgocall.abi0": 2, "crosscall2": 1, "main.main": 1},
			} {
				t.Run(mode, func(t *testing.T) {
					l, tids := startStopped(t, path, mode)
					var all []string
					for _, tid := range tids {
						res := l.walk(tid, 127)
						names := l.names(res)
						if res.Stop != stack.StopEnd {
							t.Errorf("thread %d: %v (missing %#x) after %q", tid, res.Stop, res.Missing, names)
						}
						if count(names, "cStop") > 0 {
							all = names
						}
					}
					for name, n := range want {
						if count(all, name) != n {
							t.Errorf("%d frames of %s, want %d: %s", count(all, name), name, n, strings.Join(all, " "))
						}
					}
				})
			}
		})
	}
}
