// SPDX-License-Identifier: Apache-2.0

package dwarf

import (
	"debug/elf"
	"encoding/binary"

	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/stack"
)

const (
	// maxRanges is how many entries the range lists of a unit may have.
	maxRanges = 2 << 20
	// rangeChunk is how much of a list is looked at at once.
	rangeChunk = 4 << 10
)

// Kinds of entries of range lists, DWARF 5 §7.25.
const (
	rleEndOfList = iota
	rleBaseAddressx
	rleStartxEndx
	rleStartxLength
	rleOffsetPair
	rleBaseAddress
	rleStartEnd
	rleStartLength
)

// code is where a file has instructions. What describes code elsewhere is of
// functions that the linker threw away: it leaves their addresses 0, or sets them to
// small numbers, or -1 or -2.
type code struct {
	ranges []Range
	last   Range
	// budget is how many more entries of range lists a unit may make us read: a
	// hostile one refers to the same long list again and again.
	budget int
}

func codeOf(o *objfile.Object) code {
	var c code
	for _, s := range o.Sections {
		if s.Flags&(elf.SHF_ALLOC|elf.SHF_EXECINSTR) == elf.SHF_ALLOC|elf.SHF_EXECINSTR && s.Addr+stack.LinkAddr(s.Size) >= s.Addr {
			c.ranges = append(c.ranges, Range{s.Addr, s.Addr + stack.LinkAddr(s.Size)})
		}
	}
	if c.ranges == nil {
		for _, s := range o.Segments {
			if s.Exec {
				c.ranges = append(c.ranges, Range{s.Addr, s.Addr + stack.LinkAddr(s.MemSize)})
			}
		}
	}
	return c
}

// has reports whether there is an instruction at addr.
func (c *code) has(addr stack.LinkAddr) bool {
	if addr >= c.last.Begin && addr < c.last.End {
		return true
	}
	for _, r := range c.ranges {
		if addr >= r.Begin && addr < r.End {
			c.last = r
			return true
		}
	}
	return false
}

// ranges appends the ranges of code of an entry to dst.
func (u *unit) ranges(d *die, c *code, dst []Range) ([]Range, error) {
	if v, ok := d.get(slotRanges); ok {
		if u.version >= 5 {
			return u.rnglist(v, c, dst)
		}
		return u.rangeList(v, c, dst)
	}
	low, ok := d.get(slotLow)
	high, ok2 := d.get(slotHigh)
	if !ok || !ok2 {
		return dst, nil
	}
	begin, err := u.address(low)
	if err != nil {
		return dst, err
	}
	end := begin + high.v
	if high.isAddress() {
		if end, err = u.address(high); err != nil {
			return dst, err
		}
	}
	return c.add(dst, begin, end), nil
}

func (c *code) add(dst []Range, begin, end uint64) []Range {
	if begin >= end || !c.has(stack.LinkAddr(begin)) {
		return dst
	}
	return append(dst, Range{stack.LinkAddr(begin), stack.LinkAddr(end)})
}

// dead reports whether an address stands for code that was thrown away, as LLVM's
// linker marks it.
func dead(base uint64) bool { return base >= 1<<64-2 }

// rangeList reads a list of .debug_ranges, DWARF 4 §2.17.3.
func (u *unit) rangeList(v value, c *code, dst []Range) ([]Range, error) {
	off, base := v.v, u.low
	if u.f.dwo {
		off += u.gnuRangesBase
	}
	for c.budget > 0 {
		b, err := u.addrs.ranges.view(off, rangeChunk)
		if err != nil {
			return dst, err
		}
		if len(b) < 16 {
			return dst, errMalformed
		}
		for ; len(b) >= 16; b = b[16:] {
			begin, end := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
			off += 16
			c.budget--
			switch {
			case begin == 0 && end == 0:
				return dst, nil
			case begin == 1<<64-1:
				base = end
			case !dead(base) && !dead(begin):
				dst = c.add(dst, base+begin, base+end)
			}
		}
	}
	return dst, errMalformed
}

// rnglist reads a list of .debug_rnglists, DWARF 5 §2.17.3.
func (u *unit) rnglist(v value, c *code, dst []Range) ([]Range, error) {
	s, off := &u.f.rnglists, v.v
	if v.form == formRnglistx {
		if v.v > s.size {
			return dst, errMalformed
		}
		rel, err := s.uint(u.rnglistsBase+v.v*uint64(u.offSize), u.offSize)
		if err != nil {
			return dst, err
		}
		off = u.rnglistsBase + rel
	}
	l := rangeReader{u: u, c: c, base: u.low}
	for c.budget > 0 {
		b, err := s.view(off, rangeChunk)
		if err != nil {
			return dst, err
		}
		at := 0
		// An entry has at most 1+10+10 bytes, so but at the end of the section
		// those that begin in time are whole.
		for at < len(b) && (len(b)-at >= 21 || off+uint64(len(b)) >= s.size) {
			if dst, at = l.entry(b, at, dst); at < 0 {
				return dst, errMalformed
			}
			if l.end {
				return dst, nil
			}
			c.budget--
		}
		if at == 0 {
			return dst, errMalformed
		}
		off += uint64(at)
	}
	return dst, errMalformed
}

// rangeReader is the state of a list of ranges.
type rangeReader struct {
	u    *unit
	c    *code
	base uint64
	end  bool
}

// entry reads one entry at b[at:] and returns where it ends, -1 if it makes no sense.
func (l *rangeReader) entry(b []byte, at int, dst []Range) ([]Range, int) {
	kind := b[at]
	at++
	var x, y uint64
	switch kind {
	case rleEndOfList:
		l.end = true
		return dst, at
	case rleBaseAddressx, rleBaseAddress:
		x, at = l.operand(b, at, kind == rleBaseAddress)
		if at >= 0 && kind == rleBaseAddressx {
			x, at = l.indexed(x, at)
		}
		l.base = x
		return dst, at
	case rleStartxEndx, rleStartxLength, rleOffsetPair:
		if x, at = l.operand(b, at, false); at >= 0 {
			y, at = l.operand(b, at, false)
		}
	case rleStartEnd, rleStartLength:
		if x, at = l.operand(b, at, true); at >= 0 {
			y, at = l.operand(b, at, kind == rleStartEnd)
		}
	default:
		return dst, -1
	}
	if at >= 0 && (kind == rleStartxEndx || kind == rleStartxLength) {
		if x, at = l.indexed(x, at); at >= 0 && kind == rleStartxEndx {
			y, at = l.indexed(y, at)
		}
	}
	if at < 0 {
		return dst, -1
	}
	switch kind {
	case rleOffsetPair:
		if dead(l.base) {
			return dst, at
		}
		x, y = l.base+x, l.base+y
	case rleStartxLength, rleStartLength:
		y += x
	}
	return l.c.add(dst, x, y), at
}

// operand reads an address or a LEB128 number.
func (l *rangeReader) operand(b []byte, at int, address bool) (uint64, int) {
	if !address {
		return uleb(b, at)
	}
	if len(b)-at < 8 {
		return 0, -1
	}
	return binary.LittleEndian.Uint64(b[at:]), at + 8
}

func (l *rangeReader) indexed(index uint64, at int) (uint64, int) {
	addr, err := l.u.indexedAddress(index)
	if err != nil {
		return 0, -1
	}
	return addr, at
}
