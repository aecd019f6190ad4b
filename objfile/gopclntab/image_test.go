// SPDX-License-Identifier: Apache-2.0

package gopclntab

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"reflect"
	"runtime"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/stack"
)

const (
	textAddr = 0x400000
	textSize = 0x1000
	dataAddr = 0x500000
)

// image returns an ELF file without section headers: a page of code and a segment
// of data.
func image(data []byte) []byte {
	progs := []elf.Prog64{
		{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: textAddr, Filesz: textSize, Memsz: textSize},
		{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_W), Off: textSize, Vaddr: dataAddr, Filesz: uint64(len(data)), Memsz: uint64(len(data))},
	}
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: uint16(len(progs))}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	var b bytes.Buffer
	for _, part := range []any{h, progs} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			panic(err)
		}
	}
	b.Write(make([]byte, textSize-b.Len()))
	b.Write(data)
	return b.Bytes()
}

// words appends numbers of the size of their types.
func words(b []byte, values ...any) []byte {
	for _, v := range values {
		var err error
		if b, err = binary.Append(b, binary.LittleEndian, v); err != nil {
			panic(err)
		}
	}
	return b
}

// smallTable returns the data of a program of two functions of 0x20 bytes each:
// main.outer at text+0, which has main.inner inlined at its bytes 8 to 16, whose
// call is at parentPC; and the wrapper main.wrap with main.inner inlined whole.
func smallTable(parentPC uint32) []byte {
	names := []byte("\x00main.outer\x00main.inner\x00main.wrap\x00\x00\x00\x00\x00\x00") // at 1, 12, 23
	units := words(nil, uint32(0))
	files := []byte("dir/a.go\x00\x00\x00\x00")
	// A pc table: zig-zag difference from -1, distance.
	pcs := []byte{0,
		2, 0x20, 0, // 1: 0 all over
		22, 8, 20, 8, 19, 0x10, 0, // 4: 10, 20, 10
		0, 8, 2, 8, 1, 0x10, 0, // 11: -1, 0, -1
		4, 0x20, 0, // 18: 1 all over
		0, 0, 0}
	const fixed = 44 + 3*4 + 4*4
	record := func(entry, name, pcln, index uint32, id uint8, line int32) []byte {
		none := ^uint32(0)
		return words(nil, entry, name, uint32(0), uint32(0), uint32(4), uint32(1), pcln, uint32(3), uint32(0), line,
			id, uint8(FuncFlagTopFrame), uint8(0), uint8(4), uint32(0), uint32(0), index, none, none, none, uint32(0))
	}
	functab := words(nil, uint32(0), uint32(20), uint32(0x20), uint32(20+fixed), uint32(0x40))
	pcln := append(functab, record(0, 1, 4, 11, 0, 5)...)
	pcln = append(pcln, record(0x20, 23, 4, 18, 22, 1)...)
	tree := words(nil, uint32(0), uint32(12), parentPC, int32(18), uint32(0), uint32(12), uint32(0x18), int32(18))
	const start = 72
	parts := [][]byte{names, units, files, pcs, pcln}
	data := words(nil, uint32(magic120), uint16(0), uint8(1), uint8(8), uint64(2), uint64(1), uint64(0))
	var addrs []uint64
	off := uint64(start)
	for _, p := range parts {
		data = words(data, off)
		addrs = append(addrs, dataAddr+off)
		off += uint64(len(p))
	}
	data = append(data, bytes.Join(parts, nil)...)
	data = append(data, make([]byte, -len(data)&7)...)
	module := make([]uint64, moduleWords)
	module[0] = dataAddr
	for i, w := range []int{wordNames, wordUnits, wordFiles, wordPCs, wordPCLn} {
		module[w] = addrs[i]
	}
	module[wordFunctab], module[wordFunctabN] = addrs[4], 3
	module[wordMinPC], module[wordMaxPC], module[wordText] = textAddr+0x100, textAddr+0x140, textAddr+0x100
	module[40] = dataAddr + uint64(len(data)+8*moduleWords)
	return append(words(data, module), tree...)
}

func openImage(t testing.TB, file []byte) (*Table, error) {
	t.Helper()
	o, err := objfile.Open(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	return Open(o)
}

func TestSmallTable(t *testing.T) {
	table, err := openImage(t, image(smallTable(4)))
	if err != nil {
		t.Fatal(err)
	}
	if start, end := table.Text(); start != textAddr+0x100 || end != textAddr+0x140 || table.NumFuncs() != 2 {
		t.Fatalf("Text() = %#x, %#x, %d functions", start, end, table.NumFuncs())
	}
	const text = textAddr + 0x100
	outer := func(line int) Line { return Line{"main.outer", "dir/a.go", line, 5, false} }
	inner := Line{"main.inner", "dir/a.go", 20, 18, false}
	for _, test := range []struct {
		name string
		pc   stack.LinkAddr
		want []Line
	}{
		{"before the code", text - 1, nil},
		{"entry", text, []Line{outer(10)}},
		{"inlined call", text + 8, []Line{inner, outer(10)}},
		{"last byte of it", text + 15, []Line{inner, outer(10)}},
		{"after it", text + 16, []Line{outer(10)}},
		{"inlined into a wrapper", text + 0x28, []Line{inner}},
		{"after the code", text + 0x40, nil},
	} {
		got, err := table.Lines(test.pc)
		if diff := gocmp.Diff(test.want, got); diff != "" || err != nil {
			t.Errorf("%s: Lines(%#x): %v (-want +got)\n%s", test.name, test.pc, err, diff)
		}
	}
	f, ok, err := table.FuncAt(text + 0x3f)
	if !ok || err != nil || f.Entry != text+0x20 || f.End != text+0x40 || f.ID != 22 || f.Flag != FuncFlagTopFrame || f.NPCData != 3 || f.NFuncData != 4 {
		t.Errorf("FuncAt = %+v, %v, %v", f, ok, err)
	}
	if _, err := table.Func(2); !errors.Is(err, objfile.ErrNotFound) {
		t.Errorf("Func(2): %v, want ErrNotFound", err)
	}
	table.Drop()
	if name := table.Name(f); name != "main.wrap" {
		t.Errorf("Name = %q", name)
	}
}

// A parent link that leads into its own range, as some real binaries have it, must
// not loop; nor may other bad links make up frames.
func TestInlineTreesThatLie(t *testing.T) {
	const pc = textAddr + 0x100 + 8
	for _, test := range []struct {
		name     string
		parentPC uint32
		want     []string
	}{
		{"parent is itself", 8, []string{"main.inner", "main.outer"}},
		{"parent is itself at another pc", 15, []string{"main.inner", "main.outer"}},
		{"parent is outside the function", 0x20, []string{"main.outer"}},
		{"parent is before the function", 1<<32 - 8, []string{"main.outer"}},
	} {
		table, err := openImage(t, image(smallTable(test.parentPC)))
		if err != nil {
			t.Fatal(err)
		}
		lines, err := table.Lines(pc)
		var got []string
		for _, l := range lines {
			got = append(got, l.Func)
		}
		if !reflect.DeepEqual(got, test.want) || err != nil {
			t.Errorf("%s: %q, %v; want %q", test.name, got, err, test.want)
		}
	}
}

func TestSPDeltasOfSmallTable(t *testing.T) {
	table, err := openImage(t, image(smallTable(4)))
	if err != nil {
		t.Fatal(err)
	}
	f, err := table.Func(0)
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		End   stack.LinkAddr
		Delta int32
	}
	var got []row
	err = table.SPDeltas(f, func(end stack.LinkAddr, delta int32) bool {
		got = append(got, row{end - f.Entry, delta})
		table.Name(f) // the table is not locked
		return true
	})
	if diff := gocmp.Diff([]row{{8, 10}, {16, 20}, {0x20, 10}}, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
}

func TestNoTable(t *testing.T) {
	for name, data := range map[string][]byte{
		"nothing": nil, "zeros": make([]byte, 5000), "0xff": bytes.Repeat([]byte{0xff}, 5000),
		"headers of nothing": bytes.Repeat(words(nil, uint32(magic120), uint16(0), uint8(1), uint8(8)), 1000),
	} {
		if _, err := openImage(t, image(data)); !errors.Is(err, ErrNoTable) {
			t.Errorf("%s: %v, want ErrNoTable", name, err)
		}
	}
	if _, err := openImage(t, image(smallTable(4)[:200])); err == nil {
		t.Error("half a table opens")
	}
}

// Should moduledata change its layout, symbols tell the little that is needed.
func TestWithoutModuleData(t *testing.T) {
	_, file := builds[0].compile(t, "go")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want, err := openImage(t, data)
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := want.searchPointers()
	if err != nil || len(addrs) != 1 {
		t.Fatalf("moduledata at %#x, %v", addrs, err)
	}
	off, _ := want.o.FileOff(addrs[0])
	data[off+8*wordFunctab] ^= 1
	got, err := openImage(t, data)
	if err != nil {
		t.Fatal(err)
	}
	if got.m != want.m {
		t.Errorf("module %+v, want %+v", got.m, want.m)
	}
	clear(data[0x28:0x30]) // e_shoff: no symbols either
	if _, err := openImage(t, data); err == nil {
		t.Error("opens with neither moduledata nor symbols")
	}
}

// exercise asks a table everything, and little of each.
func exercise(t testing.TB, table *Table) {
	table.Text()
	for i := range min(table.NumFuncs(), 50) {
		f, err := table.Func(i)
		if err != nil {
			continue
		}
		table.Name(f)
		rows := 0
		table.SPDeltas(f, func(stack.LinkAddr, int32) bool { rows++; return rows < 1000 })
		for _, pc := range []stack.LinkAddr{f.Entry, f.Entry + 9, (f.Entry + f.End) / 2, f.End - 1} {
			if lines, _ := table.Lines(pc); len(lines) > maxInline+1 {
				t.Fatalf("%d lines at %#x", len(lines), pc)
			}
		}
	}
}

func FuzzPclntab(f *testing.F) {
	f.Add(smallTable(4))
	f.Add(smallTable(8))
	f.Fuzz(func(t *testing.T, data []byte) {
		if table, err := openImage(t, image(data)); err == nil {
			exercise(t, table)
		}
	})
}

// Mutations of a real program, most of them where the table and moduledata are.
func TestMutations(t *testing.T) {
	_, file := builds[0].compile(t, "go")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := openImage(t, data)
	if err != nil {
		t.Fatal(err)
	}
	module, err := whole.searchPointers()
	if err != nil {
		t.Fatal(err)
	}
	moduleOff, _ := whole.o.FileOff(module[0])
	h := whole.h
	places := []part{{h.off, headerSize}, {int64(moduleOff), 8 * moduleWords}, {h.pcln.off, 4096}, h.pcln, h.pcs, h.names,
		{h.pcln.off + int64(h.nfunc)*8, 4096}, {h.pcs.off, 2000}, {0, 1000}}
	rnd := rand.New(rand.NewPCG(7, 8))
	var worstTime time.Duration
	var worstAlloc uint64
	opened := 0
	for range 400 {
		undo := make(map[int64]byte)
		for range 1 + rnd.IntN(6) {
			p := places[rnd.IntN(len(places))]
			for at, n := p.off+rnd.Int64N(p.size), 1<<rnd.IntN(4); n > 0; at, n = at+1, n-1 {
				if _, ok := undo[at]; !ok {
					undo[at] = data[at]
				}
				data[at] = byte(rnd.Uint32()) | byte(-(rnd.Uint32() & 1))
			}
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		start := time.Now()
		if o, err := objfile.Open(bytes.NewReader(data), int64(len(data))); err == nil {
			if table, err := Open(o); err == nil {
				opened++
				exercise(t, table)
			}
		}
		took := time.Since(start)
		runtime.ReadMemStats(&after)
		worstTime, worstAlloc = max(worstTime, took), max(worstAlloc, after.TotalAlloc-before.TotalAlloc)
		for at, b := range undo {
			data[at] = b
		}
	}
	t.Logf("%d of 400 opened; at worst %v, %d bytes allocated", opened, worstTime, worstAlloc)
	if worstTime > 5*time.Second || worstAlloc > 32<<20 || opened < 50 {
		t.Error("too many do not open, or one takes too much")
	}
}

// The file is replaced by a shorter one under the table.
func TestFileShrinks(t *testing.T) {
	data := image(smallTable(4))
	r := &shrinking{data: data}
	o, err := objfile.Open(r, int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	table, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{len(data) - 40, textSize + 200, textSize, 0} {
		r.data = data[:size]
		table.Drop()
		if lines, err := table.Lines(textAddr + 0x108); len(lines) == 2 && size < textSize+200 || len(lines) == 0 && err == nil {
			t.Errorf("with %d bytes: %v, %v", size, lines, err)
		}
	}
}

type shrinking struct{ data []byte }

func (s *shrinking) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(s.data).ReadAt(p, off)
}
