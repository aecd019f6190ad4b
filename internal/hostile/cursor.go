// SPDX-License-Identifier: Apache-2.0

// Package hostile reads bytes that nobody vouches for: a cursor over a slice
// and a block cache over a file, both of which give an error where careless
// code would panic, loop or allocate.
package hostile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrShort is the error of a read past the end of the data.
var ErrShort = errors.New("read past the end of the data")

// ErrOverflow is the error of a LEB128 number that does not fit 64 bits.
var ErrOverflow = errors.New("LEB128 number does not fit 64 bits")

// Cursor reads little-endian numbers and strings from a slice, in order. The
// first read that fails sets an error that sticks: it and every later read give
// zero and do not move, so a run of reads needs one check of Err at its end.
//
// A loop that reads until something must also look at Err or Len: zeros may be
// all it will ever see. The zero Cursor is empty. A copy of a Cursor reads on
// its own. Not safe for concurrent use.
type Cursor struct {
	data []byte
	off  int
	err  error
}

// NewCursor returns a cursor at the start of b, which it aliases.
func NewCursor(b []byte) Cursor { return Cursor{data: b} }

// Err returns the first error, which wraps ErrShort or ErrOverflow and names the
// offset, or nil.
func (c *Cursor) Err() error {
	if c.err == nil {
		return nil
	}
	return fmt.Errorf("offset %#x of %#x: %w", c.off, len(c.data), c.err)
}

// OK reports whether no read has failed.
func (c *Cursor) OK() bool { return c.err == nil }

// Off returns the offset of the next read from the start of the slice.
func (c *Cursor) Off() int { return c.off }

// Len returns how many bytes are left; 0 once a read has failed.
func (c *Cursor) Len() int {
	if c.err != nil {
		return 0
	}
	return len(c.data) - c.off
}

// Seek moves to offset off of the slice, which may be its end.
func (c *Cursor) Seek(off int) {
	switch {
	case c.err != nil:
	case off < 0 || off > len(c.data):
		c.err = ErrShort
	default:
		c.off = off
	}
}

// Bytes returns the next n bytes, aliasing the slice, or nil.
func (c *Cursor) Bytes(n int) []byte {
	if c.err != nil {
		return nil
	}
	if n < 0 || n > len(c.data)-c.off {
		c.err = ErrShort
		return nil
	}
	b := c.data[c.off : c.off+n : c.off+n]
	c.off += n
	return b
}

// Skip moves n bytes forward.
func (c *Cursor) Skip(n int) { c.Bytes(n) }

// Sub returns a cursor over the next n bytes, whose offsets count from the start
// of those, and moves past them. It is empty and failed if they are not there.
func (c *Cursor) Sub(n int) Cursor {
	b := c.Bytes(n)
	return Cursor{data: b, err: c.err}
}

// Uint8 reads one byte.
func (c *Cursor) Uint8() uint8 {
	if b := c.Bytes(1); b != nil {
		return b[0]
	}
	return 0
}

// Uint16 reads two bytes.
func (c *Cursor) Uint16() uint16 {
	if b := c.Bytes(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

// Uint32 reads four bytes.
func (c *Cursor) Uint32() uint32 {
	if b := c.Bytes(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

// Uint64 reads eight bytes.
func (c *Cursor) Uint64() uint64 {
	if b := c.Bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// Uleb reads an unsigned LEB128 number (DWARF 5 §7.6). Padding is accepted up to
// the ten bytes that 64 bits can need.
func (c *Cursor) Uleb() uint64 {
	v, _, _ := c.leb()
	return v
}

// Sleb reads a signed LEB128 number (DWARF 5 §7.6).
func (c *Cursor) Sleb() int64 {
	v, shift, last := c.leb()
	if shift < 64 && last&0x40 != 0 {
		v |= ^uint64(0) << shift
	}
	return int64(v)
}

// leb returns the value without sign extension, the number of bits read, and
// the last byte.
func (c *Cursor) leb() (v uint64, shift uint, last byte) {
	if c.err != nil {
		return 0, 64, 0
	}
	for i := c.off; i < len(c.data); i++ {
		last = c.data[i]
		// The tenth byte holds one bit of the number; the rest of it may only
		// repeat the sign.
		if shift == 63 && last != 0 && last != 1 && last != 0x7f {
			c.err = ErrOverflow
			return 0, 64, 0
		}
		v |= uint64(last&0x7f) << shift
		shift += 7
		if last&0x80 == 0 {
			c.off = i + 1
			return v, shift, last
		}
	}
	c.err = ErrShort
	return 0, 64, 0
}

// CString reads bytes up to and past a NUL and returns them without it, aliasing
// the slice. Without a NUL it fails.
func (c *Cursor) CString() []byte {
	if c.err != nil {
		return nil
	}
	n := bytes.IndexByte(c.data[c.off:], 0)
	if n < 0 {
		c.err = ErrShort
		return nil
	}
	b := c.data[c.off : c.off+n : c.off+n]
	c.off += n + 1
	return b
}
