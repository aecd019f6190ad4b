// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"fmt"
	"testing"

	"github.com/lowflame/lowflame/internal/readelf"
)

// oracleText writes a parsed row the way readelf does.
func oracleText(arch Arch, s *frameState) readelf.Row {
	reg := func(r *regRule) string {
		switch r.how {
		case placeCFA:
			return fmt.Sprintf("c%+d", r.off)
		case placeValCFA:
			return fmt.Sprintf("v%+d", r.off)
		case placeReg:
			return arch.RegName(uint32(r.off))
		case placeExpr:
			return "exp"
		case placeValExpr:
			return "vexp"
		}
		return "u"
	}
	cfa := "exp"
	if !s.cfaExpr.set() {
		cfa = fmt.Sprintf("%s%+d", arch.RegName(s.cfaReg), s.cfaOff)
	}
	return readelf.Row{CFA: cfa, FP: reg(&s.fp), RA: reg(&s.ra)}
}

// TestReadelfRows compares every row that the parser finds in real libraries with
// readelf's. That their tables say the same is internal/unwindcheck's to test.
func TestReadelfRows(t *testing.T) {
	for _, path := range []string{
		"/usr/lib/x86_64-linux-gnu/libc.so.6",
		"/usr/lib/x86_64-linux-gnu/libcrypto.so.3",
		"/usr/aarch64-linux-gnu/lib/libc.so.6",
	} {
		t.Run(path, func(t *testing.T) {
			src := elfSources(t, library(t, path))
			want, err := readelf.Rows(t.Context(), path, ".eh_frame")
			if err != nil {
				t.Fatal(err)
			}
			if len(want) < 10_000 {
				t.Fatalf("readelf prints %d rows", len(want))
			}
			compareRows(t, src, want)
		})
	}
}

// compareRows compares what the parser says of each PC where a row begins.
func compareRows(t *testing.T, src *sources, want []readelf.Row) {
	t.Helper()
	got := map[uint64]readelf.Row{}
	c := src.eh.reader(src, ".eh_frame", func(pc uint64, s *frameState) {
		if s != nil {
			got[pc] = oracleText(src.arch, s)
		}
	})
	c.run(parseHdr(src.eh.hdr, src.eh.hdrAddr, src.eh.addr))
	if c.err != nil {
		t.Fatal(c.err)
	}
	bad := 0
	for _, w := range want {
		g := got[w.PC]
		g.PC, g.End = w.PC, w.End
		if g != w {
			if bad++; bad <= 10 {
				t.Errorf("row at %#x: got %+v, readelf has %+v", w.PC, g, w)
			}
		}
	}
	if bad > 0 {
		t.Fatalf("%d of %d rows differ", bad, len(want))
	}
}
