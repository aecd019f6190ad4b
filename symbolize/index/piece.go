// SPDX-License-Identifier: Apache-2.0

package index

import (
	"encoding/binary"
	"fmt"
)

// call is a function or an inlined call, and where the call is. Strings are numbers
// of stringWriters.
type call struct {
	name, start, declFile uint32
	callFile, callLine    uint32
}

// segment is code of one chain of calls and one line.
type segment struct {
	addr uint64
	// keep is how many calls of the segment before hold on; behind them come
	// the ones of calls[first : first+push], outermost first.
	keep, push, first int
	file, line        uint32
}

// segments is code without a gap: a part of a function, or code of which only lines
// are known. Reused.
type segments struct {
	begin, end uint64
	segs       []segment
	calls      []call
}

func (p *segments) reset(begin, end uint64) {
	*p = segments{begin: begin, end: end, segs: p.segs[:0], calls: p.calls[:0]}
}

// piece is segments on their way through a temporary file.
type piece struct {
	begin, end uint64
	// rank decides between pieces that overlap: the lower one is shown.
	rank uint64
	data []byte
}

// onlyLines is set in the rank of a piece without functions.
const onlyLines = 1 << 63

// appendSegment appends s to the data of a piece; last is the address of the segment
// before, or where the piece begins.
func appendSegment(dst []byte, s *segment, calls []call, last uint64) []byte {
	dst = binary.AppendUvarint(dst, s.addr-last)
	dst = binary.AppendUvarint(dst, uint64(s.keep))
	dst = binary.AppendUvarint(dst, uint64(s.push))
	for _, c := range calls[s.first : s.first+s.push] {
		for _, v := range [...]uint32{c.name, c.start, c.declFile, c.callFile, c.callLine} {
			dst = binary.AppendUvarint(dst, uint64(v))
		}
	}
	dst = binary.AppendUvarint(dst, uint64(s.file))
	return binary.AppendUvarint(dst, uint64(s.line))
}

// unpack sets out to what of the piece lies in [begin, end).
func (p *piece) unpack(out *segments, begin, end uint64) error {
	out.reset(begin, end)
	d := reader{data: p.data}
	var stack [maxDepth]call
	depth, held := 0, 0 // calls there are, and of those, how many out has
	addr := p.begin
	var pending segment // the one begin is in
	waiting := false
	flush := func() {
		pending.keep, pending.push, pending.first = held, depth-held, len(out.calls)
		out.calls = append(out.calls, stack[held:depth]...)
		out.segs = append(out.segs, pending)
		held, waiting = depth, false
	}
	for d.more() {
		addr += d.uvarint()
		if addr > begin && waiting {
			flush()
		}
		if addr >= end {
			break
		}
		keep, push := d.uint32(), d.uint32()
		if int(keep) > depth || int(keep)+int(push) > maxDepth {
			return fmt.Errorf("merge pieces of an index: %w", errTemp)
		}
		depth, held = int(keep), min(held, int(keep))
		for range push {
			stack[depth] = call{d.uint32(), d.uint32(), d.uint32(), d.uint32(), d.uint32()}
			depth++
		}
		pending = segment{addr: max(addr, begin), file: d.uint32(), line: d.uint32()}
		waiting = true
	}
	if waiting {
		flush()
	}
	if d.bad {
		return fmt.Errorf("merge pieces of an index: %w", errTemp)
	}
	return nil
}

// reader reads numbers from bytes; what is not there is 0 and sets bad.
type reader struct {
	data []byte
	at   int
	bad  bool
}

func (r *reader) more() bool { return r.at < len(r.data) && !r.bad }

func (r *reader) uvarint() uint64 {
	if at := r.at; at < len(r.data) && r.data[at] < 0x80 {
		r.at = at + 1
		return uint64(r.data[at])
	}
	return r.long()
}

// long reads a number of more than 7 bits.
func (r *reader) long() uint64 {
	if at := r.at; at < len(r.data)-1 && r.data[at+1] < 0x80 {
		r.at = at + 2
		return uint64(r.data[at]&0x7f) | uint64(r.data[at+1])<<7
	}
	v, n := binary.Uvarint(r.data[min(r.at, len(r.data)):])
	if n <= 0 {
		r.bad, r.at = true, len(r.data)
		return 0
	}
	r.at += n
	return v
}

func (r *reader) uint32() uint32 {
	v := r.uvarint()
	if v > 1<<32-1 {
		r.bad, r.at = true, len(r.data)
		return 0
	}
	return uint32(v)
}

func (r *reader) varint() int64 {
	v := r.uvarint()
	return int64(v>>1) ^ -int64(v&1)
}

// count reads how many things of at least size bytes follow.
func (r *reader) count(size int) int {
	v := r.uvarint()
	if v > uint64((len(r.data)-r.at)/size) {
		r.bad, r.at = true, len(r.data)
		return 0
	}
	return int(v)
}

// bytes returns the next n bytes.
func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.data)-r.at) {
		r.bad, r.at = true, len(r.data)
		return nil
	}
	b := r.data[r.at : r.at+int(n)]
	r.at += int(n)
	return b
}
