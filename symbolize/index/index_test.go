// SPDX-License-Identifier: Apache-2.0

package index

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/symbolize/dwarf"
	"github.com/lowflame/lowflame/symbolize/elfsym"
)

// open opens an index of m.
func (m *model) open(t testing.TB) *Index {
	t.Helper()
	data := m.write(t)
	x, err := Open(bytes.NewReader(data), int64(len(data)), NewBlocks(DefaultBlocks))
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func ranges(addrs ...stack.LinkAddr) (r []dwarf.Range) {
	for i := 0; i < len(addrs); i += 2 {
		r = append(r, dwarf.Range{Begin: addrs[i], End: addrs[i+1]})
	}
	return r
}

func TestLookup(t *testing.T) {
	inlined := &dwarf.Unit{
		Files: []string{"", "a.cc", "b.h"},
		Lines: []dwarf.Line{{Addr: 0x100, File: 1, Line: 10}, {Addr: 0x110, File: 2, Line: 20},
			{Addr: 0x120, File: 1, Line: 0}, {Addr: 0x130, File: 1, Line: 12}, {Addr: 0x200, End: true}},
		Scopes: []dwarf.Scope{
			{Name: "outer", Parent: -1, DeclFile: 1, DeclLine: 9, Ranges: ranges(0x100, 0x180, 0x1000, 0x1010)},
			{Name: "inner", Parent: 0, DeclFile: 2, DeclLine: 19, CallFile: 1, CallLine: 11, Ranges: ranges(0x110, 0x120, 0x1004, 0x1008)},
			{Name: "", Parent: 1, CallFile: 2, CallLine: 21, Ranges: ranges(0x118, 0x120)},
		},
	}
	copied := &dwarf.Unit{
		Files:  []string{"", "copy.cc"},
		Lines:  []dwarf.Line{{Addr: 0x100, File: 1, Line: 1}, {Addr: 0x300, End: true}},
		Scopes: []dwarf.Scope{{Name: "copy", Parent: -1, Ranges: ranges(0x100, 0x180)}, {Name: "more", Parent: -1, Ranges: ranges(0x170, 0x190)}},
	}
	m := &model{units: []*dwarf.Unit{inlined, copied}, symbols: [][]modelSymbol{
		{{0x140, 0x180, "outer.cold"}, {0x2000, 0x2010, "assembly"}},
		{{0x140, 0x150, "second choice"}, {0x190, 0x1a0, "of lines only"}, {0x2010, 0x2020, "memcpy@plt"}},
	}}
	outer := func(line uint32) Line { return Line{"outer", "a.cc", line, 9} }
	for _, c := range []struct {
		name string
		addr stack.LinkAddr
		want []Line
	}{
		{"nothing", 0xff, nil},
		{"a function", 0x100, []Line{outer(10)}},
		{"a call", 0x110, []Line{{"inner", "b.h", 20, 19}, outer(11)}},
		{"a call of a function without a name", 0x118, []Line{{"", "b.h", 20, 0}, {"inner", "b.h", 21, 19}, outer(11)}},
		{"line 0", 0x120, []Line{outer(0)}},
		{"the symbol's name", 0x140, []Line{{"outer.cold", "a.cc", 12, 9}}},
		{"the second unit where the first has no function", 0x180, []Line{{"more", "copy.cc", 1, 0}}},
		{"lines of the first unit", 0x198, []Line{{"of lines only", "a.cc", 12, 0}}},
		{"lines without a symbol", 0x1a0, []Line{{"", "a.cc", 12, 0}}},
		{"lines of the second unit", 0x200, []Line{{"", "copy.cc", 1, 0}}},
		{"a function without lines", 0x1000, []Line{{"outer", "", 0, 9}}},
		{"a call without lines", 0x1007, []Line{{"inner", "", 0, 19}, outer(11)}},
		{"a symbol", 0x200f, []Line{{Name: "assembly"}}},
		{"a symbol of the second table", 0x2010, []Line{{Name: "memcpy@plt"}}},
		{"behind everything", 0x2020, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, m.lookup(c.addr)); diff != "" {
				t.Errorf("the model is wrong (-want +got):\n%s", diff)
			}
			before := []Line{{Name: "before"}}
			got, err := m.open(t).Lookup(c.addr, before)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(append(before, c.want...), got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestSameBytes shows that an index depends on what it is made of and nothing else.
func TestSameBytes(t *testing.T) {
	for seed := range uint64(10) {
		m, _ := randomModel(rand.New(rand.NewPCG(seed, 1)), 8)
		a := m.write(t)
		m.runBytes = 100 // sorting in the file
		if b := m.write(t); !bytes.Equal(a, b) {
			t.Errorf("seed %d: %d and %d bytes differ", seed, len(a), len(b))
		}
	}
}

func TestDepth(t *testing.T) {
	u := &dwarf.Unit{}
	for i := range 10 * maxDepth {
		u.Scopes = append(u.Scopes, dwarf.Scope{Name: fmt.Sprint("f", i), Parent: int32(i) - 1,
			Ranges: ranges(stack.LinkAddr(i), 1<<20)})
	}
	lines, err := (&model{units: []*dwarf.Unit{u}}).open(t).Lookup(1<<19, nil)
	if err != nil || len(lines) != maxDepth || lines[0].Name != "f63" || lines[maxDepth-1].Name != "f0" {
		t.Errorf("%d lines, error %v", len(lines), err)
	}
}

// TestOverlaps has functions cover each other in ways no compiler makes: what it takes
// must not be more than linear.
func TestOverlaps(t *testing.T) {
	const n = 50000
	wide, copies := &dwarf.Unit{}, &dwarf.Unit{}
	for i := range stack.LinkAddr(n) {
		wide.Scopes = append(wide.Scopes, dwarf.Scope{Name: "wide", Parent: -1, Ranges: ranges(i, 1<<30-i)})
		copies.Scopes = append(copies.Scopes, dwarf.Scope{Name: "narrow", Parent: -1, Ranges: ranges(1000*i+n, 1000*i+n+10)})
	}
	m := &model{units: []*dwarf.Unit{copies, wide, wide, copies, wide}}
	x := m.open(t)
	for _, c := range []struct {
		addr stack.LinkAddr
		want string
	}{{n, "narrow"}, {n + 9, "narrow"}, {n + 10, "wide"}, {1000*(n-1) + n, "narrow"}, {1<<30 - 1, "wide"}} {
		lines, err := x.Lookup(c.addr, nil)
		if err != nil || len(lines) != 1 || lines[0].Name != c.want {
			t.Errorf("%#x: %v, error %v", c.addr, lines, err)
		}
	}
}

func TestStrings(t *testing.T) {
	u := &dwarf.Unit{}
	var want []string
	for i := range 3000 {
		// Lengths about those of a block, and prefixes that are shared.
		s := strings.Repeat("x", 37*i%9000) + fmt.Sprint(i)
		if i%500 == 0 {
			s = strings.Repeat("long", maxString) + s
		}
		want = append(want, s[:min(len(s), maxString)])
		a := stack.LinkAddr(16 * i)
		u.Scopes = append(u.Scopes, dwarf.Scope{Name: s, Parent: -1, Ranges: ranges(a, a+16)})
	}
	x := (&model{units: []*dwarf.Unit{u}}).open(t)
	for i, s := range want {
		lines, err := x.Lookup(stack.LinkAddr(16*i), nil)
		if err != nil || len(lines) != 1 || lines[0].Name != s {
			t.Fatalf("string %d of %d bytes: %d lines, error %v", i, len(s), len(lines), err)
		}
	}
}

// TestFile indexes a program and compares the index with what its debug information
// and its symbols say.
func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "shapes")
	if out, err := exec.Command("g++", "-g", "-O2", "-o", path, "../testdata/shapes.cc").CombinedOutput(); err != nil {
		t.Fatalf("compile: %v\n%s", err, out)
	}
	o, f, err := objfile.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m := &model{}
	info, err := dwarf.Open(o, dwarf.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer info.Close()
	err = info.Units(func(u *dwarf.Unit) error {
		m.units = append(m.units, cloneUnit(u))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	table, err := elfsym.Build(o)
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "index"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	w, err := Create(out, Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range m.units {
		if err := w.AddUnit(u); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.AddSymbols(o, table); err != nil {
		t.Fatal(err)
	}
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	var symbols []modelSymbol
	err = table.All(o, func(f elfsym.Func, name []byte) error {
		symbols = append(symbols, modelSymbol{f.Start, f.End, string(name)})
		want, err := table.Name(o, f)
		if err == nil && want != string(name) {
			err = fmt.Errorf("%#x: %q and %q", f.Start, name, want)
		}
		return err
	})
	if err != nil || len(symbols) != table.Len() {
		t.Fatalf("%d of %d symbols, error %v", len(symbols), table.Len(), err)
	}
	m.symbols = append(m.symbols, symbols)
	checkFile(t, m, out)
}

func cloneUnit(u *dwarf.Unit) *dwarf.Unit {
	c := &dwarf.Unit{Files: slices.Clone(u.Files), Lines: slices.Clone(u.Lines), Scopes: slices.Clone(u.Scopes)}
	for i := range c.Scopes {
		c.Scopes[i].Ranges = slices.Clone(c.Scopes[i].Ranges)
	}
	return c
}

func checkFile(t *testing.T, m *model, f *os.File) {
	t.Helper()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	x, err := Open(f, info.Size(), NewBlocks(DefaultBlocks))
	if err != nil {
		t.Fatal(err)
	}
	inlined := 0
	for _, a := range m.addresses(rand.New(rand.NewPCG(1, 1)), 0x4000) {
		got, err := x.Lookup(a, nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(m.lookup(a), got); diff != "" {
			t.Fatalf("address %#x (-model +index):\n%s", a, diff)
		}
		if len(got) > 1 {
			inlined++
		}
	}
	if inlined == 0 {
		t.Error("nothing is inlined in this program")
	}
}

func TestManySymbolTables(t *testing.T) {
	w, err := Create(discard{}, Config{})
	if err != nil {
		t.Fatal(err)
	}
	empty := func(func(begin, end stack.LinkAddr, name []byte) error) error { return nil }
	for range maxSymbols {
		if err := w.addSymbols(empty); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.addSymbols(empty); !errors.Is(err, ErrTooLarge) {
		t.Errorf("one more: %v", err)
	}
	if err := w.Finish(); !errors.Is(err, ErrTooLarge) {
		t.Errorf("finish after an error: %v", err)
	}
	if err := w.AddUnit(simple("late")); err == nil {
		t.Error("a unit can be added to a finished index")
	}
}

type discard struct{}

func (discard) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

// TestWriterMemory adds units without end.
func TestWriterMemory(t *testing.T) {
	w, err := Create(discard{}, Config{TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	u := simple("")
	const perUnit, units = 1000, 300
	peak := uint64(0)
	for i := range units {
		u.Scopes, u.Lines = u.Scopes[:0], u.Lines[:0]
		for j := range perUnit {
			a := stack.LinkAddr(i*perUnit+j) << 8
			u.Scopes = append(u.Scopes, dwarf.Scope{Name: fmt.Sprintf("_ZN%d%dEv%d", i, j, i*j), Parent: -1, DeclLine: uint32(j), Ranges: ranges(a, a+256)})
			for k := range 10 {
				u.Lines = append(u.Lines, dwarf.Line{Addr: a + stack.LinkAddr(k*25), File: 1, Line: uint32(j + 17*k)})
			}
		}
		if err := w.AddUnit(u); err != nil {
			t.Fatal(err)
		}
		if i%50 == 49 {
			runtime.GC()
			var s runtime.MemStats
			runtime.ReadMemStats(&s)
			peak = max(peak, s.HeapAlloc)
		}
	}
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	// 8 MiB of pieces with 4 of their index, 12 bytes for each name, twice while
	// that grows, and what the test itself takes.
	if peak > 32<<20 {
		t.Errorf("%d MiB for %d functions", peak>>20, perUnit*units)
	}
	if len(w.runs.ends) < 2 {
		t.Errorf("%d runs: the test is too small to show anything", len(w.runs.ends))
	}
}

// cut is a file that is cut off while it is read.
type cut struct {
	*bytes.Reader
	size int64
}

func (c *cut) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > c.size {
		return 0, io.EOF
	}
	return c.Reader.ReadAt(p, off)
}

func TestCutOff(t *testing.T) {
	data := (&model{units: []*dwarf.Unit{simple("f")}}).write(t)
	for n := range len(data) {
		if _, err := Open(bytes.NewReader(data[:n]), int64(n), NewBlocks(0)); !errors.Is(err, ErrFormat) {
			t.Fatalf("%d of %d bytes: %v", n, len(data), err)
		}
	}
	c := &cut{bytes.NewReader(data), int64(len(data))}
	x, err := Open(c, c.size, NewBlocks(0))
	if err != nil {
		t.Fatal(err)
	}
	c.size = headerSize
	if lines, err := x.Lookup(0x1800, nil); !errors.Is(err, ErrFormat) || lines != nil {
		t.Errorf("lookup: %v, error %v", lines, err)
	}
}

// TestBlocksBound reads more than the cache holds.
func TestBlocksBound(t *testing.T) {
	m, s := randomModel(rand.New(rand.NewPCG(11, 1)), 10)
	for i := range uint64(40) {
		m.units = append(m.units, randomUnit(rand.New(rand.NewPCG(i, 9)), shape{scopes: 500, lines: 500, space: s.space}))
	}
	data := m.write(t)
	blocks := NewBlocks(16 << 10)
	x, err := Open(bytes.NewReader(data), int64(len(data)), blocks)
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		if _, err := x.Lookup(stack.LinkAddr(rnd.Uint64N(s.space)), nil); err != nil {
			t.Fatal(err)
		}
		sum, n := 0, 0
		for at := blocks.ring.next; at != &blocks.ring; at = at.next {
			sum += cap(at.buf) + slotBytes
			n++
		}
		if sum != blocks.bytes || sum > 16<<10 || n != len(blocks.slots) {
			t.Fatalf("%d bytes, counted as %d; %d blocks, %d in the map", sum, blocks.bytes, n, len(blocks.slots))
		}
	}
	x.forget()
	if blocks.bytes != 0 || len(blocks.slots) != 0 {
		t.Errorf("%d bytes left", blocks.bytes)
	}
}
