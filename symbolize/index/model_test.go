// SPDX-License-Identifier: Apache-2.0

package index

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/symbolize/dwarf"
)

// modelSymbol is a symbol as the model knows it.
type modelSymbol struct {
	begin, end stack.LinkAddr
	name       string
}

// model answers as an index must, from the units themselves.
type model struct {
	units   []*dwarf.Unit
	symbols [][]modelSymbol
	// runBytes is what the writer sorts in memory, if not 0.
	runBytes int
}

func (m *model) lookup(addr stack.LinkAddr) []Line {
	var lines []Line
	for _, u := range m.units {
		if s := modelScope(u, addr); s >= 0 {
			lines = modelChain(u, s, modelRow(u, addr))
			break
		}
	}
	for _, u := range m.units {
		if row := modelRow(u, addr); lines == nil && (row.File != "" || row.Line != 0) {
			lines = []Line{row}
		}
	}
	for _, table := range m.symbols {
		for _, s := range table {
			if s.begin <= addr && addr < s.end && s.name != "" {
				if lines == nil {
					lines = []Line{{}}
				}
				lines[len(lines)-1].Name = s.name
				return lines
			}
		}
	}
	return lines
}

func modelFile(u *dwarf.Unit, i uint32) string {
	if int(i) < len(u.Files) {
		return u.Files[i]
	}
	return ""
}

// modelRow returns the last row at or before addr.
func modelRow(u *dwarf.Unit, addr stack.LinkAddr) (line Line) {
	for i, l := range u.Lines {
		if l.Addr > addr {
			break
		}
		line = Line{}
		if !l.End && i+1 < len(u.Lines) {
			line = Line{File: modelFile(u, l.File), Line: l.Line}
		}
	}
	return line
}

// modelScope returns the scope painted last at addr: depth first, in order.
func modelScope(u *dwarf.Unit, addr stack.LinkAddr) int {
	found := -1
	var paint func(i, depth int)
	paint = func(i, depth int) {
		for _, r := range u.Scopes[i].Ranges {
			if r.Begin <= addr && addr < r.End && depth <= maxDepth {
				found = i
			}
		}
		for j := i + 1; j < len(u.Scopes); j++ {
			if int(u.Scopes[j].Parent) == i {
				paint(j, depth+1)
			}
		}
	}
	for i := range u.Scopes {
		if u.Scopes[i].Parent < 0 {
			paint(i, 1)
		}
	}
	return found
}

func modelChain(u *dwarf.Unit, scope int, at Line) []Line {
	var lines []Line
	for s := scope; s >= 0; s = int(u.Scopes[s].Parent) {
		c := &u.Scopes[s]
		lines = append(lines, Line{Name: c.Name, File: at.File, Line: at.Line, StartLine: c.DeclLine})
		at = Line{File: modelFile(u, c.CallFile), Line: c.CallLine}
	}
	return lines
}

// write writes an index of m and returns its bytes.
func (m *model) write(t testing.TB) []byte {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "index"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := Create(f, Config{TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if m.runBytes > 0 {
		w.runs.limit = m.runBytes
	}
	for _, u := range m.units {
		if err := w.AddUnit(u); err != nil {
			t.Fatal(err)
		}
	}
	for _, table := range m.symbols {
		err := w.addSymbols(func(yield func(begin, end stack.LinkAddr, name []byte) error) error {
			for _, s := range table {
				if err := yield(s.begin, s.end, []byte(s.name)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// shape is what random units look like.
type shape struct {
	units, scopes, lines int
	space                uint64 // addresses are below
	tame                 bool   // calls lie in their parents, functions do not overlap
}

func randomUnit(rnd *rand.Rand, s shape) *dwarf.Unit {
	u := &dwarf.Unit{Files: []string{""}}
	for i := range 1 + rnd.IntN(9) {
		u.Files = append(u.Files, fmt.Sprintf("/usr/src/pkg%d/file%d.cc", rnd.IntN(3), i))
	}
	file := func() uint32 { return uint32(rnd.IntN(len(u.Files) + 1)) }
	for range rnd.IntN(s.scopes + 1) {
		parent := -1
		if n := len(u.Scopes); n > 0 && rnd.IntN(4) > 0 {
			parent = n - 1 - rnd.IntN(min(n, 3))
		}
		c := dwarf.Scope{Parent: int32(parent), DeclFile: file(), DeclLine: uint32(rnd.IntN(500)),
			CallFile: file(), CallLine: uint32(rnd.IntN(500))}
		if rnd.IntN(20) > 0 {
			c.Name = fmt.Sprintf("_ZN%dname%dEv", rnd.IntN(5), rnd.IntN(200))
		}
		if rnd.IntN(50) == 0 {
			c.DeclLine, c.CallLine = rnd.Uint32(), rnd.Uint32()
		}
		for range rnd.IntN(4) {
			c.Ranges = append(c.Ranges, randomRange(rnd, s, u, parent))
		}
		u.Scopes = append(u.Scopes, c)
	}
	addr := rnd.Uint64N(s.space)
	for range rnd.IntN(s.lines + 1) {
		addr += rnd.Uint64N(s.space/uint64(s.lines) + 2)
		line := dwarf.Line{Addr: stack.LinkAddr(addr), File: file(), Line: uint32(rnd.IntN(30)), End: rnd.IntN(20) == 0}
		if rnd.IntN(40) == 0 {
			line.Line = rnd.Uint32()
		}
		u.Lines = append(u.Lines, line)
	}
	return u
}

func randomRange(rnd *rand.Rand, s shape, u *dwarf.Unit, parent int) dwarf.Range {
	lo, hi := uint64(0), s.space
	if s.tame && parent >= 0 && len(u.Scopes[parent].Ranges) > 0 {
		r := u.Scopes[parent].Ranges[rnd.IntN(len(u.Scopes[parent].Ranges))]
		lo, hi = uint64(r.Begin), uint64(r.End)
	} else if s.tame {
		lo = rnd.Uint64N(s.space)
		hi = lo + s.space/16 + 1
	}
	if hi <= lo {
		return dwarf.Range{}
	}
	a := lo + rnd.Uint64N(hi-lo)
	b := lo + rnd.Uint64N(hi-lo)
	if !s.tame && rnd.IntN(200) == 0 {
		b = rnd.Uint64()
	}
	if a > b && rnd.IntN(10) > 0 {
		a, b = b, a
	}
	return dwarf.Range{Begin: stack.LinkAddr(a), End: stack.LinkAddr(b)}
}

func randomSymbols(rnd *rand.Rand, s shape) (table []modelSymbol) {
	addr := rnd.Uint64N(s.space)
	for range rnd.IntN(100) {
		begin := addr + rnd.Uint64N(s.space/64+2)
		addr = begin + 1 + rnd.Uint64N(s.space/64+2)
		name := fmt.Sprintf("_ZN%dname%dEv", rnd.IntN(5), rnd.IntN(200))
		table = append(table, modelSymbol{stack.LinkAddr(begin), stack.LinkAddr(addr), name})
	}
	return table
}

// randomModel returns a model of units with less than 1<<bits scopes.
func randomModel(rnd *rand.Rand, bits int) (*model, shape) {
	s := shape{units: 1 + rnd.IntN(5), scopes: 1 << rnd.IntN(bits), lines: 1 << rnd.IntN(bits+1),
		space: 16 << rnd.IntN(20), tame: rnd.IntN(2) > 0}
	m := &model{runBytes: rnd.IntN(2) << rnd.IntN(14)}
	for range rnd.IntN(s.units + 1) {
		m.units = append(m.units, randomUnit(rnd, s))
	}
	for range rnd.IntN(3) {
		m.symbols = append(m.symbols, randomSymbols(rnd, s))
	}
	return m, s
}

// addresses returns where something may change in m, those beside, and some between.
func (m *model) addresses(rnd *rand.Rand, space uint64) []stack.LinkAddr {
	addrs := []stack.LinkAddr{0, 1<<64 - 1}
	near := func(a stack.LinkAddr) { addrs = append(addrs, a-1, a, a+1) }
	for _, u := range m.units {
		for _, l := range u.Lines {
			near(l.Addr)
		}
		for _, s := range u.Scopes {
			for _, r := range s.Ranges {
				near(r.Begin)
				near(r.End)
			}
		}
	}
	for _, table := range m.symbols {
		for _, s := range table {
			near(s.begin)
			near(s.end)
		}
	}
	for range 100 {
		addrs = append(addrs, stack.LinkAddr(rnd.Uint64N(2*space)))
	}
	return addrs
}

// check compares an index of m with m.
func (m *model) check(t *testing.T, rnd *rand.Rand, space uint64) {
	t.Helper()
	data := m.write(t)
	x, err := Open(bytes.NewReader(data), int64(len(data)), NewBlocks(64<<10))
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range m.addresses(rnd, space) {
		got, err := x.Lookup(a, nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(m.lookup(a), got); diff != "" {
			t.Fatalf("address %#x (-model +index):\n%s", a, diff)
		}
	}
}

// TestModel compares indexes of random units with what the units say.
func TestModel(t *testing.T) {
	n := uint64(100)
	if testing.Short() {
		n = 60
	}
	for seed := range n {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			m, s := randomModel(rnd, 8)
			m.check(t, rnd, s.space)
		})
	}
}
