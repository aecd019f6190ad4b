// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"sort"
	"testing"

	"github.com/lowflame/lowflame/internal/testutil"
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

// newCodeOracle reads a file. Its functions are what the entries of .eh_frame
// cover; those that do not begin as functions do are parts of others.
func newCodeOracle(tb testing.TB, path string) *codeOracle {
	tb.Helper()
	src := elfSources(tb, path)
	o := &codeOracle{}
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
	hdr := parseHdr(src.eh.hdr, src.eh.hdrAddr, src.eh.addr)
	c.run(hdr)
	known := &codeSyms{o: testutil.OpenObject(tb, path), segEnd: src.code}
	known.read(src.segs)
	o.scan.read, o.scan.endless, o.scan.wide = known.code, known.neverReturns, &wideSet{}
	for i := range hdr.n {
		_, off := hdr.entry(i)
		f, ok := c.fde(off)
		if !ok || o.at(f.begin) == nil {
			continue
		}
		if n := len(o.scan.funcs); n > 0 && o.scan.funcs[n-1].end > f.begin {
			continue
		}
		o.scan.funcs = append(o.scan.funcs, codeFunc{begin: f.begin, end: f.end, part: !o.begins(f.begin)})
	}
	known.readNames(o.scan.funcs, false)
	known.readImports()
	return o
}

// begins reports whether a function begins at pc, and not a part of one. Those
// that GCC moves may begin with a nop to which the CIE's rules apply.
func (o *codeOracle) begins(pc uint64) bool {
	for _, at := range []uint64{pc, pc + 1} {
		r := o.at(at)
		pushed := at > pc && r != nil && r.cfaOff == 16
		if r == nil || r.cfaReg != x86RSP || r.cfaOff != 8 && !pushed || r.signal || r.fp.how != placeDefault && !pushed || r.ra.how == placeUndefined {
			return false
		}
	}
	return true
}

// at returns the row for pc.
func (o *codeOracle) at(pc uint64) *frameState {
	i := sort.Search(len(o.rows), func(i int) bool { return o.rows[i].pc > pc })
	if i == 0 {
		return nil
	}
	return o.rows[i-1].state
}

// The ways in which a derived state and a row can differ.
const (
	diffCFA   = "CFA"
	diffReg   = "CFA of another register"
	diffFP    = "place of RBP"
	diffNoFP  = "RBP not known" // which ends a walk that needs it
	diffLost  = "not known"     // which ends a walk
	diffMoved = "CFI does not follow the stack pointer"
)

// compare compares a derived state with the row, "" if they agree.
func (s *codeState) compare(r *frameState) string {
	if r.cfaExpr.set() || r.ra.how == placeUndefined {
		return ""
	}
	if s.sp == regUnknown && !s.framed() && s.r10 == regUnknown && s.r11 == regUnknown {
		return diffLost
	}
	got := int32(regUnknown)
	switch r.cfaReg {
	case x86RSP:
		got = s.sp
	case x86RBP:
		got = s.reg(encRBP)
	case encR10, encR11: // DWARF has the same numbers
		got = s.reg(uint8(r.cfaReg))
	}
	switch {
	case got == regUnknown:
		return diffReg
	case int64(got) != r.cfaOff:
		return diffCFA
	case s.fp == regCaller:
		return "" // where it has been saved does not matter
	case s.saved == 0:
		return diffNoFP
	case r.fp.how != placeCFA || int64(s.saved) != -r.fp.off:
		return diffFP
	}
	return ""
}

// codeComparison compares a file's states with its rows.
type codeComparison struct {
	oracle *codeOracle
	kinds  map[string]int
	n      int
	// The instruction before.
	last      codeState
	lastRow   *frameState
	explained bool
	report    func(kind string, pc uint64, s *codeState, r *frameState)
}

// visit compares one instruction.
func (c *codeComparison) visit(pc uint64, s *codeState) {
	r := c.oracle.at(pc)
	if r == nil {
		return
	}
	c.n++
	kind := s.compare(r)
	// LLVM and hand-written code forget to say that an instruction moved RSP:
	// LLVM between add $n, %rsp in an epilogue and a pop of another block, glibc's
	// multiplication of numbers throughout. Up to the next row they are wrong.
	moved := r == c.lastRow && (c.explained || c.last.compare(r) == "" && c.last.sp != s.sp)
	c.explained = kind == diffCFA && moved
	if c.explained {
		kind = diffMoved
	}
	// longjmp: glibc describes the frame that it returns to.
	if kind == diffReg && r.cfaReg != x86RSP && r.cfaReg != x86RBP {
		kind = diffMoved
	}
	c.last, c.lastRow = *s, r
	c.kinds[kind]++
	if kind != "" && kind != diffMoved {
		c.report(kind, pc, s, r)
	}
}

// codeOracleFiles are binaries of GCC, LLVM, rustc and hands. functions is how
// many functions they have at least.
var codeOracleFiles = []struct {
	name, path string
	functions  int
}{
	{"libc", "/usr/lib/x86_64-linux-gnu/libc.so.6", 3_000},
	{"libm", "/usr/lib/x86_64-linux-gnu/libm.so.6", 800},
	{"ld.so", "/lib64/ld-linux-x86-64.so.2", 200},
	{"libstdc++", "/usr/lib/x86_64-linux-gnu/libstdc++.so.6", 4_000},
	{"git", "/usr/bin/git", 5_000},
	{"bash", "/bin/bash", 2_000},
	{"Rust's library", "/usr/lib/x86_64-linux-gnu/libstd-*.so", 4_000},
	{"python", "/usr/bin/python3.11", 6_000},
	{"LLVM", "/usr/lib/llvm-19/lib/LLVMPolly.so", 2_000},
}

// TestCodeScanOracle derives rules for functions that have call frame
// information, without looking at that, and compares the two at every
// instruction.
func TestCodeScanOracle(t *testing.T) {
	for _, tt := range codeOracleFiles {
		t.Run(tt.name, func(t *testing.T) {
			compareCode(t, library(t, tt.path), tt.functions)
		})
	}
	for name, cmd := range map[string][]string{
		"gcc O0":   {"gcc", "-O0"},
		"gcc O2":   {"gcc", "-O2", "-fstack-clash-protection"},
		"gcc rbp":  {"gcc", "-O2", "-fno-omit-frame-pointer"},
		"clang O2": {"clang-19", "-O2"},
		"clang O0": {"clang-19", "-O0"},
	} {
		t.Run(name, func(t *testing.T) {
			compareCode(t, build(t, "bare", append(append([]string{}, cmd...), "-w", "-o", "OUT", "bare.c")...), 14)
		})
	}
}

// compareCode does so for one file.
func compareCode(t *testing.T, path string, atLeast int) {
	t.Helper()
	o := newCodeOracle(t, path)
	shown := map[string]int{}
	c := codeComparison{oracle: o, kinds: map[string]int{}, report: func(kind string, pc uint64, s *codeState, r *frameState) {
		if shown[kind]++; shown[kind] <= 5 {
			f := o.scan.funcs[o.scan.find(pc)]
			t.Logf("%s at %#x of %#x: %+v, CFI has %+v", kind, pc, f.begin, *s, oracleText(AMD64, r))
		}
	}}
	o.scan.visit = c.visit
	o.scan.run()
	n, up, partsUp := 0, 0, 0
	for i := range o.scan.funcs {
		switch f := &o.scan.funcs[i]; {
		case f.part && !f.ok:
			partsUp++
		case !f.part:
			if n++; !f.ok {
				up++
				t.Logf("given up: %#x, %d bytes", f.begin, f.end-f.begin)
			}
		}
	}
	wrong := c.kinds[diffCFA] + c.kinds[diffReg] + c.kinds[diffFP]
	lost := c.kinds[diffNoFP] + c.kinds[diffLost]
	t.Logf("%s: %d instructions compared, %d wrong, %d not known, %d where CFI is wrong; %d of %d functions given up, and %d parts",
		path, c.n, wrong, lost, c.kinds[diffMoved], up, n, partsUp)
	if wrong*10_000 > c.n || lost*1000 > c.n || c.kinds[diffMoved]*1000 > c.n || up*100 > n || n < atLeast {
		t.Errorf("too many differ, or too few are there: %v", c.kinds)
	}
}
