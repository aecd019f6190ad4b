// SPDX-License-Identifier: Apache-2.0

package hotspot

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

const (
	maxHeaps = 16
	// maxHeapBytes bounds the memory in use of one heap: the code cache is at most
	// 2 GiB (hotspot: CodeCache::max_code_cache_size), 240 MiB unless told otherwise.
	maxHeapBytes = 2 << 30
	// maxSegments bounds the segments of all heaps; one byte is read for each.
	maxSegments = 16 << 20
	// maxBlobs bounds the pieces of code of all heaps. A large server has 50 000.
	maxBlobs = 1 << 17
	// maxCode bounds the code read of all heaps, bytes: more than a code cache may
	// have unless told otherwise.
	maxCode = 256 << 20
	// maxRows bounds the rows made of that, of 16 bytes each. A large server has a
	// million.
	maxRows = 4 << 20
)

// heap is one code heap: memory in use, in segments.
type heap struct {
	low, high uint64
	shift     uint   // log2 of the segment size, bytes
	segmap    uint64 // address of its map of segments
	// segments is the map as read: 0 for the first segment of a block, 255 for one
	// never used, else how far back to look (hotspot/share/memory/heap.hpp).
	segments []byte
}

// blob is one piece of code: what a CodeBlob says of it.
type blob struct {
	addr       uint64
	begin, end uint64 // code
	name       uint64 // address of its name
	words      int    // frame size
	complete   int
	verified   uint64 // entries, 0 if there are none
	osr        uint64
	compileID  int64
}

// heapAddresses reads where the CodeHeaps are.
func (v *VM) heapAddresses() ([]uint64, error) {
	if v.layout.heaps.static {
		return v.heapArray()
	}
	p, err := v.mem.word(v.layout.heap.at)
	if err != nil || p == 0 {
		return nil, err
	}
	return []uint64{p}, nil
}

// heapArray is heapAddresses for virtual machines with several heaps.
func (v *VM) heapArray() ([]uint64, error) {
	l, m := v.layout, &v.mem
	array, err := m.word(l.heaps.at)
	if err != nil {
		return nil, err
	}
	if array == 0 {
		return nil, ErrNotReady
	}
	head, err := m.near(array, int(max(l.arrayLen.at+4, l.arrayData.at+8)))
	if err != nil {
		return nil, err
	}
	n, data := l.arrayLen.get(head), uint64(l.arrayData.get(head))
	if n < 0 || n > maxHeaps {
		return nil, fmt.Errorf("%d code heaps: %w", n, ErrUnknownLayout)
	}
	var at []uint64
	for i := range uint64(n) {
		p, err := m.word(data + 8*i)
		if err != nil {
			return nil, err
		}
		at = append(at, p)
	}
	return at, nil
}

// heaps reads where the code heaps are.
func (v *VM) heaps() ([]heap, error) {
	at, err := v.heapAddresses()
	if err != nil {
		return nil, err
	}
	var hs []heap
	for _, p := range at {
		h, err := v.heap(p)
		if err != nil {
			return nil, err
		}
		hs = append(hs, h)
	}
	if len(hs) == 0 {
		return nil, ErrNotReady
	}
	slices.SortFunc(hs, func(a, b heap) int { return cmp.Compare(a.low, b.low) })
	for i := range hs[1:] {
		if hs[i].high > hs[i+1].low {
			return nil, fmt.Errorf("code heaps overlap at %#x: %w", hs[i+1].low, ErrUnknownLayout)
		}
	}
	return hs, nil
}

// heap reads one heap, at the address of its CodeHeap.
func (v *VM) heap(at uint64) (heap, error) {
	l, m := v.layout, &v.mem
	var h heap
	for _, f := range []struct {
		at uint64
		to *uint64
	}{
		{l.heapMemory.at + l.low.at, &h.low}, {l.heapMemory.at + l.high.at, &h.high}, {l.heapSegmap.at + l.low.at, &h.segmap},
	} {
		w, err := m.word(at + f.at)
		if err != nil {
			return h, err
		}
		*f.to = w
	}
	b, err := m.near(at+l.heapShift.at, 4)
	if err != nil {
		return h, err
	}
	shift := field{size: 4, signed: true}.get(b)
	if h.low == h.high { // nothing committed
		return h, ErrNotReady
	}
	if h.low > h.high || h.high > math.MaxInt64 || h.high-h.low > maxHeapBytes || shift < 4 || shift > 16 {
		return h, fmt.Errorf("code heap %#x-%#x with segments of 2^%d bytes: %w", h.low, h.high, shift, ErrUnknownLayout)
	}
	h.shift = uint(shift)
	return h, nil
}

// readSegments reads the maps of segments and reports whether any differs from
// what it was in old.
func (v *VM) readSegments(hs, old []heap) (bool, error) {
	total, changed := uint64(0), len(hs) != len(old)
	for i := range hs {
		h := &hs[i]
		n := (h.high - h.low) >> h.shift
		if total += n; total > maxSegments {
			return false, fmt.Errorf("code heaps of more than %d segments: %w", maxSegments, ErrUnknownLayout)
		}
		h.segments = make([]byte, n)
		if err := v.mem.read(h.segments, h.segmap); err != nil {
			return false, fmt.Errorf("read map of code heap: %w", err)
		}
		changed = changed || old[i].low != h.low || old[i].shift != h.shift || !bytes.Equal(old[i].segments, h.segments)
	}
	return changed, nil
}

// readBlobs reads what there is in the heaps, in order of address. The virtual
// machine goes on meanwhile: a block that makes no sense is left out, and found when
// it is read next time. The error wraps ErrUnknownLayout if there is too much, and
// ErrTooSlow after the deadline.
func (v *VM) readBlobs(hs []heap) ([]blob, error) {
	var out []blob
	looked, code := 0, uint64(0)
	for i := range hs {
		h := &hs[i]
		for seg := 0; seg < len(h.segments); seg++ {
			next := bytes.IndexByte(h.segments[seg:], 0)
			if next < 0 {
				break
			}
			seg += next
			if looked++; looked%256 == 0 && time.Now().After(v.deadline) {
				return nil, fmt.Errorf("%d blocks looked at: %w", looked, ErrTooSlow)
			}
			b, ok := v.readBlob(h, h.low+uint64(seg)<<h.shift)
			if n := len(out); !ok || n > 0 && out[n-1].end > b.begin {
				continue
			}
			out = append(out, b)
			code += min(b.end-b.begin, maxBlobCode)
			if len(out) > v.limits.blobs || code > v.limits.code {
				return nil, fmt.Errorf("%d pieces of code, of %d bytes: %w", len(out), code, ErrUnknownLayout)
			}
		}
	}
	return out, nil
}

// readBlob reads the block at an address.
func (v *VM) readBlob(h *heap, at uint64) (blob, bool) {
	l := v.layout
	room := h.high - at
	n := int(l.blockSize) + l.blobBytes
	if uint64(n) > room {
		return blob{}, false
	}
	raw, err := v.mem.near(at, n)
	if err != nil {
		return blob{}, false
	}
	length := uint64(l.blockLength.get(raw)) << h.shift
	if l.blockUsed.get(raw) != 1 || length <= l.blockSize || length > room {
		return blob{}, false
	}
	raw = raw[l.blockSize:]
	b := blob{
		addr: at + l.blockSize, name: uint64(l.name.get(raw)),
		words: int(l.frame.get(raw)), complete: int(l.complete.get(raw)), compileID: l.compileID.get(raw),
		osr: uint64(l.osr.get(raw)), verified: uint64(l.verified.get(raw)),
	}
	if l.codeBegin.size != 0 {
		b.begin, b.end = uint64(l.codeBegin.get(raw)), uint64(l.codeEnd.get(raw))
	} else {
		b.begin, b.end = b.addr+uint64(l.codeOff.get(raw)), b.addr+uint64(l.dataOff.get(raw))
	}
	if l.verifiedOff.size != 0 {
		b.verified = b.begin + uint64(l.verifiedOff.get(raw))
	}
	size := l.size.get(raw)
	end := at + length
	ok := b.name != 0 && size > 0 && uint64(size) <= length && b.begin > b.addr && b.begin < b.end && b.end <= end
	return b, ok
}
