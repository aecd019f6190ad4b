// SPDX-License-Identifier: Apache-2.0

package unwind

import "encoding/binary"

// reader decodes little-endian bytes that nobody vouches for. Running past the
// end sets bad and yields zeros, so callers check once, after a whole entry.
type reader struct {
	b   []byte
	pos int
	bad bool
}

// fail marks the reader bad and moves it to the end, so loops over it stop.
func (r *reader) fail() {
	r.bad = true
	r.pos = len(r.b)
}

func (r *reader) u8() uint8 {
	if r.pos >= len(r.b) {
		r.fail()
		return 0
	}
	v := r.b[r.pos]
	r.pos++
	return v
}

func (r *reader) u16() uint16 {
	if len(r.b)-r.pos < 2 {
		r.fail()
		return 0
	}
	v := binary.LittleEndian.Uint16(r.b[r.pos:])
	r.pos += 2
	return v
}

func (r *reader) u32() uint32 {
	if len(r.b)-r.pos < 4 {
		r.fail()
		return 0
	}
	v := binary.LittleEndian.Uint32(r.b[r.pos:])
	r.pos += 4
	return v
}

func (r *reader) u64() uint64 {
	if len(r.b)-r.pos < 8 {
		r.fail()
		return 0
	}
	v := binary.LittleEndian.Uint64(r.b[r.pos:])
	r.pos += 8
	return v
}

// uleb reads an unsigned LEB128 (DWARF 5 §7.6). Bits beyond 64 make it bad:
// no register, offset or length is that long.
func (r *reader) uleb() uint64 {
	if r.pos < len(r.b) && r.b[r.pos] < 0x80 {
		v := uint64(r.b[r.pos])
		r.pos++
		return v
	}
	var v uint64
	for shift := uint(0); shift < 64; shift += 7 {
		b := r.u8()
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v
		}
	}
	r.fail()
	return 0
}

// sleb reads a signed LEB128 (DWARF 5 §7.6).
func (r *reader) sleb() int64 {
	var v int64
	for shift := uint(0); shift < 64; shift += 7 {
		b := r.u8()
		v |= int64(b&0x7f) << shift
		if b < 0x80 {
			if b&0x40 != 0 && shift < 57 {
				v |= -1 << (shift + 7)
			}
			return v
		}
	}
	r.fail()
	return 0
}

// bytes returns the next n bytes, sharing the reader's memory.
func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.b)-r.pos) {
		r.fail()
		return nil
	}
	p := r.b[r.pos : r.pos+int(n)]
	r.pos += int(n)
	return p
}

// Pointer encodings, LSB 5.0 §10.5.1.
const (
	encAbs      = 0x00
	encULEB     = 0x01
	encU16      = 0x02
	encU32      = 0x03
	encU64      = 0x04
	encSLEB     = 0x09
	encS16      = 0x0a
	encS32      = 0x0b
	encS64      = 0x0c
	encPCRel    = 0x10
	encDataRel  = 0x30
	encAligned  = 0x50
	encIndirect = 0x80
	encOmit     = 0xff

	encPCRelS32 = encPCRel | encS32 // what compilers use
)

// encBase is what relative pointers are relative to.
type encBase struct {
	pc   uint64 // link-time address of the reader's first byte
	data uint64 // what DW_EH_PE_datarel adds, 0 when not known
}

// pointer reads an encoded pointer. Indirect pointers are not followed: the
// value is the address of the pointer, which serves for skipping one.
func (r *reader) pointer(enc uint8, base encBase) uint64 {
	at := base.pc + uint64(r.pos)
	if enc == encPCRelS32 {
		return at + uint64(int32(r.u32()))
	}
	if enc == encOmit {
		return 0
	}
	if enc&0x70 == encAligned {
		pad := -at & 7
		r.bytes(pad)
		return r.u64()
	}
	v := r.value(enc & 0x0f)
	switch enc & 0x70 {
	case encAbs:
	case encPCRel:
		v += at
	case encDataRel:
		if base.data == 0 {
			r.fail()
		}
		v += base.data
	default: // textrel and funcrel: no compiler for our machines writes them
		r.fail()
	}
	return v
}

// value reads a number in one of the formats of the low nibble of a pointer
// encoding.
func (r *reader) value(format uint8) uint64 {
	switch format {
	case encAbs, encU64, encS64:
		return r.u64()
	case encULEB:
		return r.uleb()
	case encU16:
		return uint64(r.u16())
	case encU32:
		return uint64(r.u32())
	case encSLEB:
		return uint64(r.sleb())
	case encS16:
		return uint64(int16(r.u16()))
	case encS32:
		return uint64(int32(r.u32()))
	}
	r.fail()
	return 0
}
