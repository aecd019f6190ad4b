// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
)

func TestCursor(t *testing.T) {
	c := NewCursor([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 'h', 'i', 0, 0xe5, 0x8e, 0x26, 0xc0, 0xbb, 0x78})
	if got := c.Uint8(); got != 1 {
		t.Errorf("Uint8 = %#x", got)
	}
	if got := c.Uint16(); got != 0x0302 {
		t.Errorf("Uint16 = %#x", got)
	}
	if got := c.Uint32(); got != 0x07060504 {
		t.Errorf("Uint32 = %#x", got)
	}
	if got := c.Uint64(); got != 0x0f0e0d0c0b0a0908 {
		t.Errorf("Uint64 = %#x", got)
	}
	if got := c.CString(); string(got) != "hi" {
		t.Errorf("CString = %q", got)
	}
	if got := c.Uleb(); got != 624485 {
		t.Errorf("Uleb = %d", got)
	}
	if got := c.Sleb(); got != -123456 {
		t.Errorf("Sleb = %d", got)
	}
	if c.Err() != nil || c.Len() != 0 || c.Off() != 24 {
		t.Errorf("at the end: err %v, len %d, off %d", c.Err(), c.Len(), c.Off())
	}
}

func TestCursorErrorSticks(t *testing.T) {
	c := NewCursor([]byte{1, 2, 3})
	if got := c.Uint32(); got != 0 {
		t.Errorf("short Uint32 = %#x", got)
	}
	if got := c.Uint8(); got != 0 {
		t.Errorf("Uint8 after an error = %#x", got)
	}
	c.Seek(0)
	if sub := c.Sub(1); sub.OK() || sub.Len() != 0 {
		t.Error("Sub of a failed cursor works")
	}
	if !errors.Is(c.Err(), ErrShort) || c.Off() != 0 || c.Len() != 0 {
		t.Errorf("err %v, off %d, len %d", c.Err(), c.Off(), c.Len())
	}
}

func TestCursorBounds(t *testing.T) {
	for name, read := range map[string]func(c *Cursor){
		"negative count":    func(c *Cursor) { c.Bytes(-1) },
		"count overflows":   func(c *Cursor) { c.Skip(1); c.Bytes(int(^uint(0) >> 1)) },
		"seek before start": func(c *Cursor) { c.Seek(-1) },
		"seek past end":     func(c *Cursor) { c.Seek(4) },
		"no NUL":            func(c *Cursor) { c.CString() },
		"LEB128 runs out":   func(c *Cursor) { c.Uleb() },
	} {
		c := NewCursor([]byte{0x80, 0x80, 0x80})
		read(&c)
		if !errors.Is(c.Err(), ErrShort) {
			t.Errorf("%s: err = %v, want ErrShort", name, c.Err())
		}
	}
}

func TestCursorLEB(t *testing.T) {
	ff := bytes.Repeat([]byte{0xff}, 9)
	for _, test := range []struct {
		name string
		in   []byte
		u    uint64
		s    int64
		err  error
	}{
		{"zero", []byte{0}, 0, 0, nil},
		{"63", []byte{63}, 63, 63, nil},
		{"sign bit", []byte{64}, 64, -64, nil},
		{"padded zero", []byte{0x80, 0x80, 0}, 0, 0, nil},
		{"all bits", append(bytes.Clone(ff), 1), 1<<64 - 1, -1, nil},
		{"minus one in ten bytes", append(bytes.Clone(ff), 0x7f), 1<<64 - 1, -1, nil},
		{"65 bits", append(bytes.Clone(ff), 2), 0, 0, ErrOverflow},
		{"eleven bytes", append(bytes.Clone(ff), 0x80, 0), 0, 0, ErrOverflow},
	} {
		u, s := NewCursor(test.in), NewCursor(test.in)
		if got := u.Uleb(); got != test.u || !errors.Is(u.Err(), test.err) {
			t.Errorf("%s: Uleb = %d, %v; want %d, %v", test.name, got, u.Err(), test.u, test.err)
		}
		if got := s.Sleb(); got != test.s || !errors.Is(s.Err(), test.err) {
			t.Errorf("%s: Sleb = %d, %v; want %d, %v", test.name, got, s.Err(), test.s, test.err)
		}
	}
}

func TestBlocksReadsWhatIsThere(t *testing.T) {
	data := make([]byte, 40*BlockSize+123)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range data {
		data[i] = byte(rnd.Uint32())
	}
	b := NewBlocks(bytes.NewReader(data), int64(len(data)), 8)
	buf := make([]byte, 3*BlockSize)
	for range 2000 {
		off := rnd.IntN(len(data))
		n := rnd.IntN(min(len(buf), len(data)-off) + 1)
		if _, err := b.ReadAt(buf[:n], int64(off)); err != nil {
			t.Fatalf("ReadAt(%d bytes at %d): %v", n, off, err)
		}
		if !bytes.Equal(buf[:n], data[off:off+n]) {
			t.Fatalf("ReadAt(%d bytes at %d): wrong bytes", n, off)
		}
	}
	if n, err := b.ReadAt(buf[:2], int64(len(data))-1); n != 0 || !errors.Is(err, ErrShort) {
		t.Errorf("read across the end = %d, %v; want 0, ErrShort", n, err)
	}
	if _, err := b.At(-1); !errors.Is(err, ErrShort) {
		t.Errorf("At(-1): %v, want ErrShort", err)
	}
}

// A file may shrink after its size was taken, and a disk may fail.
func TestBlocksSurvivesItsFile(t *testing.T) {
	b := NewBlocks(bytes.NewReader(make([]byte, 100)), 1<<40, 4)
	if got, err := b.At(90); err != nil || len(got) != 10 {
		t.Errorf("At(90) of 100 = %d bytes, %v", len(got), err)
	}
	if _, err := b.At(100); !errors.Is(err, ErrShort) {
		t.Errorf("At(100) of 100: %v, want ErrShort", err)
	}
	bad := errors.New("bad disk")
	b = NewBlocks(readerAt(func([]byte, int64) (int, error) { return 0, bad }), 100, 4)
	for range 2 { // a failed block is not remembered as a good one
		if _, err := b.At(0); !errors.Is(err, bad) {
			t.Errorf("At on a bad disk: %v", err)
		}
	}
}

type readerAt func(p []byte, off int64) (int, error)

func (f readerAt) ReadAt(p []byte, off int64) (int, error) { return f(p, off) }

func TestBlocksCachesAndIsBounded(t *testing.T) {
	reads := 0
	r := readerAt(func(p []byte, _ int64) (int, error) { reads++; return len(p), nil })
	b := NewBlocks(r, 1<<30, 16)
	for i := range int64(1000) {
		if _, err := b.At(i * 4); err != nil {
			t.Fatal(err)
		}
	}
	if reads != 1 {
		t.Errorf("%d reads of one block, want 1", reads)
	}
	for i := range int64(1000) {
		if _, err := b.At(i * BlockSize); err != nil {
			t.Fatal(err)
		}
	}
	kept := 0
	for _, set := range b.sets {
		for _, l := range set {
			kept += cap(l.data)
		}
	}
	if kept > 16*BlockSize {
		t.Errorf("%d bytes kept, want at most 16 blocks", kept)
	}
}

func TestBlocksCString(t *testing.T) {
	data := append(bytes.Repeat([]byte{'a'}, 2*BlockSize), 0)
	b := NewBlocks(bytes.NewReader(data), int64(len(data)), 4)
	got, err := b.AppendCString([]byte("x"), BlockSize-3, 1<<20)
	if err != nil || string(got) != "x"+string(data[BlockSize-3:2*BlockSize]) {
		t.Errorf("string over a block boundary: %d bytes, %v", len(got), err)
	}
	if got, err := b.AppendCString([]byte("x"), 0, 100); string(got) != "x" || !errors.Is(err, ErrShort) {
		t.Errorf("string over its limit = %q, %v; want x, ErrShort", got, err)
	}
	b = NewBlocks(bytes.NewReader(data[:100]), 100, 4)
	if _, err := b.AppendCString(nil, 0, 1000); !errors.Is(err, ErrShort) {
		t.Errorf("string without an end: %v, want ErrShort", err)
	}
}

func FuzzCursor(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8}, []byte("12345678"))
	f.Add([]byte{5, 6, 7}, []byte{0xff, 0xff, 0})
	f.Fuzz(func(t *testing.T, ops, data []byte) {
		c := NewCursor(data)
		for _, op := range ops {
			before, failed := c.Off(), !c.OK()
			switch op % 10 {
			case 0:
				c.Uint8()
			case 1:
				c.Uint16()
			case 2:
				c.Uint32()
			case 3:
				c.Uint64()
			case 4:
				c.Uleb()
			case 5:
				c.Sleb()
			case 6:
				c.CString()
			case 7:
				c.Bytes(int(op) - 100)
			case 8:
				c.Sub(int(op) / 10)
			case 9:
				c.Seek(int(op) - 50)
			}
			if c.Off() < 0 || c.Off() > len(data) || c.Len() < 0 || (failed && c.Off() != before) {
				t.Fatalf("op %d: off %d -> %d of %d, failed before: %v", op, before, c.Off(), len(data), failed)
			}
		}
	})
}
