// SPDX-License-Identifier: Apache-2.0

package dwarf

import (
	"encoding/binary"

	"github.com/lowflame/lowflame/internal/hostile"
)

// Unit types, DWARF 5 §7.5.1.
const (
	utCompile      = 1
	utType         = 2
	utPartial      = 3
	utSkeleton     = 4
	utSplitCompile = 5
	utSplitType    = 6
)

// maxHeader is the size of the longest unit header.
const maxHeader = 12 + 2 + 1 + 1 + 8 + 8 + 8

// header is a unit header, DWARF 5 §7.5.1.
type header struct {
	off, end uint64 // in .debug_info
	first    uint32 // offset of the first entry from off
	version  uint16
	offSize  uint8 // 4, or 8 in DWARF64
	unitType uint8 // 0 before DWARF 5
	abbrev   uint64
	dwoID    uint64
}

// initialLength reads the length that units begin with: what it says, and the size
// of offsets it implies.
func initialLength(b []byte) (n uint64, offSize uint8, err error) {
	if len(b) < 4 {
		return 0, 0, errMalformed
	}
	n = uint64(binary.LittleEndian.Uint32(b))
	if n < 0xfffffff0 {
		return n, 4, nil
	}
	if n != 0xffffffff || len(b) < 12 {
		return 0, 0, errMalformed
	}
	return binary.LittleEndian.Uint64(b[4:]), 8, nil
}

// parseHeader parses the unit header b at off of a section of size bytes. end is
// set where the length makes sense, even if there is an error.
func parseHeader(b []byte, off, size uint64) (h header, err error) {
	n, offSize, err := initialLength(b)
	if err != nil {
		return h, err
	}
	h.off, h.offSize = off, offSize
	at := 4
	if offSize == 8 {
		at = 12
	}
	if n == 0 || off > size || n > size-off || uint64(at) > size-off-n {
		return h, errMalformed
	}
	h.end = off + uint64(at) + n
	c := hostile.NewCursor(b[at:])
	h.version = c.Uint16()
	addrSize := uint8(0)
	switch {
	case h.version >= 2 && h.version <= 4:
		h.abbrev = offset(&c, offSize)
		addrSize = c.Uint8()
	case h.version == 5:
		h.unitType = c.Uint8()
		addrSize = c.Uint8()
		h.abbrev = offset(&c, offSize)
		switch h.unitType {
		case utSkeleton, utSplitCompile:
			h.dwoID = c.Uint64()
		case utType, utSplitType:
			c.Uint64()
			offset(&c, offSize)
		}
	default:
		return h, errMalformed
	}
	h.first = uint32(at + c.Off())
	if !c.OK() || addrSize != 8 || off+uint64(h.first) > h.end {
		return h, errMalformed
	}
	return h, nil
}

// offset reads an offset of 4 or 8 bytes.
func offset(c *hostile.Cursor, size uint8) uint64 {
	if size == 8 {
		return c.Uint64()
	}
	return uint64(c.Uint32())
}

// uleb reads an unsigned LEB128 number at b[at:] and returns where it ends, -1 if it
// does not. Bits beyond 64 are lost.
func uleb(b []byte, at int) (uint64, int) {
	if uint(at) < uint(len(b)) && b[at] < 0x80 {
		return uint64(b[at]), at + 1
	}
	var v uint64
	for shift := uint(0); uint(at) < uint(len(b)); shift += 7 {
		c := b[at]
		at++
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return v, at
		}
	}
	return 0, -1
}

// sleb is uleb for signed numbers.
func sleb(b []byte, at int) (int64, int) {
	var v int64
	for shift := uint(0); uint(at) < uint(len(b)); {
		c := b[at]
		at++
		v |= int64(c&0x7f) << shift
		shift += 7
		if c < 0x80 {
			if c&0x40 != 0 && shift < 64 {
				v |= -1 << shift
			}
			return v, at
		}
	}
	return 0, -1
}
