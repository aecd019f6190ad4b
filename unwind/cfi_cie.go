// SPDX-License-Identifier: Apache-2.0

package unwind

import "bytes"

// readCIE reads the CIE at off into c.cie.
func (c *cfi) readCIE(off int) bool {
	c.cieOff = -1
	h, ok := c.header(off)
	if !ok || !h.isCIE {
		c.fail(off, "not a CIE")
		return false
	}
	e, ok := c.parseCIE(&h.r)
	if !ok {
		c.fail(off, "malformed CIE")
		return false
	}
	n := h.next - h.r.pos
	if n > c.budget {
		c.fail(off, "too much to execute")
		return false
	}
	c.budget -= n
	x := executor{
		reader:  reader{b: c.data[:h.next], pos: h.r.pos},
		cie:     &e,
		state:   e.initial,
		machine: &c.machine,
		base:    encBase{pc: c.addr},
	}
	if !x.run() {
		c.fail(off, "malformed CIE instructions")
		return false
	}
	e.initial = x.state
	c.cie, c.cieOff = e, off
	return true
}

// parseCIE reads a CIE up to its instructions (DWARF 5 §6.4.1, LSB 5.0
// §10.6.1.1).
func (c *cfi) parseCIE(r *reader) (cie, bool) {
	e := cie{fdeEnc: encAbs}
	version := r.u8()
	if version != 1 && version != 3 && version != 4 {
		return e, false
	}
	aug := r.cstring()
	if version == 4 {
		// Address and segment selector sizes: ours are 64-bit machines
		// without selectors.
		if r.u8() != 8 || r.u8() != 0 {
			return e, false
		}
	}
	if bytes.HasPrefix(aug, []byte("eh")) {
		r.u64() // GCC 2's exception table
		aug = aug[2:]
	}
	e.codeAlign = r.uleb()
	e.dataAlign = r.sleb()
	ra := uint64(0)
	if version == 1 {
		ra = uint64(r.u8())
	} else {
		ra = r.uleb()
	}
	if ra >= NumRegs {
		return e, false
	}
	e.raReg = uint32(ra)
	e.initial = frameState{cfaReg: noReg}
	if e.raReg != c.machine.raReg {
		e.initial.ra = regRule{how: placeReg, off: int64(ra)}
	}
	return e, c.augmentation(&e, aug, r) && !r.bad
}

// augmentation reads what the augmentation string aug announces.
func (c *cfi) augmentation(e *cie, aug []byte, r *reader) bool {
	base := encBase{pc: c.addr}
	end := -1
	for _, ch := range aug {
		switch ch {
		case 'z':
			e.augmented = true
			n := r.uleb()
			if n > uint64(len(r.b)-r.pos) {
				return false
			}
			end = r.pos + int(n)
		case 'R':
			e.fdeEnc = r.u8()
		case 'P':
			enc := r.u8()
			r.pointer(enc&^encIndirect, base)
		case 'L':
			r.u8()
		case 'S':
			e.initial.signal = true
		case 'B', 'G': // aarch64: pointers signed with key B; memory tagged stack
		default:
			// Unknown letters can be skipped only if the size is known, and
			// then with all that follow (LSB 5.0 §10.6.1.1.1).
			if end < 0 {
				return false
			}
			r.pos = end
			return true
		}
	}
	if end >= 0 {
		if r.pos > end {
			return false
		}
		r.pos = end
	}
	return true
}

// cstring reads a string that ends with a zero byte, without the zero.
func (r *reader) cstring() []byte {
	n := bytes.IndexByte(r.b[r.pos:], 0)
	if n < 0 {
		r.fail()
		return nil
	}
	s := r.b[r.pos : r.pos+n]
	r.pos += n + 1
	return s
}
