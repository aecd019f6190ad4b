// SPDX-License-Identifier: Apache-2.0

package dwarf

import (
	"bytes"
	"encoding/binary"
)

// die is the attributes of one entry that have a slot.
type die struct {
	has uint32 // bit per slot
	val [slots]value
}

func (d *die) get(slot uint8) (value, bool) { return d.val[slot], d.has>>slot&1 != 0 }

// decode reads the attributes of an entry at b[at:] and returns where it ends; -1 if it
// is cut off.
func (t *table) decode(a *abbrev, b []byte, at int, u *header, d *die) int {
	d.has = 0
	for i := a.first; i < a.last; i++ {
		o := &t.ops[i]
		if o.lay == layFixed && o.slot == 0 {
			if at += int(o.n); at > len(b) {
				return -1
			}
			continue
		}
		form, v := o.form, uint64(0)
		if o.lay == layIndirect {
			form, v, at = indirect(b, at, u)
		} else {
			v, at = o.read(b, at)
		}
		if at < 0 {
			return -1
		}
		d.has |= 1 << o.slot
		d.val[o.slot] = value{form, v}
	}
	return at
}

// indirect reads an attribute whose form comes before it, DWARF 5 §7.5.3.
func indirect(b []byte, at int, u *header) (form uint16, v uint64, end int) {
	f, at := uleb(b, at)
	if at < 0 {
		return 0, 0, -1
	}
	o, ok := compile(f, u.version, u.offSize)
	if !ok || o.lay == layIndirect || f == formImplicitConst {
		return 0, 0, -1
	}
	v, end = o.read(b, at)
	return o.form, v, end
}

// number is the little-endian number b; of more than 8 bytes, 0.
func number(b []byte) uint64 {
	switch len(b) {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.LittleEndian.Uint16(b))
	case 3:
		return uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16
	case 4:
		return uint64(binary.LittleEndian.Uint32(b))
	case 8:
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// read reads one attribute at b[at:] and returns where it ends, -1 if it is cut off.
func (o *op) read(b []byte, at int) (v uint64, end int) {
	switch o.lay {
	case layFixed:
		if end = at + int(o.n); end > len(b) {
			return 0, -1
		}
		return number(b[at:end]), end
	case layUleb:
		return uleb(b, at)
	case laySleb:
		s, end := sleb(b, at)
		return uint64(s), end
	case layString:
		n := bytes.IndexByte(b[at:], 0)
		if n < 0 {
			return 0, -1
		}
		return uint64(at), at + n + 1
	case layImplicit:
		return uint64(o.n), at
	case layBlock1:
		return block(b, at, 1)
	case layBlock2:
		return block(b, at, 2)
	case layBlock4:
		return block(b, at, 4)
	}
	n, at := uleb(b, at)
	if at < 0 || n > uint64(len(b)-at) {
		return 0, -1
	}
	return 0, at + int(n)
}

func block(b []byte, at, size int) (uint64, int) {
	if size > len(b)-at {
		return 0, -1
	}
	n := number(b[at : at+size])
	at += size
	if n > uint64(len(b)-at) {
		return 0, -1
	}
	return 0, at + int(n)
}
