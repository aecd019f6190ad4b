// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"bytes"
	"fmt"
	"io"
)

// BlockSize is the unit Blocks reads and keeps: small, because tables in files
// are mostly looked up at random.
const BlockSize = 4096

// ways is the associativity of the cache: of the blocks that may hold an
// address, the one longest unused is replaced.
const ways = 4

// Blocks reads a file through a small cache of blocks. Memory is bounded by the
// number of blocks and taken as they are used. Not safe for concurrent use.
type Blocks struct {
	r    io.ReaderAt
	size int64
	mask uint64
	sets [][ways]block
	tick uint64
}

type block struct {
	data []byte // what is there of the block: all of it but at the end of the file
	no   int64
	used uint64 // 0: empty
}

// NewBlocks returns a cache over the first size bytes of r that keeps at most n
// blocks, n rounded up to a power of two and at least 4.
func NewBlocks(r io.ReaderAt, size int64, n int) *Blocks {
	sets := 1
	for sets*ways < n {
		sets *= 2
	}
	return &Blocks{r: r, size: size, mask: uint64(sets - 1), sets: make([][ways]block, sets)}
}

// At returns the bytes from off to the end of its block, at least one. They are
// valid until the next call of any method. Past the end of the file the error is
// ErrShort.
func (b *Blocks) At(off int64) ([]byte, error) {
	if off < 0 || off >= b.size {
		return nil, ErrShort
	}
	no, in := off/BlockSize, int(off%BlockSize)
	// Tables that are read side by side often lie a power of two apart.
	set := &b.sets[(uint64(no)^uint64(no)>>7)&b.mask]
	b.tick++
	old := 0
	for i := range set {
		if set[i].no == no && set[i].used != 0 {
			set[i].used = b.tick
			return set[i].from(in)
		}
		if set[i].used < set[old].used {
			old = i
		}
	}
	if err := b.load(&set[old], no); err != nil {
		return nil, err
	}
	return set[old].from(in)
}

func (l *block) from(in int) ([]byte, error) {
	if in >= len(l.data) {
		return nil, ErrShort
	}
	return l.data[in:], nil
}

func (b *Blocks) load(l *block, no int64) error {
	if l.data == nil {
		l.data = make([]byte, BlockSize)
	}
	l.used = 0
	l.data = l.data[:min(BlockSize, b.size-no*BlockSize)]
	n, err := b.r.ReadAt(l.data, no*BlockSize)
	// A file that shrank since its size was taken ends here.
	if err != nil && err != io.EOF {
		return fmt.Errorf("read at %#x: %w", no*BlockSize, err)
	}
	l.data, l.no, l.used = l.data[:n], no, b.tick
	return nil
}

// ReadAt fills p with the bytes at off, or fails; n is len(p) or 0.
func (b *Blocks) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		src, err := b.At(off + int64(n))
		if err != nil {
			return 0, err
		}
		n += copy(p[n:], src)
	}
	return n, nil
}

// AppendCString appends the bytes from off up to a NUL to dst. If there is none
// within limit bytes it returns dst as it was and ErrShort.
func (b *Blocks) AppendCString(dst []byte, off int64, limit int) ([]byte, error) {
	start := len(dst)
	for {
		src, err := b.At(off + int64(len(dst)-start))
		if err != nil {
			return dst[:start], err
		}
		if end := bytes.IndexByte(src, 0); end >= 0 {
			src = src[:end]
			if len(dst)-start+end > limit {
				return dst[:start], ErrShort
			}
			return append(dst, src...), nil
		}
		if len(dst)-start+len(src) > limit {
			return dst[:start], ErrShort
		}
		dst = append(dst, src...)
	}
}

// Drop forgets every block and gives up the memory.
func (b *Blocks) Drop() {
	clear(b.sets)
}
