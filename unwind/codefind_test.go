// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"testing"

	"github.com/lowflame/lowflame/internal/testutil"
)

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
			exports := codeSyms{o: testutil.OpenObject(t, path), segEnd: src.code}
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
