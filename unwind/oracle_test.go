// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"bufio"
	"bytes"
	"fmt"
	"os/exec"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/lowflame/lowflame/stack"
)

// oracleRow is a row as readelf prints it: columns that readelf leaves out,
// prints as undefined, or as the same value are "u".
type oracleRow struct {
	pc, end     uint64 // end of what the row covers
	cfa, fp, ra string
}

// readelfRows runs readelf --debug-dump=frames-interp and returns the rows of
// all entries in executable memory, by PC.
func readelfRows(t *testing.T, path, section string, code func(uint64) uint64) []oracleRow {
	t.Helper()
	// The status is 1 if a separate debug file is missing.
	out, err := exec.Command("readelf", "--debug-dump=frames-interp", path).Output()
	if len(out) == 0 {
		t.Fatalf("readelf: %v", err)
	}
	p := oracleParser{cies: map[string]oracleRow{}, raRegs: map[string]string{}, code: code, section: section}
	sc := bufio.NewScanner(bytes.NewReader(out))
	for sc.Scan() {
		if err := p.line(sc.Text()); err != nil {
			t.Fatalf("readelf line %q: %v", sc.Text(), err)
		}
	}
	p.flush()
	sort.SliceStable(p.rows, func(i, j int) bool { return p.rows[i].pc < p.rows[j].pc })
	return p.rows
}

// oracleParser parses readelf's output.
type oracleParser struct {
	section string
	on      bool // in that section
	code    func(uint64) uint64
	cies    map[string]oracleRow // by offset: the initial row
	raReg   string               // of the CIE, and by its offset
	raRegs  map[string]string
	cie     string // offset of the CIE being read, "" in an FDE
	initial oracleRow
	columns []string
	begin   uint64
	end     uint64
	entry   []oracleRow
	rows    []oracleRow
}

var (
	oracleHead = regexp.MustCompile(`^([0-9a-f]+) [0-9a-f]+ [0-9a-f]+ (CIE|FDE)(?: cie=([0-9a-f]+) pc=([0-9a-f]+)\.\.([0-9a-f]+)| .* ra=(\d+))?`)
	// A register rule is two words, "r10 (r10)".
	oracleReg = regexp.MustCompile(` r(\d+) \(\w+\)`)
)

func (p *oracleParser) line(l string) error {
	if strings.HasPrefix(l, "Contents of the ") {
		p.flush()
		p.on = strings.HasPrefix(l, "Contents of the "+p.section+" ")
		return nil
	}
	if !p.on || l == "" {
		return nil
	}
	if m := oracleHead.FindStringSubmatch(l); m != nil {
		p.flush()
		p.columns, p.cie = nil, ""
		if m[2] == "CIE" {
			p.cie = m[1]
			p.raReg, p.raRegs[m[1]] = m[6], m[6]
			p.cies[p.cie] = p.unsaved(oracleRow{cfa: "u", fp: "u", ra: "u"})
			return nil
		}
		var ok bool
		if p.initial, ok = p.cies[m[3]]; !ok {
			return fmt.Errorf("no CIE %s", m[3])
		}
		p.raReg = p.raRegs[m[3]]
		p.begin, _ = strconv.ParseUint(m[4], 16, 64)
		p.end, _ = strconv.ParseUint(m[5], 16, 64)
		return nil
	}
	f := strings.Fields(oracleReg.ReplaceAllString(l, " reg$1"))
	if len(f) > 0 && f[0] == "LOC" {
		p.columns = f
		return nil
	}
	if p.columns == nil || len(f) != len(p.columns) || f[1] == "ZERO" {
		return nil
	}
	return p.row(f)
}

func (p *oracleParser) row(f []string) error {
	pc, err := strconv.ParseUint(f[0], 16, 64)
	if err != nil {
		return err
	}
	r := oracleRow{pc: pc, cfa: f[1], fp: "u", ra: "u"}
	for i, c := range p.columns {
		v := f[i]
		if v == "s" {
			v = "u"
		}
		switch c {
		case "rbp", "x29":
			r.fp = v
		case "ra":
			r.ra = v
		}
	}
	r = p.unsaved(r)
	if p.cie != "" {
		p.cies[p.cie] = r
		return nil
	}
	p.entry = append(p.entry, r)
	return nil
}

// unsaved completes a row of an entry whose return address column is not the
// usual register: without a rule the address is in that register
// (.cfi_return_column).
func (p *oracleParser) unsaved(r oracleRow) oracleRow {
	if p.raReg != "16" && p.raReg != "30" && r.ra == "u" {
		r.ra = "reg" + p.raReg
	}
	return r
}

// flush ends an entry.
func (p *oracleParser) flush() {
	if p.end > p.begin && p.code(p.begin) != 0 {
		if len(p.entry) == 0 { // readelf prints no row if all is as in the CIE
			r := p.initial
			r.pc = p.begin
			p.entry = append(p.entry, r)
		}
		for i, r := range p.entry {
			r.end = p.end
			if i+1 < len(p.entry) {
				r.end = p.entry[i+1].pc
			}
			if r.end > r.pc && r.pc < p.end {
				p.rows = append(p.rows, r)
			}
		}
	}
	p.entry, p.begin, p.end = p.entry[:0], 0, 0
}

// oracleText writes a parsed row the way readelf does.
func oracleText(arch Arch, s *frameState) oracleRow {
	reg := func(r *regRule) string {
		switch r.how {
		case placeCFA:
			return fmt.Sprintf("c%+d", r.off)
		case placeValCFA:
			return fmt.Sprintf("v%+d", r.off)
		case placeReg:
			return fmt.Sprintf("reg%d", r.off)
		case placeExpr:
			return "exp"
		case placeValExpr:
			return "vexp"
		}
		return "u"
	}
	cfa := "exp"
	if s.cfaExpr == nil {
		cfa = fmt.Sprintf("%s%+d", regName(arch, s.cfaReg), s.cfaOff)
	}
	return oracleRow{cfa: cfa, fp: reg(&s.fp), ra: reg(&s.ra)}
}

// regName is readelf's name of a DWARF register.
func regName(arch Arch, n uint32) string {
	if arch == ARM64 {
		if n == 31 {
			return "sp"
		}
		return fmt.Sprintf("x%d", n)
	}
	names := []string{"rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp"}
	if int(n) < len(names) {
		return names[n]
	}
	return fmt.Sprintf("r%d", n)
}

// oracleFiles are real libraries of several compilers, sizes and languages.
var oracleFiles = []struct {
	name     string
	patterns []string
	minRows  int
	section  string
}{
	{"libc", []string{"/usr/lib/x86_64-linux-gnu/libc.so.6"}, 20_000, ".eh_frame"},
	{"libstdc++", []string{"/usr/lib/x86_64-linux-gnu/libstdc++.so.6"}, 25_000, ".eh_frame"},
	{"libcrypto, hand-written assembly", []string{"/usr/lib/x86_64-linux-gnu/libcrypto.so.3"}, 50_000, ".eh_frame"},
	{"libLLVM", libLLVM, 500_000, ".eh_frame"},
	{"node, frame pointers", []string{"/usr/bin/node"}, 250_000, ".eh_frame"},
	{"aarch64 libc", []string{"/usr/aarch64-linux-gnu/lib/libc.so.6"}, 15_000, ".eh_frame"},
	{"aarch64 libstdc++", []string{"/usr/aarch64-linux-gnu/lib/libstdc++.so.6"}, 20_000, ".eh_frame"},
}

// TestReadelf compares every row of real libraries with readelf: the rows of
// the parser, and the rules of the encoded table at both ends of each row.
func TestReadelf(t *testing.T) {
	for _, tt := range oracleFiles {
		t.Run(tt.name, func(t *testing.T) {
			path := library(t, tt.patterns...)
			src := elfSources(t, path)
			src.debug = nil
			want := readelfRows(t, path, tt.section, src.code)
			if len(want) < tt.minRows {
				t.Fatalf("readelf prints %d rows of %s, want at least %d", len(want), path, tt.minRows)
			}
			compareRows(t, src, want)
			table, err := src.table()
			if err != nil {
				t.Fatal(err)
			}
			compareTable(t, table, want)
			t.Logf("%s: %d rows agree", path, len(want))
		})
	}
}

// compareRows compares what the parser says of each PC where a row begins.
func compareRows(t *testing.T, src *sources, want []oracleRow) {
	t.Helper()
	got := map[uint64]oracleRow{}
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
		g := got[w.pc]
		g.pc, g.end = w.pc, w.end
		if g != w {
			if bad++; bad <= 10 {
				t.Errorf("row at %#x: got %+v, readelf has %+v", w.pc, g, w)
			}
		}
	}
	if bad > 0 {
		t.Fatalf("%d of %d rows differ", bad, len(want))
	}
}

// compareTable compares the encoded table at both ends of each row.
func compareTable(t *testing.T, table *Table, want []oracleRow) {
	t.Helper()
	bad, wide := 0, 0
	for _, w := range want {
		for _, pc := range []uint64{w.pc, w.end - 1} {
			r, p := table.Lookup(stack.LinkAddr(pc))
			if r.Kind() == KindWide {
				wide++
			}
			if ok := ruleFits(table.Arch, r, p, w); !ok {
				if bad++; bad <= 10 {
					t.Errorf("table at %#x: kind %d fp %d off %d for %+v", pc, r.Kind(), r.FP(), r.Off(), w)
				}
			}
		}
	}
	if bad > 0 {
		t.Fatalf("%d look-ups differ", bad)
	}
	// Wide rules are for the odd row, or the encoding is missing something.
	if wide > 2*len(want)/10 {
		t.Errorf("%d of %d look-ups give wide rules", wide, 2*len(want))
	}
}

// ruleFits reports whether r says what w says. What readelf does not print,
// the contents of expressions, is left to TestPack.
func ruleFits(arch Arch, r Rule, p *Piece, w oracleRow) bool {
	switch r.Kind() {
	case KindEnd:
		return w.ra == "u"
	case KindPLT, KindSignal:
		return w.cfa == "exp" && (w.ra == "c-8" || r.Kind() == KindSignal)
	case KindWide:
		return wideFits(arch, p.WideRule(r.Off()), w)
	}
	base, fpReg := "rsp", uint32(x86RBP)
	if arch == ARM64 {
		base, fpReg = "sp", arm64FP
	}
	if r.Kind() == KindFP {
		base = regName(arch, fpReg)
	} else if r.Kind() != KindSP {
		return false
	}
	if w.cfa != fmt.Sprintf("%s%+d", base, 8*int(r.Off())) {
		return false
	}
	at := -8 * (int(r.FP()) + 1)
	if arch == ARM64 {
		switch r.FP() {
		case FPSame:
			return w.fp == "u" && w.ra == "u"
		case FPRecordAtBase:
			at = -8 * int(r.Off())
		}
		return w.fp == fmt.Sprintf("c%+d", at) && w.ra == fmt.Sprintf("c%+d", at+8)
	}
	switch r.FP() {
	case FPSame:
		return w.fp == "u" && w.ra == "c-8"
	case FPUnknown:
		return w.fp != "u" && w.ra == "c-8"
	}
	return w.fp == fmt.Sprintf("c%+d", at) && w.ra == "c-8"
}

// wideFits is ruleFits for a wide rule.
func wideFits(arch Arch, wide Wide, w oracleRow) bool {
	if wide.RA == WhereUnknown {
		// Not expressible: only rows with an expression, or with a return
		// address that has no rule where the machine needs one.
		return w.cfa == "exp" || w.fp == "exp" || w.ra == "exp" || w.ra == "vexp" || w.ra == "u"
	}
	reg := func(how Where, arg int32) string {
		switch how {
		case WhereCFA:
			return fmt.Sprintf("c%+d", arg)
		case WhereReg:
			return fmt.Sprintf("reg%d", arg)
		case WhereFP:
			return "exp"
		}
		return "u"
	}
	if wide.FP != WhereUnknown && w.fp != reg(wide.FP, wide.FPArg) {
		if w.fp != "exp" { // an expression may have become an offset from the CFA
			return false
		}
	}
	if w.ra != reg(wide.RA, wide.RAArg) {
		return false
	}
	if wide.Deref {
		return w.cfa == "exp"
	}
	return w.cfa == "exp" || w.cfa == fmt.Sprintf("%s%+d", regName(arch, uint32(wide.Reg)), wide.CFAOff)
}
