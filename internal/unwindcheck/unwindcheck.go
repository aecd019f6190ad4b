// SPDX-License-Identifier: Apache-2.0

// Package unwindcheck compares unwind tables with readelf, row by row.
package unwindcheck

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/lowflame/lowflame/internal/readelf"
	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/unwind"
)

// File is a real binary to compare.
type File struct {
	Name    string
	Pattern string // of its path
	MinRows int    // that it has at least
}

// Files are libraries and programs of several compilers, sizes and languages.
var Files = []File{
	{"libc", "/usr/lib/x86_64-linux-gnu/libc.so.6", 20_000},
	{"libstdc++", "/usr/lib/x86_64-linux-gnu/libstdc++.so.6", 25_000},
	{"libcrypto, hand-written assembly", "/usr/lib/x86_64-linux-gnu/libcrypto.so.3", 50_000},
	{"libLLVM", "/usr/lib/x86_64-linux-gnu/libLLVM*.so*", 500_000},
	{"node, frame pointers", "/usr/bin/node", 250_000},
	{"aarch64 libc", "/usr/aarch64-linux-gnu/lib/libc.so.6", 15_000},
	{"aarch64 libstdc++", "/usr/aarch64-linux-gnu/lib/libstdc++.so.6", 20_000},
}

// Path returns the path of f, the largest if there are several; "" if it is not
// installed.
func (f File) Path() string {
	found, _ := filepath.Glob(f.Pattern)
	best, size := "", int64(0)
	for _, p := range found {
		path, err := filepath.EvalSymlinks(p)
		if err != nil {
			continue
		}
		if info, err := os.Stat(path); err == nil && info.Size() > size {
			best, size = path, info.Size()
		}
	}
	return best
}

// Result is the outcome of a comparison.
type Result struct {
	Rows int // that readelf prints of executable memory
	// Excluded counts those of which not everything was compared, by what was not
	// and why. Of such a row everything else agrees.
	Excluded map[string]int
	// Differ counts those that disagree, Examples are some of them.
	Differ   int
	Examples []string
}

const maxExamples = 10

// Compare compares the table that unwind.Build makes of a file with every row that
// readelf prints of its .eh_frame, at both ends of the row.
func Compare(ctx context.Context, path string) (*Result, error) {
	o, f, err := objfile.OpenFile(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	table, err := unwind.Build(o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	rows, err := readelf.Rows(ctx, path, ".eh_frame")
	if err != nil {
		return nil, err
	}
	res := &Result{Excluded: map[string]int{}}
	for _, row := range rows {
		if executable(o, row.PC) {
			res.row(table, row)
		}
	}
	if res.Rows == 0 {
		return nil, errors.New(path + ": readelf prints no rows")
	}
	return res, nil
}

func executable(o *objfile.Object, pc uint64) bool {
	for _, s := range o.Segments {
		if s.Exec && pc >= uint64(s.Addr) && pc-uint64(s.Addr) < s.FileSize {
			return true
		}
	}
	return false
}

// row compares one row.
func (res *Result) row(table *unwind.Table, want readelf.Row) {
	res.Rows++
	reasons := [2]string{}
	for i, pc := range []uint64{want.PC, want.End - 1} {
		rule, piece := table.Lookup(stack.LinkAddr(pc))
		reason, ok := fits(table.Arch, rule, piece, want)
		if !ok {
			res.Differ++
			if len(res.Examples) < maxExamples {
				res.Examples = append(res.Examples, fmt.Sprintf("%#x: %v, readelf has %+v", pc, rule.Text(table.Arch, piece), want))
			}
			return
		}
		reasons[i] = reason
	}
	if reasons[0] != "" {
		res.Excluded[reasons[0]]++
	}
}

// What may not be compared, and why.
const (
	endCFA    = "CFA of an outermost frame: the return address is undefined, so it is not kept"
	pltCFA    = "CFA of a PLT entry: readelf prints \"exp\"; recognized byte by byte, and tested"
	signalRow = "CFA of a signal trampoline: readelf prints \"exp\"; the kernel's frame layout is used"
	derefCFA  = "CFA of a load and an addition: readelf prints \"exp\"; decoded, and tested"
	derefFP   = "frame pointer at an address: readelf prints \"exp\"; decoded, and tested"
	lostExp   = "no rule can say it: an expression that is neither; walks end with UNSUPPORTED_RULE"
	lostRA    = "no rule can say it: the return address has no rule, or none relative to the CFA; walks end with UNSUPPORTED_RULE"
	lostFP    = "frame pointer not at a fixed place: taken for lost"
)

// fits reports whether a rule says what readelf says, and if not everything could
// be compared, what and why.
func fits(arch unwind.Arch, r unwind.Rule, p *unwind.Piece, want readelf.Row) (string, bool) {
	got := r.Text(arch, p)
	if got == (unwind.RowText{CFA: want.CFA, FP: want.FP, RA: want.RA}) {
		return "", true
	}
	exp := want.CFA == "exp"
	switch r.Kind() {
	case unwind.KindEnd:
		return endCFA, want.RA == "u"
	case unwind.KindSignal:
		return signalRow, exp || arch == unwind.ARM64
	case unwind.KindPLT:
		return pltCFA, exp && got.FP == want.FP && got.RA == want.RA
	case unwind.KindWide:
		return wideFits(got, p.WideRule(r.Off()), want)
	}
	if got.FP == "lost" && want.FP != "u" {
		return lostFP, got.CFA == want.CFA && got.RA == want.RA
	}
	return "", false
}

// wideFits is fits for a wide rule w, which got is the text of.
func wideFits(got unwind.RowText, w unwind.Wide, want readelf.Row) (string, bool) {
	if w.RA == unwind.WhereUnknown {
		if want.CFA == "exp" || want.RA == "exp" || want.RA == "vexp" {
			return lostExp, true
		}
		return lostRA, want.RA == "u" || want.RA[0] == 'v'
	}
	if got.RA != want.RA {
		return "", false
	}
	reason := ""
	switch {
	case got.FP == want.FP:
	case want.FP == "exp" && (w.FP == unwind.WhereFP || w.FP == unwind.WhereCFA):
		reason = derefFP // one relative to the CFA's register is relative to the CFA
	case w.FP == unwind.WhereUnknown && want.FP != "u":
		reason = lostFP
	default:
		return "", false
	}
	if got.CFA == want.CFA {
		return reason, true
	}
	return derefCFA, want.CFA == "exp"
}
