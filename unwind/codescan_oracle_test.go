// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"sort"
	"strings"
	"testing"

	"github.com/lowflame/lowflame/objfile"
)

// codeOracle is what call frame information says of a file's functions.
type codeOracle struct {
	scan codeScan
	rows []codeRow // sorted
}

// codeRow is a row of call frame information; state is nil where there is none.
type codeRow struct {
	pc    uint64
	state *frameState
}

// newCodeOracle reads a file. Its functions are the function symbols that call
// frame information covers from their first byte to the last, or in a stripped
// file what its entries cover.
func newCodeOracle(tb testing.TB, path string) *codeOracle {
	tb.Helper()
	src := elfSources(tb, path)
	o := &codeOracle{}
	var fdes []codeFunc
	c := src.eh.reader(src, ".eh_frame", func(pc uint64, s *frameState) {
		var row *frameState
		if s != nil {
			copied := *s
			row = &copied
		}
		if n := len(o.rows); n > 0 && o.rows[n-1].pc == pc {
			o.rows[n-1].state = row
			return
		}
		o.rows = append(o.rows, codeRow{pc, row})
	})
	c.start()
	hdr := parseHdr(src.eh.hdr, src.eh.hdrAddr, src.eh.addr)
	for i := range hdr.n {
		_, off := hdr.entry(i)
		if f, ok := c.fde(off); ok {
			fdes = append(fdes, codeFunc{begin: f.begin, end: f.end})
		}
	}
	c.run(hdr)
	file, err := elf.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer file.Close()
	obj := openObject(tb, path)
	known := &codeSyms{o: obj, segs: src.segs}
	known.read(src.segs)
	known.readImports()
	o.scan.read, o.scan.endless = known.code, known.neverReturns
	syms, _ := file.Symbols()
	parts := map[uint64]bool{}
	for _, s := range syms {
		if strings.Contains(s.Name, ".cold") {
			parts[s.Value] = true
		}
	}
	for _, f := range fdes {
		r := o.at(f.begin)
		if r == nil || len(o.scan.funcs) > 0 && o.scan.funcs[len(o.scan.funcs)-1].end > f.begin {
			continue
		}
		f.part = parts[f.begin] || r.cfaReg != x86RSP || r.cfaOff != 8 || r.signal || r.fp.how != placeDefault || r.ra.how == placeUndefined
		o.scan.funcs = append(o.scan.funcs, f)
	}
	o.scan.wide = &wideSet{}
	return o
}

// openObject opens a file for the duration of a test.
func openObject(tb testing.TB, path string) *objfile.Object {
	tb.Helper()
	f, err := os.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	if err != nil {
		tb.Fatal(err)
	}
	o, err := objfile.Open(f, st.Size())
	if err != nil {
		tb.Fatal(err)
	}
	return o
}

// at returns the row for pc.
func (o *codeOracle) at(pc uint64) *frameState {
	i := sort.Search(len(o.rows), func(i int) bool { return o.rows[i].pc > pc })
	if i == 0 {
		return nil
	}
	return o.rows[i-1].state
}

// compare compares a derived state with the row, "" if they agree.
func (s *codeState) compare(r *frameState) string {
	if r.cfaExpr != nil || r.ra.how == placeUndefined {
		return ""
	}
	if s.sp == regUnknown && s.reg(encRBP) == regUnknown {
		return "lost"
	}
	got := int32(regUnknown)
	switch r.cfaReg {
	case x86RSP:
		got = s.sp
	case x86RBP:
		got = s.reg(encRBP)
	}
	if got == regUnknown {
		return "other register"
	}
	if int64(got) != r.cfaOff {
		return fmt.Sprintf("CFA")
	}
	switch r.fp.how {
	case placeDefault, placeSame:
		if s.fp != regCaller {
			if s.saved != 0 {
				return "RBP same/saved"
			}
			return "RBP same/unknown"
		}
	case placeCFA:
		switch {
		case s.fp == regCaller:
		case s.saved == 0:
			return "RBP lost"
		case int64(s.saved) != -r.fp.off:
			return "RBP saved elsewhere"
		}
	}
	return ""
}

func TestCodeScanOracle(t *testing.T) {
	files := strings.Fields(os.Getenv("FILES"))
	if len(files) == 0 {
		files = []string{"/usr/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib/x86_64-linux-gnu/libstdc++.so.6", "/usr/bin/git", "/bin/bash"}
	}
	for _, path := range files {
		o := newCodeOracle(t, path)
		kinds := map[string]int{}
		shown := map[string]int{}
		n := 0
		o.scan.visit = func(pc uint64, s *codeState) {
			r := o.at(pc)
			if r == nil {
				return
			}
			n++
			k := s.compare(r)
			kinds[k]++
			if k != "" && shown[k] < 12 {
				shown[k]++
				var b bytes.Buffer
				fmt.Fprintf(&b, "%s %#x in %#x: %+v, CFI %v", k, pc, o.scan.funcs[o.scan.find(pc)].begin, *s, oracleText(AMD64, r))
				t.Log(b.String())
			}
		}
		o.scan.run()
		up, text, okText, parts, unpart := 0, 0, 0, 0, 0
		for i := range o.scan.funcs {
			f := &o.scan.funcs[i]
			text += int(f.end - f.begin)
			switch {
			case f.ok:
				okText += int(f.end - f.begin)
			case f.part:
				unpart++
			default:
				up++
				if up < 20 {
					t.Logf("given up %#x %d", f.begin, f.end-f.begin)
				}
			}
			if f.part {
				parts++
			}
		}
		t.Logf("%s: %d functions, %d given up; %d parts, %d given up; text %d of %d; %d instructions, %v", path, len(o.scan.funcs)-parts, up, parts, unpart, okText, text, n, kinds)
	}
}
