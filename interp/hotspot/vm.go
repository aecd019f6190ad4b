// SPDX-License-Identifier: Apache-2.0

package hotspot

import (
	"cmp"
	"fmt"
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

	limits   limits
	deadline time.Time       // of the refresh under way
	dirty    map[uint64]bool // pieces whose tables are to be made, by where they begin
	rows     int             // of all known
}

// limits bound what a refresh reads and keeps.
type limits struct {
	blobs, rows int
	code        uint64 // bytes
	time        time.Duration
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
	// maxTime is how long a refresh may take, but for making the tables.
	maxTime = 1500 * time.Millisecond
)

// Open reads how the virtual machine of a process describes itself. mem reads the
// process's memory, an offset being an address; bias is what to add to the symbols.
// The error wraps ErrUnknownLayout if the description is not understood.
func Open(symbols Symbols, bias uint64, mem io.ReaderAt) (*VM, error) {
	v := &VM{
		mem: memory{r: mem}, seed: maphash.MakeSeed(), opened: time.Now(),
		known: map[uint64]*known{}, blobNames: map[uint64]string{}, dirty: map[uint64]bool{},
		limits: limits{blobs: maxBlobs, rows: maxRows, code: maxCode, time: maxTime},
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
// wraps ErrNotReady while there is no code cache, and ErrUnknownLayout if there is more
// in it than a virtual machine has. What there was no time for is left to the next
// call; the error wraps ErrTooSlow if that is everything.
func (v *VM) Refresh() ([]Chunk, []Range, error) {
	v.mem.forget()
	v.deadline = time.Now().Add(v.limits.time)
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
	if !changed && len(v.dirty) == 0 && time.Since(v.read) < maxAge && time.Since(v.opened) > startTime && !v.anyFresh() {
		return nil, ranges, nil
	}
	v.mem.forget()
	blobs, err := v.readBlobs(hs)
	if err != nil {
		return nil, nil, err
	}
	whole, err := v.update(blobs)
	if err != nil {
		return nil, nil, err
	}
	if v.old, v.read = nil, time.Now(); whole {
		v.old = hs
	}
	chunks, err := v.chunks()
	return chunks, ranges, err
}

// Rows is how many rows are kept, of 16 bytes each.
func (v *VM) Rows() int { return v.rows }

func (v *VM) anyFresh() bool {
	for _, k := range v.known {
		if k.fresh {
			return true
		}
	}
	return false
}

// update looks at the code of blobs that are new, drops those gone, and notes the
// pieces of the code cache that change with that. It returns false if the deadline
// left some new blobs out, and an error if there are too many rows.
func (v *VM) update(blobs []blob) (whole bool, err error) {
	next := make(map[uint64]*known, len(blobs))
	whole, v.rows = true, 0
	for i := range blobs {
		b := &blobs[i]
		k := v.known[b.addr]
		if k != nil && k.blob != *b {
			k = nil
		}
		if whole = whole && (i == 0 || time.Now().Before(v.deadline)); whole {
			k = v.current(k, b)
		}
		if k == nil {
			continue
		}
		next[b.addr] = k
		if v.rows += len(k.rows); v.rows > v.limits.rows {
			return false, fmt.Errorf("more than %d rows of code: %w", v.limits.rows, ErrUnknownLayout)
		}
	}
	for addr, old := range v.known {
		if next[addr] == nil || next[addr].blob != old.blob {
			v.touch(&old.blob)
		}
	}
	v.known = next
	return whole, nil
}

// touch notes that the tables of the pieces a blob is in are to be made.
func (v *VM) touch(b *blob) {
	for at := b.begin &^ (ChunkBytes - 1); at < b.end; at += ChunkBytes {
		v.dirty[at] = true
	}
}

// current returns what there is to know of the code of a blob, of which old, if not
// nil, was known; nil if it has gone meanwhile.
func (v *VM) current(old *known, b *blob) *known {
	starting := time.Since(v.opened) < startTime
	switch {
	case old == nil:
	case !old.fresh && (!old.static || !starting):
		return old
	case v.same(old):
		old.fresh = false
		return old
	}
	k, err := v.scan(b)
	if err != nil {
		return nil
	}
	k.fresh = len(k.rows) > 2 // else they are not made of the code
	v.touch(b)
	return &k
}

// same reports whether the code of a blob is still what was looked at.
func (v *VM) same(k *known) bool {
	code := v.buffer(int(min(k.end-k.begin, maxBlobCode)))
	return v.mem.read(code, k.begin) == nil && maphash.Bytes(v.seed, code) == k.hash
}

// chunks makes the tables of the pieces that are dirty. After an error they are still.
func (v *VM) chunks() ([]Chunk, error) {
	if len(v.dirty) == 0 {
		return nil, nil
	}
	blobs := make([]*known, 0, len(v.known))
	for _, k := range v.known {
		blobs = append(blobs, k)
	}
	slices.SortFunc(blobs, func(a, b *known) int { return cmp.Compare(a.begin, b.begin) })
	var out []Chunk
	for begin := range v.dirty {
		c := Chunk{Begin: begin, End: begin + ChunkBytes}
		if rows := rowsIn(blobs, c.Begin, c.End); len(rows) > 0 {
			var err error
			if c.Table, err = v.code.Table(rows, rows[len(rows)-1].PC); err != nil {
				return nil, err
			}
		}
		out = append(out, c)
	}
	clear(v.dirty)
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
