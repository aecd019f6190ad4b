// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"os/exec"
	"testing"

	"github.com/lowflame/lowflame/stack"
)

// TestFindFunctions compares the rows of programs without symbols with those that
// the same programs have by their symbols: nothing else tells of the functions of
// musl in a static program.
func TestFindFunctions(t *testing.T) {
	for name, cmd := range map[string][]string{
		"musl":            {"musl-gcc", "-O2", "-static", "-pthread"},
		"musl PIE":        {"musl-gcc", "-O2", "-static-pie", "-fPIE", "-pthread"},
		"no tables":       bareFlags("gcc", "-O2"),
		"no tables, CET":  bareFlags("gcc", "-O2", "-fcf-protection=full"),
		"no tables, rbp":  bareFlags("gcc", "-O2", "-fno-omit-frame-pointer"),
		"musl, no tables": bareFlags("musl-gcc", "-Os", "-static"),
	} {
		t.Run(name, func(t *testing.T) {
			out := []string{"-o", "OUT"}
			if cmd[len(cmd)-1] == "OUT" {
				out = nil
			}
			path := build(t, "bare", append(append(append([]string{}, cmd...), out...), "bare.c")...)
			stripped := path + "-stripped"
			if text, err := exec.Command("strip", "-o", stripped, path).CombinedOutput(); err != nil {
				t.Fatalf("strip: %v: %s", err, text)
			}
			found, all := compareTables(t, path, stripped)
			t.Logf("%d of %d bytes of code have rules without symbols", found, all)
			if all < 500 || found < all/4 {
				t.Errorf("%d of %d bytes of code have rules without symbols, want a quarter", found, all)
			}
		})
	}
}

// compareTables compares the rules of two builds of a program at every byte of
// code. It returns how many have a rule in the second, and in the first.
func compareTables(t *testing.T, path, stripped string) (found, all int) {
	t.Helper()
	want, got := buildTable(t, path), buildTable(t, stripped)
	wrong := 0
	for _, s := range elfSources(t, path).segs {
		for pc := s.begin; pc < s.end; pc++ {
			w, wp := want.Lookup(stack.LinkAddr(pc))
			g, gp := got.Lookup(stack.LinkAddr(pc))
			if known(w, wp) {
				all++
				if known(g, gp) {
					found++
				}
			}
			if known(w, wp) && known(g, gp) && !sameRule(w, wp, g, gp) {
				if wrong++; wrong < 10 {
					t.Errorf("%#x has rule %#x with symbols and %#x without", pc, w, g)
				}
			}
		}
	}
	return found, all
}

// known reports whether a rule says how to find the caller.
func known(r Rule, p *Piece) bool {
	return r.Kind() != KindNone && (r.Kind() != KindWide || p.WideRule(r.Off()).RA != WhereUnknown)
}

func sameRule(a Rule, ap *Piece, b Rule, bp *Piece) bool {
	if a.Kind() == KindWide && b.Kind() == KindWide {
		return ap.WideRule(a.Off()) == bp.WideRule(b.Off())
	}
	return a == b
}

// TestFindFunctionsGuess: an address that is taken is a function only if what is
// there returns as one does.
func TestFindFunctionsGuess(t *testing.T) {
	// lea 1f(%rip), %rax; ret; 1: follows, found by its address alone.
	const take = "48 8d 05 01 00 00 00 c3 "
	for _, tt := range []struct {
		name, code, want string
	}{
		{"function", "53 31 c0 5b c3", "0 sp+8\n8 none\n8 sp+8\n9 sp+16\nc sp+8\nd none\n"},
		{"middle of a function", "31 c0 5b c3", "0 sp+8\n8 none\n"},
		{"middle of a function, ends in a jump to a pointer", "31 c0 ff e0", "0 sp+8\n8 none\n"},
		{"middle of a function with frame pointer", "31 c0 c9 c3", "0 sp+8\n8 none\n"},
		{"data", "06 06 06 06", "0 sp+8\n8 none\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := scanOf(t, take, tt.code)
			end := c.funcs[1].end
			c.funcs = c.funcs[:1]
			c.funcs[0].sized = true
			c.gap = func(pc uint64) uint64 {
				if pc < codeAt || pc >= end {
					return 0
				}
				return end
			}
			rows, _ := c.run()
			if got := rowText(c, rows); got != tt.want {
				t.Errorf("got\n%swant\n%s", got, tt.want)
			}
		})
	}
}

// TestFindFunctionsOracle looks for the functions of binaries that have call frame
// information from those on that they export, and compares the rules with it.
func TestFindFunctionsOracle(t *testing.T) {
	for _, tt := range codeOracleFiles {
		t.Run(tt.name, func(t *testing.T) {
			path := library(t, tt.path)
			o := newCodeOracle(t, path)
			src := elfSources(t, path)
			exports := codeSyms{o: openObject(t, path), segEnd: src.code}
			exports.read(src.segs)
			exported := map[uint64]bool{uint64(exports.o.Entry): true}
			for _, f := range exports.funcs {
				exported[f.begin] = true
			}
			all := o.scan.funcs
			o.scan.funcs = nil
			for _, f := range all {
				if exported[f.begin] && !f.part {
					f.sized = true
					o.scan.funcs = append(o.scan.funcs, f)
				}
			}
			begin := len(o.scan.funcs)
			o.scan.gap = func(pc uint64) uint64 { return gapEnd(src.segs, pc) }
			shown := 0
			c := codeComparison{oracle: o, kinds: map[string]int{}, report: func(kind string, pc uint64, s *codeState, r *frameState) {
				if kind == diffNoFP || kind == diffLost {
					return
				}
				if shown++; shown <= 10 {
					f := o.scan.funcs[o.scan.find(pc)]
					t.Logf("%s at %#x of %#x (found by %d): %+v, CFI has %+v", kind, pc, f.begin, f.by, *s, oracleText(AMD64, r))
				}
			}}
			o.scan.visit = c.visit
			o.scan.run()
			wrong := c.kinds[diffCFA] + c.kinds[diffReg] + c.kinds[diffFP]
			n := len(o.scan.funcs)
			t.Logf("%s: %d functions exported, %d in all, of %d; %d instructions compared, %d wrong", path, begin, n, len(all), c.n, wrong)
			if wrong*10_000 > c.n || n <= begin {
				t.Errorf("too many differ, or none were found: %v", c.kinds)
			}
		})
	}
}
