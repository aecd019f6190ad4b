// SPDX-License-Identifier: Apache-2.0

package objfile

import (
	"io"

	"github.com/lowflame/lowflame/stack"
)

// Segment is a PT_LOAD program header: FileSize bytes at Off of the file that
// are loaded at Addr. Neither sum overflows, but the bytes may lie beyond the
// end of a truncated file.
type Segment struct {
	Off      stack.FileOff
	Addr     stack.LinkAddr
	FileSize uint64
	MemSize  uint64 // at least FileSize; the rest is zeros
	Align    uint64
	Exec     bool
	Write    bool
}

// maxPage is the largest page size of the kernels we run on (arm64).
const maxPage = 64 << 10

// LinkAddr returns the link-time address of the byte of code at off of the file,
// by the executable segment that holds it. ok is false if none does.
//
// Mappings begin on a page, segments need not: an offset in the page before the
// first byte of a segment belongs to it too. To place a whole mapping use Bias,
// which cannot mistake the segment before for it.
func (o *Object) LinkAddr(off stack.FileOff) (addr stack.LinkAddr, ok bool) {
	for i := range o.Segments {
		s := &o.Segments[i]
		if s.Exec && off >= s.Off && uint64(off-s.Off) < s.FileSize {
			return s.Addr + stack.LinkAddr(off-s.Off), true
		}
	}
	var best uint64 = maxPage
	for i := range o.Segments {
		s := &o.Segments[i]
		before := uint64(s.Off - off) // huge unless off is before the segment
		if s.Exec && before < min(s.Align, best) && before <= uint64(s.Addr) {
			best, addr, ok = before, s.Addr-stack.LinkAddr(before), true
		}
	}
	return addr, ok
}

// Bias returns the load bias of a mapping: process address minus link-time
// address, modulo 2^64. The mapping is of the file from off to [begin, end). ok is
// false if it has no byte of an executable segment.
//
// Of several executable segments the one with most bytes in the mapping is it;
// one page may hold the end of a segment and the start of the next.
func (o *Object) Bias(begin, end stack.Addr, off stack.FileOff) (bias uint64, ok bool) {
	if end <= begin {
		return 0, false
	}
	first, last := uint64(off), uint64(off)+uint64(end-begin)
	if last < first {
		return 0, false
	}
	var most uint64
	for i := range o.Segments {
		s := &o.Segments[i]
		if !s.Exec {
			continue
		}
		lo, hi := max(first, uint64(s.Off)), min(last, uint64(s.Off)+s.FileSize)
		if hi > lo && hi-lo > most {
			most = hi - lo
			bias = uint64(begin) - uint64(off) + uint64(s.Off) - uint64(s.Addr)
		}
	}
	return bias, most > 0
}

// FileOff returns where in the file the byte at a link-time address is. ok is
// false if the file does not hold it.
func (o *Object) FileOff(addr stack.LinkAddr) (off stack.FileOff, ok bool) {
	off, _, ok = o.locate(addr)
	return off, ok
}

// locate also returns how many bytes of the segment follow in the file.
func (o *Object) locate(addr stack.LinkAddr) (off stack.FileOff, rest uint64, ok bool) {
	for i := range o.Segments {
		s := &o.Segments[i]
		if addr >= s.Addr && uint64(addr-s.Addr) < s.FileSize {
			in := uint64(addr - s.Addr)
			return s.Off + stack.FileOff(in), s.FileSize - in, true
		}
	}
	return 0, 0, false
}

// ReadAt reads the bytes that the file loads at a link-time address, before
// relocation, like io.ReaderAt: fewer bytes than asked for come with an error,
// io.EOF at the end of a segment. Memory that the file does not back (.bss) gives
// io.EOF.
func (o *Object) ReadAt(p []byte, addr stack.LinkAddr) (int, error) {
	off, rest, ok := o.locate(addr)
	if !ok || uint64(off) >= uint64(o.size) {
		return 0, io.EOF
	}
	want := min(uint64(len(p)), rest, uint64(o.size)-uint64(off))
	n, err := o.r.ReadAt(p[:want], int64(off))
	if n == len(p) {
		return n, nil
	}
	if err == nil {
		err = io.EOF
	}
	return n, err
}
