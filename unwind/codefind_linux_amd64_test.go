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
