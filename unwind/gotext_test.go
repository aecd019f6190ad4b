// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"fmt"
	"testing"

	"github.com/lowflame/lowflame/internal/readelf"
	"github.com/lowflame/lowflame/internal/testutil"
	"github.com/lowflame/lowflame/stack"
)

// buildTable builds the table of a file through objfile.
func buildTable(tb testing.TB, path string) *Table {
	tb.Helper()
	table, err := Build(testutil.OpenObject(tb, path))
	if err != nil {
		tb.Fatal(err)
	}
	return table
}

// TestGoDebugFrame compares the rules of Go code, made from the function table,
// with the CFAs the Go linker writes to .debug_frame.
func TestGoDebugFrame(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run(arch, func(t *testing.T) {
			path := build(t, "plain", "env", "CGO_ENABLED=0", "GOARCH="+arch, "go", "build", "-o", "OUT", "./plain")
			table := buildTable(t, path)
			kinds, bad, agree := map[Kind]int{}, 0, 0
			base, kind := "rsp", KindSP
			if arch == "arm64" {
				base, kind = "sp", KindGo
			}
			rows, err := readelf.Rows(t.Context(), path, ".debug_frame")
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range rows {
				r, _ := table.Lookup(stack.LinkAddr(w.PC))
				kinds[r.Kind()]++
				if r.Kind() != kind {
					continue
				}
				if w.CFA == fmt.Sprintf("%s%+d", base, 8*int(r.Off())) {
					agree++
				} else if bad++; bad < 10 {
					t.Errorf("rule at %#x is %d words, readelf has %+v", w.PC, r.Off(), w)
				}
			}
			t.Logf("%d rows agree, kinds %v", agree, kinds)
			// What is left are the functions that end or switch stacks.
			other := 0
			for k, n := range kinds {
				if k != kind {
					other += n
				}
			}
			if agree < 3000 || other > agree/50 || kinds[KindEnd] < 3 || kinds[KindFPJump] < 2 {
				t.Errorf("%d rows agree, kinds %v", agree, kinds)
			}
		})
	}
}
