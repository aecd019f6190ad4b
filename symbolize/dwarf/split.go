// SPDX-License-Identifier: Apache-2.0

package dwarf

import (
	"encoding/binary"
	"errors"

	"github.com/lowflame/lowflame/objfile"
)

// split returns the unit that has what the skeleton u stands for, or u itself, if it is
// none or the other is not to be had. The caller calls done when it has read it.
func (d *Data) split(u *unit) (s *unit, done func()) {
	done = func() {}
	if u.dwoName == "" {
		return u, done
	}
	if s = d.packaged(u); s != nil {
		return s, done
	}
	if s, closeDWO := d.opened(u); s != nil {
		return s, closeDWO
	}
	d.noDWO++
	return u, done
}

// opened returns the split unit of a skeleton from its .dwo file, and what closes that;
// nil if it is not there.
func (d *Data) opened(skeleton *unit) (*unit, func()) {
	if d.c.OpenDWO == nil {
		return nil, nil
	}
	o, closeDWO, err := d.c.OpenDWO(skeleton.dwoName, skeleton.compDir)
	if err != nil {
		return nil, nil
	}
	f, err := openFile(o, true, &d.c)
	if err != nil {
		closeDWO()
		return nil, nil
	}
	done := func() {
		_ = f.close() // what was decompressed, and only read
		closeDWO()
	}
	s := f.find(&d.other, skeleton)
	if s == nil {
		done()
		return nil, nil
	}
	return s, done
}

// packaged returns the split unit of a skeleton from the package file, nil if it is
// not there.
func (d *Data) packaged(skeleton *unit) *unit {
	if d.dwp == nil {
		return nil
	}
	c, ok := d.index.find(skeleton.dwoID)
	if !ok {
		return nil
	}
	if d.dwp.load(&d.other, c, skeleton) != nil || d.other.dwoID != skeleton.dwoID {
		return nil
	}
	return &d.other
}

// find reads the split unit of a skeleton from a .dwo file; nil if it is not there.
func (f *file) find(into, skeleton *unit) *unit {
	for i := range len(f.others) + 1 {
		if f.list() == nil {
			for _, off := range f.units {
				if s, err := f.context(off); err != nil || s.dwoID != skeleton.dwoID {
					continue
				}
				if f.load(into, contribution{info: off}, skeleton) == nil {
					return into
				}
			}
		}
		if i < len(f.others) {
			f.info, f.others[i] = f.others[i], f.info
			f.units, f.contexts, f.listed = nil, nil, false
		}
	}
	return nil
}

// load reads the split unit of a skeleton, whose addresses it has.
func (f *file) load(s *unit, c contribution, skeleton *unit) error {
	b, err := f.info.view(c.info, maxHeader)
	if err != nil {
		return err
	}
	h, err := parseHeader(b, c.info, f.info.size)
	if err != nil {
		return err
	}
	if h.unitType == utSplitType || h.unitType == utType {
		return errMalformed
	}
	h.abbrev += c.abbrev
	*s = unit{header: h, f: f, addrs: skeleton.addrs, split: c, buf: s.buf, scratch: s.scratch}
	var d die
	if _, err := s.load(&d); err != nil {
		return err
	}
	// DWARF 5 §3.1.3, and for DWARF 4 the GNU extension: these are the skeleton's.
	s.addrBase, s.low, s.gnuRangesBase = skeleton.addrBase, skeleton.low, skeleton.gnuRangesBase
	s.compDir, s.dwoName = skeleton.compDir, ""
	return nil
}

// contribution is where in the sections of a package file a unit is.
type contribution struct {
	info, abbrev, strOffsets, rnglists uint64
}

// packageIndex is .debug_cu_index, DWARF 5 §7.3.5.3, or that of version 2, GNU's.
type packageIndex struct {
	s       section
	version uint32
	columns uint64
	rows    uint64
	slots   uint64
}

// maxSlots bounds the hash table: more units than any program has.
const maxSlots = 1 << 24

func openIndex(o *objfile.Object, c *Config) (x packageIndex, err error) {
	if x.s, err = openSection(o, "cu_index", c); err != nil || x.s.size == 0 {
		return x, err
	}
	if err := x.parse(); err != nil {
		return packageIndex{}, errors.Join(err, x.s.close())
	}
	return x, nil
}

// parse parses the header.
func (x *packageIndex) parse() error {
	var b [16]byte
	if _, err := x.s.random().ReadAt(b[:], 0); err != nil {
		return err
	}
	x.version = binary.LittleEndian.Uint32(b[:])
	if x.version != 2 {
		x.version &= 0xffff // version 5 has padding behind it
	}
	x.columns = uint64(binary.LittleEndian.Uint32(b[4:]))
	x.rows = uint64(binary.LittleEndian.Uint32(b[8:]))
	x.slots = uint64(binary.LittleEndian.Uint32(b[12:]))
	if x.version != 2 && x.version != 5 || x.columns > 16 || x.slots > maxSlots || x.slots&(x.slots-1) != 0 ||
		x.rows > x.slots || 16+12*x.slots+4*x.columns*(1+2*x.rows) > x.s.size {
		return errMalformed
	}
	return nil
}

// find returns where the unit with an ID is.
func (x *packageIndex) find(id uint64) (c contribution, ok bool) {
	if x.slots == 0 {
		return c, false
	}
	mask := x.slots - 1
	slot, step := id&mask, id>>32&mask|1
	for range x.slots {
		row, err := x.s.uint(16+8*x.slots+4*slot, 4)
		if err != nil || row == 0 || row > x.rows {
			return c, false
		}
		sig, err := x.s.uint(16+8*slot, 8)
		if err != nil {
			return c, false
		}
		if sig == id {
			return x.row(row)
		}
		slot = (slot + step) & mask
	}
	return c, false
}

func (x *packageIndex) row(row uint64) (c contribution, ok bool) {
	columns := 16 + 12*x.slots
	for i := range x.columns {
		kind, err := x.s.uint(columns+4*i, 4)
		if err != nil {
			return c, false
		}
		off, err := x.s.uint(columns+4*(row*x.columns+i), 4)
		if err != nil {
			return c, false
		}
		switch {
		case kind == 1:
			c.info, ok = off, true
		case kind == 3:
			c.abbrev = off
		case kind == 6:
			c.strOffsets = off
		case kind == 8 && x.version == 5:
			c.rnglists = off
		}
	}
	return c, ok
}
