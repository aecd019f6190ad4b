// SPDX-License-Identifier: Apache-2.0

package unwindcheck

import (
	"testing"

	"github.com/lowflame/lowflame/internal/readelf"
	"github.com/lowflame/lowflame/unwind"
)

// TestReadelf compares the tables of real libraries with readelf.
func TestReadelf(t *testing.T) {
	for _, f := range Files {
		t.Run(f.Name, func(t *testing.T) {
			path := f.Path()
			if path == "" {
				t.Skipf("%s is not installed", f.Pattern)
			}
			res, err := Compare(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range res.Examples {
				t.Error(e)
			}
			if res.Differ > 0 || res.Rows < f.MinRows {
				t.Fatalf("%d of %d rows differ, want none of at least %d", res.Differ, res.Rows, f.MinRows)
			}
			excluded := 0
			for reason, n := range res.Excluded {
				excluded += n
				t.Logf("%d excluded: %s", n, reason)
			}
			// The encoding is missing something if it is more than the odd row.
			if excluded > res.Rows/20 {
				t.Errorf("%d of %d rows are excluded", excluded, res.Rows)
			}
			t.Logf("%s: %d rows agree", path, res.Rows)
		})
	}
}

// TestFits: what differs is seen.
func TestFits(t *testing.T) {
	row := readelf.Row{PC: 1, End: 2, CFA: "rsp+16", FP: "c-16", RA: "c-8"}
	sp := func(fp uint8, words uint16) unwind.Rule { return unwind.MakeRule(unwind.KindSP, fp, words) }
	tests := []struct {
		name string
		rule unwind.Rule
		row  readelf.Row
		ok   bool
		why  string
	}{
		{"equal", sp(1, 2), row, true, ""},
		{"other offset", sp(1, 3), row, false, ""},
		{"other place of the frame pointer", sp(2, 2), row, false, ""},
		{"frame pointer thought unchanged", sp(unwind.FPSame, 2), row, false, ""},
		{"other register", unwind.MakeRule(unwind.KindFP, 1, 2), row, false, ""},
		{"no rule", 0, row, false, ""},
		{"no caller", unwind.MakeRule(unwind.KindEnd, 0, 0), row, false, endCFA},
		{"PLT entry", unwind.MakeRule(unwind.KindPLT, 0, 11), readelf.Row{CFA: "exp", FP: "u", RA: "c-8"}, true, pltCFA},
		{"PLT entry that is none", unwind.MakeRule(unwind.KindPLT, 0, 11), row, false, pltCFA},
		{"frame pointer lost", sp(unwind.FPUnknown, 2), readelf.Row{CFA: "rsp+16", FP: "vexp", RA: "c-8"}, true, lostFP},
		{"frame pointer lost for no reason", sp(unwind.FPUnknown, 2), readelf.Row{CFA: "rsp+16", FP: "u", RA: "c-8"}, false, ""},
	}
	for _, tt := range tests {
		why, ok := fits(unwind.AMD64, tt.rule, &unwind.Piece{}, tt.row)
		if ok != tt.ok || why != tt.why {
			t.Errorf("%s: %v, %q; want %v, %q", tt.name, ok, why, tt.ok, tt.why)
		}
	}
}
