// SPDX-License-Identifier: Apache-2.0

package hotspot

import (
	"cmp"
	"hash/maphash"
	"io"
	"slices"
	"time"

	"github.com/lowflame/lowflame/unwind"
)

// VM is the virtual machine of one process. Not safe for concurrent use.
type VM struct {
	layout *layout
	mem    memory
	code   unwind.RuntimeCode
	seed   maphash.Seed

	old       []heap
	known     map[uint64]*known // by blob.addr
	blobNames map[uint64]string
	buf       []byte
	opened    time.Time
	read      time.Time // when all blobs were read last
}

// ChunkBytes is the size of the pieces that tables are made of, aligned: what
// changes in one piece leaves the others' tables alone.
const ChunkBytes = 1 << 19

// Chunk is a piece of the code cache, [Begin, End) in process addresses, which may
// reach beyond the heap it is in. Table is in process addresses too, and covers the
// part there is code in; nil if there is none any more.
type Chunk struct {
	Begin, End uint64
	Table      *unwind.Table
}

// Range is a range of process addresses, [Begin, End).
type Range struct{ Begin, End uint64 }

const (
	// startTime is how long after Open code other than methods may still change.
	startTime = 15 * time.Second
	// maxAge is after which time all blobs are read anew though the heaps look the
	// same: a method may have been replaced by one of the same size.
	maxAge = 5 * time.Second
)

// Open reads how the virtual machine of a process describes itself. mem reads the
// process's memory, an offset being an address; bias is what to add to the symbols.
// The error wraps ErrUnknownLayout if the description is not understood.
func Open(symbols Symbols, bias uint64, mem io.ReaderAt) (*VM, error) {
	v := &VM{
		mem: memory{r: mem}, seed: maphash.MakeSeed(), opened: time.Now(),
		known: map[uint64]*known{}, blobNames: map[uint64]string{},
	}
	var err error
	v.layout, err = readLayout(&v.mem, symbols, bias)
	if err != nil {
		return nil, err
	}
	return v, nil
}

// Refresh reads the code cache again. It returns the pieces whose code has changed
// since the last call, and the memory in use of all code heaps, by address. The error
// wraps ErrNotReady while there is no code cache.
func (v *VM) Refresh() ([]Chunk, []Range, error) {
	v.mem.forget()
	hs, err := v.heaps()
	if err != nil {
		return nil, nil, err
	}
	changed, err := v.readSegments(hs, v.old)
	if err != nil {
		return nil, nil, err
	}
	ranges := make([]Range, len(hs))
	for i := range hs {
		ranges[i] = Range{hs[i].low, hs[i].high}
	}
	if !changed && time.Since(v.read) < maxAge && time.Since(v.opened) > startTime && !v.anyFresh() {
		return nil, ranges, nil
	}
	v.mem.forget()
	dirty := v.update(v.readBlobs(hs))
	v.old, v.read = hs, time.Now()
	chunks, err := v.chunks(dirty)
	return chunks, ranges, err
}

func (v *VM) anyFresh() bool {
	for _, k := range v.known {
		if k.fresh {
			return true
		}
	}
	return false
}

// update looks at the code of blobs that are new, and drops those gone. It returns
// the pieces of the code cache that change with that, by where they begin.
func (v *VM) update(blobs []blob) map[uint64]bool {
	dirty := map[uint64]bool{}
	touch := func(b *blob) {
		for at := b.begin &^ (ChunkBytes - 1); at < b.end; at += ChunkBytes {
			dirty[at] = true
		}
	}
	starting := time.Since(v.opened) < startTime
	next := make(map[uint64]*known, len(blobs))
	for i := range blobs {
		b := &blobs[i]
		old := v.known[b.addr]
		if old != nil && old.blob == *b && !old.fresh && (!old.static || !starting) {
			next[b.addr] = old
			continue
		}
		if old != nil && old.blob == *b && v.same(old) {
			old.fresh = false
			next[b.addr] = old
			continue
		}
		k, err := v.scan(b)
		if err != nil {
			continue // gone meanwhile
		}
		k.fresh = len(k.rows) > 2 // else they are not made of the code
		next[b.addr] = &k
		touch(b)
	}
	for addr, old := range v.known {
		if next[addr] == nil || next[addr].blob != old.blob {
			touch(&old.blob)
		}
	}
	v.known = next
	return dirty
}

// same reports whether the code of a blob is still what was looked at.
func (v *VM) same(k *known) bool {
	code := v.buffer(int(min(k.end-k.begin, maxBlobCode)))
	return v.mem.read(code, k.begin) == nil && maphash.Bytes(v.seed, code) == k.hash
}

// chunks makes the tables of the pieces that are dirty.
func (v *VM) chunks(dirty map[uint64]bool) ([]Chunk, error) {
	if len(dirty) == 0 {
		return nil, nil
	}
	blobs := make([]*known, 0, len(v.known))
	for _, k := range v.known {
		blobs = append(blobs, k)
	}
	slices.SortFunc(blobs, func(a, b *known) int { return cmp.Compare(a.begin, b.begin) })
	var out []Chunk
	for begin := range dirty {
		c := Chunk{Begin: begin, End: begin + ChunkBytes}
		if rows := rowsIn(blobs, c.Begin, c.End); len(rows) > 0 {
			var err error
			if c.Table, err = v.code.Table(rows, rows[len(rows)-1].PC); err != nil {
				return nil, err
			}
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b Chunk) int { return cmp.Compare(a.Begin, b.Begin) })
	return out, nil
}

// rowsIn returns the rows of blobs, sorted by address, that lie in [begin, end). The
// last one has no rule.
func rowsIn(blobs []*known, begin, end uint64) []unwind.RuntimeRow {
	first, _ := slices.BinarySearchFunc(blobs, begin, func(k *known, at uint64) int {
		if k.end <= at {
			return -1
		}
		return 1
	})
	var out []unwind.RuntimeRow
	for _, k := range blobs[first:] {
		if k.begin >= end {
			break
		}
		for i, row := range k.rows {
			if i+1 < len(k.rows) && k.rows[i+1].PC <= begin {
				continue // the next is in force where the piece begins
			}
			if row.PC = max(row.PC, begin); row.PC >= end {
				break
			}
			out = append(out, row)
		}
	}
	if n := len(out); n > 0 && out[n-1].Rule != 0 {
		out = append(out, unwind.RuntimeRow{PC: end})
	}
	return out
}
