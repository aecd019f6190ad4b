// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lowflame/lowflame/stack"
)

// ruleText writes a rule for people.
func ruleText(r Rule, w func(uint16) Wide) string {
	switch r.Kind() {
	case KindSP, KindFP:
		base := map[Kind]string{KindSP: "sp", KindFP: "fp"}[r.Kind()]
		return fmt.Sprintf("%s+%d fp%d", base, 8*int(r.Off()), r.FP())
	case KindWide:
		return fmt.Sprintf("wide %+v", w(r.Off()))
	}
	names := []string{"none", "", "", "plt", "go", "signal", "end", "", "fpwalk", "fpjump"}
	return fmt.Sprintf("%s %d", names[r.Kind()], r.Off())
}

// rowsText writes the rows of call frame information in memory.
func rowsText(t *testing.T, arch Arch, a *cfiAsm) (string, error) {
	t.Helper()
	src := sources{arch: arch, segs: []gap{{0x1000, 0x100000}}}
	name := ".eh_frame"
	if a.debug {
		name = ".debug_frame"
	}
	rows, err := src.collect(&section{data: a.b, addr: a.addr}, name)
	var out []string
	for _, r := range rows {
		out = append(out, fmt.Sprintf("%x %s", r.pc, ruleText(r.rule, func(i uint16) Wide { return src.wide.rules[i] })))
	}
	return strings.Join(out, "\n"), err
}

func TestRows(t *testing.T) {
	const drap = "wide {Reg:6 Deref:true Index:0 RA:1 FP:3 CFAOff:-8 Add:0 RAArg:-8 FPArg:0}"
	const lostText = "wide {Reg:0 Deref:false Index:0 RA:4 FP:4 CFAOff:0 Add:0 RAArg:0 FPArg:0}"
	plt := []byte{0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22}
	bndPLT := []byte{0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x35, 0x2a, 0x33, 0x24, 0x22}
	tests := []struct {
		name  string
		instr []byte
		want  string
	}{
		{"frame pointer prologue and epilogue", []byte{
			cfaAdvanceLoc | 1, cfaDefCFAOffset, 16, cfaOffset | 6, 2,
			cfaAdvanceLoc | 3, cfaDefCFARegister, 6,
			cfaAdvanceLoc1, 40, cfaDefCFA, 7, 8, cfaRestore | 6},
			"2000 sp+8 fp0\n2001 sp+16 fp1\n2004 fp+16 fp1\n202c sp+8 fp0\n2040 none 0"},
		{"remembered state around a return", []byte{
			cfaAdvanceLoc | 1, cfaDefCFAOffset, 32, cfaOffset | 6, 4,
			cfaAdvanceLoc | 8, cfaRememberState, cfaDefCFAOffset, 8,
			cfaAdvanceLoc | 1, cfaRestoreState},
			"2000 sp+8 fp0\n2001 sp+32 fp3\n2009 sp+8 fp3\n200a sp+32 fp3\n2040 none 0"},
		{"lazy PLT", append([]byte{cfaDefCFAOffset, 16, cfaAdvanceLoc | 6, cfaDefCFAOffset, 24, cfaAdvanceLoc | 10},
			expression([]byte{cfaDefCFAExpression}, plt...)...),
			"2000 sp+16 fp0\n2006 sp+24 fp0\n2010 plt 11\n2040 none 0"},
		{"lazy PLT with another threshold", expression([]byte{cfaDefCFAExpression}, bndPLT...), "2000 plt 5\n2040 none 0"},
		{"DRAP", append(append([]byte{cfaAdvanceLoc | 5, cfaDefCFA, 10, 0, cfaAdvanceLoc | 8},
			expression([]byte{cfaExpression, 6}, 0x76, 0)...),
			append([]byte{cfaAdvanceLoc | 2}, expression([]byte{cfaDefCFAExpression}, 0x76, 0x78, 0x06)...)...),
			"2000 sp+8 fp0\n2005 wide {Reg:10 Deref:false Index:0 RA:1 FP:0 CFAOff:0 Add:0 RAArg:-8 FPArg:0}\n" +
				"200d wide {Reg:10 Deref:false Index:0 RA:1 FP:3 CFAOff:0 Add:0 RAArg:-8 FPArg:0}\n200f " + drap + "\n2040 none 0"},
		{"stack pointer saved in memory, OpenSSL", expression([]byte{cfaDefCFAExpression}, 0x77, 0x98, 0x00, 0x06, 0x23, 0x08),
			"2000 wide {Reg:7 Deref:true Index:0 RA:1 FP:0 CFAOff:24 Add:8 RAArg:-8 FPArg:0}\n2040 none 0"},
		{"stack pointer saved in an array in memory, OpenSSL", expression([]byte{cfaDefCFAExpression}, 0x77, 0x08, 0x79, 0x00, 0x38, 0x1e, 0x22, 0x06, 0x23, 0x08),
			"2000 wide {Reg:7 Deref:true Index:10 RA:1 FP:0 CFAOff:8 Add:8 RAArg:-8 FPArg:0}\n2040 none 0"},
		{"the same, its index shifted", expression([]byte{cfaDefCFAExpression}, 0x77, 0x08, 0x70, 0x00, 0x33, 0x24, 0x22, 0x06, 0x23, 0x08),
			"2000 wide {Reg:7 Deref:true Index:1 RA:1 FP:0 CFAOff:8 Add:8 RAArg:-8 FPArg:0}\n2040 none 0"},
		{"the same, its index times 4", expression([]byte{cfaDefCFAExpression}, 0x77, 0x08, 0x79, 0x00, 0x34, 0x1e, 0x22, 0x06, 0x23, 0x08),
			"2000 " + lostText + "\n2040 none 0"},
		{"an index without a load", expression([]byte{cfaDefCFAExpression}, 0x77, 0x08, 0x79, 0x00, 0x38, 0x1e, 0x22),
			"2000 " + lostText + "\n2040 none 0"},
		{"an expression nobody knows", expression([]byte{cfaDefCFAExpression}, 0x77, 0x08, 0x06, 0x06, 0x06),
			"2000 " + lostText + "\n2040 none 0"},
		{"vfork: return address in a register", []byte{cfaAdvanceLoc | 1, cfaDefCFAOffset, 0, cfaRegister, 16, 5},
			"2000 sp+8 fp0\n2001 wide {Reg:7 Deref:false Index:0 RA:2 FP:0 CFAOff:0 Add:0 RAArg:5 FPArg:0}\n2040 none 0"},
		{"thread start: no return address", []byte{cfaUndefined, 16}, "2000 end 0\n2040 none 0"},
		{"frame pointer lost", []byte{cfaUndefined, 6}, "2000 sp+8 fp15\n2040 none 0"},
		{"frame pointer far below the CFA", []byte{cfaOffset | 6, 16}, "2000 wide {Reg:7 Deref:false Index:0 RA:1 FP:1 CFAOff:8 Add:0 RAArg:-8 FPArg:-128}\n2040 none 0"},
		{"frame pointer at the limit of the nibble", []byte{cfaOffset | 6, 15}, "2000 sp+8 fp14\n2040 none 0"},
		{"large frame", []byte{cfaDefCFAOffset, 0xf8, 0xff, 0x1f}, "2000 sp+524280 fp0\n2040 none 0"},
		{"larger frame", []byte{cfaDefCFAOffset, 0x80, 0x80, 0x20},
			"2000 wide {Reg:7 Deref:false Index:0 RA:1 FP:0 CFAOff:524288 Add:0 RAArg:-8 FPArg:0}\n2040 none 0"},
		{"operands of every kind are skipped right", append([]byte{
			cfaGNUArgsSize, 16, cfaGNUNegativeOffset, 3, 1, cfaValOffset, 3, 1, cfaValOffsetSF, 3, 0x7f,
			cfaOffsetExtended, 3, 2, cfaOffsetExtendedSF, 3, 2, cfaSameValue, 3, cfaRestoreExtended, 3, cfaNop},
			append(expression([]byte{cfaValExpression, 3}, 0x77, 0),
				cfaAdvanceLoc2, 2, 0, cfaDefCFAOffset, 16, cfaAdvanceLoc4, 4, 0, 0, 0, cfaDefCFASF, 7, 0x7d, cfaAdvanceLoc|1, cfaDefCFAOffsetSF, 0x7c)...),
			"2000 sp+8 fp0\n2002 sp+16 fp0\n2006 sp+24 fp0\n2007 sp+32 fp0\n2040 none 0"},
		{"rows past the end do not count", []byte{cfaAdvanceLoc1, 0x40, cfaDefCFAOffset, 16}, "2000 sp+8 fp0\n2040 none 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, debug := range []bool{false, true} {
				a := cfiAsm{addr: 0x8000, debug: debug}
				cie := 0
				if debug {
					cie = a.cie(4, "", nil, 16, x86Entry...)
				} else {
					cie = a.cie(1, "zR", []byte{encPCRelS32}, 16, x86Entry...)
				}
				a.fde(cie, 0x2000, 0x40, tt.instr...)
				got, err := rowsText(t, AMD64, &a)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(tt.want, got); d != "" {
					t.Errorf("debug_frame %v (-want +got):\n%s", debug, d)
				}
			}
		})
	}
}

func TestRowsARM64(t *testing.T) {
	tests := []struct {
		name  string
		instr []byte
		want  string
	}{
		{"stp x29, x30, [sp, #-32]!; mov x29, sp", []byte{
			cfaAdvanceLoc | 4, cfaDefCFAOffset, 32, cfaOffset | 29, 4, cfaOffset | 30, 3,
			cfaAdvanceLoc | 4, cfaDefCFARegister, 29},
			"2000 sp+0 fp0\n2004 sp+32 fp3\n2008 fp+32 fp3\n2040 none 0"},
		{"record deeper than the nibble, at the base", []byte{cfaDefCFAOffset, 0x90, 2, cfaOffset | 29, 34, cfaOffset | 30, 33},
			"2000 sp+272 fp14\n2040 none 0"},
		{"record deep inside the frame", []byte{cfaDefCFAOffset, 0xa0, 2, cfaOffset | 29, 34, cfaOffset | 30, 33},
			"2000 wide {Reg:31 Deref:false Index:0 RA:1 FP:1 CFAOff:288 Add:0 RAArg:-264 FPArg:-272}\n2040 none 0"},
		{"only the return address saved", []byte{cfaDefCFAOffset, 16, cfaOffset | 30, 2},
			"2000 wide {Reg:31 Deref:false Index:0 RA:1 FP:0 CFAOff:16 Add:0 RAArg:-16 FPArg:0}\n2040 none 0"},
		{"signed return address", []byte{cfaARM64NegateRAState, cfaAdvanceLoc | 4, cfaARM64NegateRAStatePC, cfaDefCFAOffset, 16},
			"2000 sp+0 fp0\n2004 sp+16 fp0\n2040 none 0"},
		{"no return address", []byte{cfaUndefined, 30}, "2000 end 0\n2040 none 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := cfiAsm{addr: 0x8000}
			a.fde(a.cie(1, "zR", []byte{encPCRelS32}, 30, cfaDefCFA, 31, 0), 0x2000, 0x40, tt.instr...)
			got, err := rowsText(t, ARM64, &a)
			if d := cmp.Diff(tt.want, got); d != "" || err != nil {
				t.Errorf("error %v (-want +got):\n%s", err, d)
			}
		})
	}
}

func TestSignalFrame(t *testing.T) {
	a := cfiAsm{addr: 0x8000}
	cie := a.cie(1, "zRS", []byte{encPCRelS32}, 16)
	a.fde(cie, 0x2000, 0x40, expression([]byte{cfaDefCFAExpression}, 0x77, 0xa0, 0x01, 0x06)...)
	if got, err := rowsText(t, AMD64, &a); got != "2000 signal 0\n2040 none 0" || err != nil {
		t.Errorf("got %q, error %v", got, err)
	}
}

// TestMalformed: what is wrong is named, and other entries are still used.
func TestMalformed(t *testing.T) {
	good := func(a *cfiAsm, cie int) { a.fde(cie, 0x3000, 0x10) }
	const rest = "3000 sp+8 fp0\n3010 none 0"
	tests := []struct {
		name   string
		make   func(a *cfiAsm, cie int)
		want   string
		reason string
	}{
		{"unknown instruction", func(a *cfiAsm, cie int) { a.fde(cie, 0x2000, 0x10, cfaAdvanceLoc|4, 0x3f) },
			"2000 sp+8 fp0\n2004 none 0\n" + rest, "malformed instructions"},
		{"restore without remember", func(a *cfiAsm, cie int) { a.fde(cie, 0x2000, 0x10, cfaRestoreState) },
			"2000 none 0\n" + rest, "malformed instructions"},
		{"remember for ever", func(a *cfiAsm, cie int) {
			a.fde(cie, 0x2000, 0x10, make33(cfaRememberState)...)
		}, "2000 none 0\n" + rest, "malformed instructions"},
		{"expression past the end", func(a *cfiAsm, cie int) { a.fde(cie, 0x2000, 0x10, cfaDefCFAExpression, 0x7f) },
			"2000 none 0\n" + rest, "malformed instructions"},
		{"range wraps around", func(a *cfiAsm, cie int) { a.fde(cie, 0x2000, math.MaxUint64) }, rest, "malformed FDE"},
		{"CIE is an FDE", func(a *cfiAsm, cie int) {
			off := len(a.b)
			a.fde(cie, 0x2000, 0x10)
			a.fde(off, 0x2100, 0x10)
		}, "2000 sp+8 fp0\n2010 none 0\n" + rest, "not a CIE"},
		{"unknown version", func(a *cfiAsm, _ int) {
			a.fde(a.cie(9, "zR", []byte{encPCRelS32}, 16), 0x2000, 0x10)
		}, rest, "malformed CIE"},
		{"indirect address", func(a *cfiAsm, _ int) {
			a.fde(a.cie(1, "zR", []byte{encPCRelS32 | encIndirect}, 16), 0x2000, 0x10)
		}, rest, "malformed FDE"},
		{"overlapping entries: the first wins", func(a *cfiAsm, cie int) {
			a.fde(cie, 0x2000, 0x10)
			a.fde(cie, 0x2008, 0x10, cfaDefCFAOffset, 16)
			a.fde(cie, 0x2004, 0x8, cfaDefCFAOffset, 24)
		}, "2000 sp+8 fp0\n2010 sp+16 fp0\n2018 none 0\n" + rest, ""},
		{"not executable", func(a *cfiAsm, cie int) { a.fde(cie, 0x200000, 0x10) }, rest, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := cfiAsm{addr: 0x8000}
			cie := a.cie(1, "zR", []byte{encPCRelS32}, 16, x86Entry...)
			tt.make(&a, cie)
			good(&a, cie)
			got, err := rowsText(t, AMD64, &a)
			if d := cmp.Diff(strings.TrimSpace(tt.want), got); d != "" {
				t.Errorf("rows (-want +got):\n%s", d)
			}
			var cfiErr *CFIError
			if errors.As(err, &cfiErr) != (tt.reason != "") || cfiErr != nil && cfiErr.Reason != tt.reason {
				t.Errorf("error %v, want %q", err, tt.reason)
			}
		})
	}
}

func make33(b byte) []byte {
	return []byte(strings.Repeat(string(rune(b)), maxRemember+1))
}

// TestHeaderOrder: rows come out in order whatever order the entries have, with
// a header and without, and a header that lies is not believed.
func TestHeaderOrder(t *testing.T) {
	a := cfiAsm{addr: 0x8000}
	cie := a.cie(1, "zR", []byte{encPCRelS32}, 16, x86Entry...)
	offs := map[uint64]int{}
	for _, pc := range []uint64{0x5000, 0x2000, 0x4000, 0x3000} {
		offs[pc] = len(a.b)
		a.fde(cie, pc, 0x1000)
	}
	header := func(entries ...uint64) []byte {
		h := cfiAsm{b: []byte{1, encPCRelS32, encU32, encDataRel | encS32}}
		h.u32(0)
		h.u32(uint32(len(entries) / 2))
		for i, e := range entries {
			if i%2 == 1 {
				e += a.addr
			}
			h.u32(uint32(e - 0x9000))
		}
		return h.b
	}
	at := func(pc uint64) uint64 { return uint64(offs[pc]) }
	for name, hdr := range map[string][]byte{
		"good":              header(0x2000, at(0x2000), 0x3000, at(0x3000), 0x4000, at(0x4000), 0x5000, at(0x5000)),
		"none":              nil,
		"short":             {1, 2},
		"wrong entries":     header(0x2000, at(0x3000), 0x3000, at(0x2000), 0x4000, at(0x4000), 0x5000, at(0x5000)),
		"not sorted":        header(0x5000, at(0x5000), 0x2000, at(0x2000)),
		"outside":           header(0x2000, 1<<30),
		"points at CIE":     header(0x2000, 0),
		"count of millions": {1, encPCRelS32, encU32, encDataRel | encS32, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f},
	} {
		t.Run(name, func(t *testing.T) {
			src := sources{segs: []gap{{0x1000, 0x100000}}}
			rows, err := src.collect(&section{data: a.b, addr: a.addr, hdr: hdr, hdrAddr: 0x9000}, ".eh_frame")
			want := []span{{0x2000, MakeRule(KindSP, 0, 1)}, {0x6000, 0}}
			if d := cmp.Diff(want, rows, cmp.AllowUnexported(span{})); d != "" || err != nil {
				t.Errorf("error %v (-want +got):\n%s", err, d)
			}
		})
	}
}

// TestGlibc: what glibc and GCC are known to write is understood.
func TestGlibc(t *testing.T) {
	path := library(t, "/usr/lib/x86_64-linux-gnu/libc.so.6")
	src := elfSources(t, path)
	src.debug = nil
	table := tableOf(t, src)
	kinds := map[Kind]int{}
	for i := range table.Pieces {
		table.Pieces[i].each(func(_ uint64, r Rule) { kinds[r.Kind()]++ })
	}
	// __restore_rt, the PLT, clone and the thread start.
	if kinds[KindSignal] != 1 || kinds[KindPLT] == 0 || kinds[KindEnd] < 2 || kinds[KindWide] == 0 {
		t.Errorf("kinds %v", kinds)
	}
	for _, s := range symbolsOf(path) {
		if s.Name == "vfork" {
			r, p := table.Lookup(stack.LinkAddr(s.Value + 5))
			if r.Kind() != KindWide || p.WideRule(r.Off()).RA != WhereReg {
				t.Errorf("vfork: %s", ruleText(r, p.WideRule))
			}
		}
	}
}
