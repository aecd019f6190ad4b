// SPDX-License-Identifier: Apache-2.0

package index

import (
	"errors"
	"fmt"
	"io"
	"sync"
)

// Blocks is a cache of blocks that indexes share. It is bounded in bytes; memory is
// taken as blocks are read. Safe for concurrent use; lookups through one Blocks run
// one after the other.
type Blocks struct {
	mu    sync.Mutex // guards all below, and the scratch of all indexes
	max   int
	bytes int
	slots map[blockKey]*slot
	// ring holds the slots; next of the ring is the one used last.
	ring   slot
	lastID uint64

	code    codeBlock
	str     []byte
	strings [keptStrings]keptString
}

// Strings read lately are kept beside the blocks: of paths and inlined functions a
// few are most of what is asked for.
const (
	keptStrings = 1 << 10
	// maxKept is the longest string that is kept, so that all take 256 KiB at most.
	maxKept = 256
)

type keptString struct {
	index uint64
	id    uint32 // its number, and which section it is of in the lowest bit
	s     string
}

// kept returns the place for a string.
func (b *Blocks) kept(index uint64, id uint32) *keptString {
	h := (index<<32 + uint64(id)) * 0x9e3779b97f4a7c15
	return &b.strings[h>>54]
}

// DefaultBlocks is a good size for NewBlocks, in bytes.
const DefaultBlocks = 1 << 20

type blockKey struct{ index, off uint64 }

type slot struct {
	key        blockKey
	buf        []byte // the block with its checksum
	prev, next *slot
}

// slotBytes is what a slot takes beside its block.
const slotBytes = 128

// NewBlocks returns a cache that keeps blocks of max bytes together, and at least the
// one read last.
func NewBlocks(max int) *Blocks {
	b := &Blocks{max: max, slots: map[blockKey]*slot{}}
	b.ring.prev, b.ring.next = &b.ring, &b.ring
	return b
}

// get returns what the block at off holds, size bytes with its checksum. It is valid
// until the next get. The caller holds b.mu.
func (b *Blocks) get(r io.ReaderAt, key blockKey, size uint32) ([]byte, error) {
	if s := b.slots[key]; s != nil && len(s.buf) == int(size) {
		s.unlink()
		s.link(&b.ring)
		return s.buf[:size-crcSize], nil
	}
	if size > maxBlock || size < crcSize {
		return nil, fmt.Errorf("block of %d bytes: %w", size, ErrFormat)
	}
	s := b.room(int(size))
	s.buf = s.buf[:size]
	n, err := r.ReadAt(s.buf, int64(key.off))
	if n < len(s.buf) {
		if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = ErrFormat
		}
		return nil, fmt.Errorf("read index at %d: %w", key.off, err)
	}
	data, err := checkCRC(s.buf)
	if err != nil {
		return nil, fmt.Errorf("read index at %d: %w", key.off, err)
	}
	b.insert(s, key)
	return data, nil
}

// room returns a slot that is not in the ring, with a buffer for size bytes, and
// drops those used longest ago until there is room for it.
func (b *Blocks) room(size int) *slot {
	var s *slot
	for b.bytes+size+slotBytes > b.max && b.ring.prev != &b.ring {
		s = b.ring.prev
		b.remove(s)
	}
	if s == nil {
		s = &slot{}
	}
	if cap(s.buf) < size || cap(s.buf) > 2*size {
		s.buf = make([]byte, size)
	}
	for b.bytes+cap(s.buf)+slotBytes > b.max && b.ring.prev != &b.ring {
		b.remove(b.ring.prev)
	}
	return s
}

func (b *Blocks) insert(s *slot, key blockKey) {
	if old := b.slots[key]; old != nil {
		b.remove(old)
	}
	s.key = key
	b.slots[key] = s
	b.bytes += cap(s.buf) + slotBytes
	s.link(&b.ring)
}

func (b *Blocks) remove(s *slot) {
	s.unlink()
	delete(b.slots, s.key)
	b.bytes -= cap(s.buf) + slotBytes
}

// drop removes the blocks of one index.
func (b *Blocks) drop(index uint64) {
	for s := b.ring.next; s != &b.ring; {
		next := s.next
		if s.key.index == index {
			b.remove(s)
		}
		s = next
	}
}

func (s *slot) link(ring *slot) {
	s.prev, s.next = ring, ring.next
	s.prev.next, s.next.prev = s, s
}

func (s *slot) unlink() { s.prev.next, s.next.prev = s.next, s.prev }
