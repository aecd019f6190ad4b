// SPDX-License-Identifier: Apache-2.0

package dwarf

import (
	"bytes"
	"fmt"
)

// maxUnit is the most bytes of .debug_info that a unit may have: it is held while
// it is read. The largest of Debian's libjvm has 2 MiB.
const maxUnit = 48 << 20

// unit is a unit of .debug_info as it is read. References into it may come from
// another unit, then its bytes are not held.
type unit struct {
	header
	f     *file  // where its entries are
	addrs *file  // where its addresses are: of split units, the linked file
	buf   []byte // its bytes from off on; nil if they are not held
	table *table // nil if the bytes are not held

	strOffsetsBase, addrBase, rnglistsBase, gnuRangesBase uint64
	// split is what the package file has for the unit.
	split contribution

	low      uint64 // base of range lists
	stmtList value
	hasLines bool
	compDir  string
	dwoName  string
	language uint64
	scratch  []byte
}

// setBases takes from the first entry of the unit what others need.
func (u *unit) setBases(d *die) {
	u.strOffsetsBase = u.split.strOffsets
	if u.version >= 5 {
		u.strOffsetsBase += 2 * uint64(u.offSize) // the header of the contribution
		u.addrBase = 8
	}
	if v, ok := d.get(slotStrOffsetsBase); ok {
		u.strOffsetsBase = v.v
	}
	if v, ok := d.get(slotAddrBase); ok {
		u.addrBase = v.v
	}
	u.rnglistsBase = u.split.rnglists
	if v, ok := d.get(slotRnglistsBase); ok {
		u.rnglistsBase = v.v
	} else if u.f.dwo {
		u.rnglistsBase += 8 + uint64(u.offSize) // DWARF 5 §7.28: the header
		if u.offSize == 8 {
			u.rnglistsBase += 4
		}
	}
	if v, ok := d.get(slotLow); ok {
		u.low, _ = u.address(v)
	}
	if v, ok := d.get(slotLanguage); ok {
		u.language = v.v
	}
	u.stmtList, u.hasLines = d.get(slotStmtList)
	if v, ok := d.get(slotGNURangesBase); ok {
		u.gnuRangesBase = v.v
	}
	if v, ok := d.get(slotDWOID); ok {
		u.dwoID = v.v
	}
}

// setNames reads where the unit was compiled, and where the rest of it is.
func (u *unit) setNames(d *die) {
	u.compDir, u.dwoName = "", ""
	if v, ok := d.get(slotCompDir); ok {
		u.compDir = u.str(v, u.buf)
	}
	if v, ok := d.get(slotDWOName); ok {
		u.dwoName = u.str(v, u.buf)
	}
}

// entry reads the entry at off of .debug_info. Strings in it are in u.scratch.
func (u *unit) entry(off uint64, d *die) error {
	// Few entries are larger than the first try.
	table, err := u.f.abbrevs.get(&u.f.abbrev, &u.header)
	if err != nil {
		return err
	}
	for n := uint64(256); ; n *= 16 {
		n = min(n, u.end-off)
		if u.scratch, err = u.f.info.copyAt(u.scratch[:0], off, n); err != nil {
			return err
		}
		code, at := uleb(u.scratch, 0)
		if code == 0 {
			return errMalformed
		}
		a := table.get(code)
		if a == nil {
			return errMalformed
		}
		if table.decode(a, u.scratch, at, &u.header, d) >= 0 {
			return nil
		}
		if n == u.end-off || n > maxName {
			return errMalformed
		}
	}
}

// str returns a string attribute of an entry in b; "" if there is none.
func (u *unit) str(v value, b []byte) string {
	switch v.form {
	case formString:
		if v.v < uint64(len(b)) {
			s := b[v.v:]
			if n := bytes.IndexByte(s, 0); n >= 0 && n <= maxName {
				return string(s[:n])
			}
		}
	case formStrp:
		return u.f.strings.get(&u.f.str, 0, v.v)
	case formLineStrp:
		return u.f.strings.get(&u.f.lineStr, 1, v.v)
	case formStrpSup, formGNUStrpAlt:
		if u.f.alt != nil {
			return u.f.alt.strings.get(&u.f.alt.str, 0, v.v)
		}
	case formStrx, formStrx1, formStrx2, formStrx3, formStrx4, formGNUStrIndex:
		size := uint64(u.offSize)
		if v.v > u.f.strOffsets.size/size {
			return ""
		}
		off, err := u.f.strOffsets.uint(u.strOffsetsBase+v.v*size, u.offSize)
		if err == nil {
			return u.f.strings.get(&u.f.str, 0, off)
		}
	}
	return ""
}

// isAddress reports whether v is an address rather than a constant.
func (v value) isAddress() bool {
	switch v.form {
	case formAddr, formAddrx, formAddrx1, formAddrx2, formAddrx3, formAddrx4, formGNUAddrIndex:
		return true
	}
	return false
}

// address returns an address attribute.
func (u *unit) address(v value) (uint64, error) {
	if v.form == formAddr {
		return v.v, nil
	}
	return u.indexedAddress(v.v)
}

func (u *unit) indexedAddress(index uint64) (uint64, error) {
	if index > u.addrs.addr.size/8 {
		return 0, errMalformed
	}
	return u.addrs.addr.uint(u.addrBase+index*8, 8)
}

// follow returns the unit and the offset in .debug_info of what v of u refers to.
func (u *unit) follow(v value) (to *unit, off uint64, err error) {
	switch v.form {
	case formRef1, formRef2, formRef4, formRef8, formRefUdata:
		if v.v < uint64(u.first) || v.v >= u.end-u.off {
			return nil, 0, errMalformed
		}
		return u, u.off + v.v, nil
	case formRefAddr:
		// Units of a package file do not refer to one another.
		if v.v >= u.off && v.v < u.end {
			return u, v.v, nil
		}
		to, err = u.f.unitAt(v.v)
		return to, v.v, err
	case formGNURefAlt, formRefSup4, formRefSup8:
		if u.f.alt == nil {
			return nil, 0, errNoSupplement
		}
		to, err = u.f.alt.unitAt(v.v)
		return to, v.v, err
	}
	return nil, 0, fmt.Errorf("reference of form %#x: %w", v.form, errMalformed)
}
