// SPDX-License-Identifier: Apache-2.0

package dwarf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/stack"
)

// bounded calls f and fails if it took memory or time out of proportion to n bytes of
// input: rows are 24 times the opcodes they come from, and slices grow.
func bounded(t *testing.T, n int, f func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	f()
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 4<<20+256*uint64(n) {
		t.Errorf("%d bytes allocated for %d", got, n)
	}
	if took > 5*time.Second+time.Duration(n)*time.Microsecond {
		t.Errorf("%v for %d bytes", took, n)
	}
}

func of(b []byte) section { return section{r: readerAt(b), size: uint64(len(b))} }

// dataOf returns debug information whose code may be anywhere.
func dataOf(f *file) *Data {
	f.strings = newInterned()
	d := &Data{f: f, code: code{ranges: []Range{{0, 1<<64 - 1}}}}
	d.walker = walker{lines: &d.lines, names: newNaming(), code: &d.code}
	return d
}

// small is a DWARF 5 unit with a function and a call in it, and what it refers to.
func small() (info, abbrev, line, rnglists []byte) {
	abbrev = []byte{
		1, tagCompileUnit, 1, 0x10, formSecOffset, 0x1b, formString, 0x11, formAddr, 0, 0,
		2, tagSubprogram, 1, 0x03, formString, 0x3a, formData1, 0x3b, formData1, 0x55, formSecOffset, 0, 0,
		3, tagInlinedSubroutine, 0, 0x31, formRef4, 0x11, formAddr, 0x12, formData1, 0x58, formData1, 0x59, formUdata, 0, 0,
		4, tagSubprogram, 0, 0x6e, formString, 0x20, formImplicitConst, 1, 0, 0,
		0,
	}
	le := binary.LittleEndian
	body := []byte{5, 0, utCompile, 8, 0, 0, 0, 0}
	body = append(body, 1, 0, 0, 0, 0, '/', 'd', 0)
	body = le.AppendUint64(body, 0x1000)
	callee := len(body) + 4
	body = append(body, 4, '_', 'Z', '1', 'f', 0)
	body = append(body, 2, 'g', 0, 1, 7, 12, 0, 0, 0)
	body = append(body, 3)
	body = le.AppendUint32(body, uint32(callee))
	body = le.AppendUint64(body, 0x1004)
	body = append(body, 4, 1, 9, 0, 0)
	info = append(le.AppendUint32(nil, uint32(len(body))), body...)

	header := []byte{1, 1, 1, 0xfb, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1} // up to standard_opcode_lengths
	header = append(header, 1, contentPath, formString, 1, '/', 'd', 0)
	header = append(header, 2, contentPath, formString, contentDirectory, formUdata, 2, 'a', '.', 'c', 0, 0, 'b', '.', 'c', 0, 0)
	program := []byte{0, 9, lneSetAddress, 0, 0x10, 0, 0, 0, 0, 0, 0, 0x20, lnsAdvancePC, 4, 0x21, lnsAdvancePC, 12, 0, 1, lneEndSequence}
	body = []byte{5, 0, 8, 0}
	body = le.AppendUint32(body, uint32(len(header)))
	body = append(append(body, header...), program...)
	line = append(le.AppendUint32(nil, uint32(len(body))), body...)

	rnglists = []byte{0, 0, 0, 0, 5, 0, 8, 0, 0, 0, 0, 0, rleOffsetPair, 0, 16, rleStartLength, 0, 0x20, 0, 0, 0, 0, 0, 0, 8, rleEndOfList}
	return info, abbrev, line, rnglists
}

func TestSmall(t *testing.T) {
	info, abbrev, line, rnglists := small()
	d := dataOf(&file{info: of(info), abbrev: of(abbrev), line: of(line), rnglists: of(rnglists)})
	units := 0
	err := d.Units(func(u *Unit) error {
		units++
		checkUnit(t, u)
		got := flatten(u, 0x1007)
		want := []frame{{"_Z1f", "/d/b.c:2"}, {"g", "/d/b.c:9"}}
		if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
			t.Errorf("got %v, want %v", got, want)
		}
		g := u.Scopes[0]
		if g.DeclLine != 7 || u.Files[g.DeclFile] != "/d/b.c" || len(g.Ranges) != 2 || g.Ranges[1] != (Range{0x2000, 0x2008}) {
			t.Errorf("function %+v", g)
		}
		return nil
	})
	if err != nil || units != 1 || d.Bad() != 0 {
		t.Errorf("%d units, %d bad (%v), %v", units, d.Bad(), d.BadErr(), err)
	}
}

func FuzzUnits(f *testing.F) {
	info, abbrev, line, rnglists := small()
	f.Add(info, abbrev, line, rnglists, []byte("name\x00"))
	f.Add(append(bytes.Clone(info), info...), abbrev, line, rnglists, []byte{0})
	f.Fuzz(func(t *testing.T, info, abbrev, line, rnglists, str []byte) {
		if len(info)+len(abbrev)+len(line)+len(rnglists)+len(str) > 1<<20 {
			return
		}
		bounded(t, len(info)+len(abbrev)+len(line)+len(rnglists)+len(str), func() {
			file := &file{
				info: of(info), abbrev: of(abbrev), line: of(line), rnglists: of(rnglists), ranges: of(rnglists),
				str: of(str), lineStr: of(str), strOffsets: of(rnglists), addr: of(rnglists),
			}
			d := dataOf(file)
			file.alt = file
			if err := d.Units(func(u *Unit) error { checkUnit(t, u); return nil }); err != nil {
				t.Error(err)
			}
		})
	})
}

func FuzzSplit(f *testing.F) {
	info, abbrev, _, rnglists := small()
	f.Add(info, abbrev, rnglists, uint64(0))
	f.Fuzz(func(t *testing.T, info, abbrev, rnglists []byte, id uint64) {
		if len(info)+len(abbrev)+len(rnglists) > 1<<20 {
			return
		}
		bounded(t, len(info)+len(abbrev)+len(rnglists), func() {
			dwo := &file{dwo: true, info: of(info), abbrev: of(abbrev), rnglists: of(rnglists), str: of(info), strOffsets: of(rnglists), strings: newInterned()}
			main := &file{addr: of(rnglists), ranges: of(rnglists), strings: newInterned()}
			d := dataOf(main)
			var into unit
			s := dwo.find(&into, &unit{header: header{dwoID: id, end: 64}, f: main, addrs: main})
			if s != nil {
				_ = d.walker.walk(s) // an error is a bad unit
			}
		})
	})
}

func FuzzLine(f *testing.F) {
	_, _, line, _ := small()
	f.Add(line)
	f.Add([]byte{28, 0, 0, 0, 4, 0, 15, 0, 0, 0, 1, 4, 1, 0xff, 3, 4, 0, 1, 1, 0, 'a', 0, 0, 0, 0, 0, 9, lneSetAddress, 1, 1, 1, 1})
	f.Fuzz(func(t *testing.T, line []byte) {
		if len(line) > 1<<20 {
			return
		}
		bounded(t, len(line), func() {
			d := dataOf(&file{line: of(line), lineStr: of(line), str: of(line)})
			u := &unit{f: d.f, hasLines: true, compDir: "/c", header: header{version: 5, offSize: 4}}
			_ = d.lines.read(u, &d.code) // an error is a bad unit
			checkUnit(t, &Unit{Files: d.lines.paths, Lines: d.lines.rows})
		})
	})
}

func FuzzRanges(f *testing.F) {
	_, _, _, rnglists := small()
	f.Add(rnglists, uint64(12), uint64(0x1000), uint16(5), false)
	f.Add(rnglists, uint64(0), uint64(1<<64-1), uint16(4), true)
	f.Fuzz(func(t *testing.T, b []byte, at, base uint64, version uint16, indexed bool) {
		if len(b) > 1<<20 {
			return
		}
		bounded(t, len(b), func() {
			d := dataOf(&file{rnglists: of(b), ranges: of(b), addr: of(b)})
			u := &unit{f: d.f, addrs: d.f, low: base, header: header{version: version, offSize: 4}}
			v := value{formSecOffset, at}
			if indexed {
				v.form = formRnglistx
			}
			var e die
			e.has = 1 << slotRanges
			e.val[slotRanges] = v
			d.code.budget = 1 << 10
			got, _ := u.ranges(&e, &d.code, nil) // an error is no range
			for _, r := range got {
				if r.Begin >= r.End || r.Begin == stack.LinkAddr(1<<64-1) {
					t.Errorf("range %+v", r)
				}
			}
		})
	})
}

func FuzzHeader(f *testing.F) {
	info, _, _, _ := small()
	f.Add(info, uint64(0), uint64(len(info)))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 8, 0, 0, 0, 0, 0, 0, 0, 4, 0}, uint64(3), uint64(1<<63))
	f.Fuzz(func(t *testing.T, b []byte, off, size uint64) {
		h, err := parseHeader(b, off, size)
		if err == nil && (h.end <= off || h.end > size || off+uint64(h.first) > h.end) {
			t.Errorf("unit at %#x of %#x: %+v", off, size, h)
		}
	})
}

func FuzzIndex(f *testing.F) {
	le := binary.LittleEndian
	x := le.AppendUint32(nil, 2)
	for _, v := range []uint32{2, 1, 2, 7, 0, 0, 0, 1, 0, 1, 3, 16, 32, 8, 8} {
		x = le.AppendUint32(x, v)
	}
	f.Add(x, uint64(7))
	f.Fuzz(func(t *testing.T, b []byte, id uint64) {
		index := packageIndex{s: of(b)}
		if index.parse() == nil {
			index.find(id)
		}
	})
}

func TestIndex(t *testing.T) {
	le := binary.LittleEndian
	for _, version := range []uint32{2, 5} {
		b := le.AppendUint32(nil, version)
		// Columns, units, slots; hashes 8 and 7, rows 1 and 2; sections; offsets; sizes.
		for _, v := range []uint32{3, 2, 2, 8, 0, 7, 0, 1, 2, 1, 3, 8, 0, 0, 0, 100, 200, 300, 1, 1, 1, 1, 1, 1} {
			b = le.AppendUint32(b, v)
		}
		x := packageIndex{s: of(b)}
		if err := x.parse(); err != nil {
			t.Fatal(err)
		}
		want := contribution{info: 100, abbrev: 200}
		if version == 5 {
			want.rnglists = 300
		}
		if c, ok := x.find(7); !ok || c != want {
			t.Errorf("version %d: %+v %v, want %+v", version, c, ok, want)
		}
		if c, ok := x.find(9); ok {
			t.Errorf("version %d: found %+v", version, c)
		}
	}
}

func TestNoDebugInfo(t *testing.T) {
	b := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 57)...)
	b[16], b[18], b[20], b[52] = 3, 62, 1, 64
	o, err := objfile.Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(o, Config{}); !errors.Is(err, ErrNoDebugInfo) {
		t.Errorf("a file without sections: %v", err)
	}
}
