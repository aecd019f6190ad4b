// SPDX-License-Identifier: GPL-2.0

package unwinder

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cilium/ebpf"

	"github.com/lowflame/lowflame/unwind"
)

// ErrTablesFull is returned when the unwind tables of the running processes
// need more than the shards hold.
var ErrTablesFull = errors.New("no room for another unwind table")

const maxShards = 256

// InstalledTable is a table the BPF program can use. Table is the same table
// with its words in the memory shared with the program: it is valid until Free.
type InstalledTable struct {
	Table  *unwind.Table
	places []place // by piece
}

type place struct {
	shard uint32
	span  span
}

// tableArena hands out space in the shards, in u32 words.
type tableArena struct {
	mu     sync.Mutex // guards shards and what they hold
	u      *Unwinder
	outer  *ebpf.Map
	inner  *ebpf.MapSpec
	shards []*shard
}

type shard struct {
	m     *ebpf.Map
	words []uint32
	free  spans
}

// InstallTable copies t into the memory shared with the program. It does not
// retain t. The error is ErrTablesFull when the shards are used up.
func (u *Unwinder) InstallTable(t *unwind.Table) (*InstalledTable, error) {
	return u.tables.install(t)
}

// FreeTable gives a table's memory back. The caller has replaced or removed
// every process that used it at least a second ago, and no longer uses
// Installed.Table.
func (u *Unwinder) FreeTable(t *InstalledTable) { u.tables.release(t) }

func (a *tableArena) install(t *unwind.Table) (*InstalledTable, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	in := &InstalledTable{Table: &unwind.Table{Arch: t.Arch, Partial: t.Partial, Pieces: make([]unwind.Piece, 0, len(t.Pieces))}}
	for _, p := range t.Pieces {
		at, words, err := a.alloc(uint32(len(p.Words)))
		if err != nil {
			a.free(in.places)
			return nil, err
		}
		copy(words, p.Words)
		p.Words = words
		in.Table.Pieces = append(in.Table.Pieces, p)
		in.places = append(in.places, at)
	}
	return in, nil
}

func (a *tableArena) alloc(n uint32) (place, []uint32, error) {
	if n > unwind.MaxPieceWords {
		return place{}, nil, fmt.Errorf("unwind table piece of %d words: at most %d fit a shard", n, unwind.MaxPieceWords)
	}
	for i, s := range a.shards {
		if off, ok := s.free.take(n); ok {
			return place{uint32(i), span{off, n}}, s.words[off : off+n : off+n], nil
		}
	}
	if len(a.shards) >= maxShards {
		return place{}, nil, ErrTablesFull
	}
	m, err := newInner(a.outer, a.inner, uint32(len(a.shards)))
	if err != nil {
		return place{}, nil, err
	}
	mem, err := a.u.mmap(m, chunkBytes)
	if err != nil {
		return place{}, nil, errors.Join(fmt.Errorf("map table memory: %w", err), m.Close())
	}
	s := &shard{m: m, words: words32(mem), free: spans{{0, chunkBytes / 4}}}
	a.shards = append(a.shards, s)
	off, _ := s.free.take(n)
	return place{uint32(len(a.shards) - 1), span{off, n}}, s.words[off : off+n : off+n], nil
}

func (a *tableArena) release(t *InstalledTable) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.free(t.places)
	t.places, t.Table = nil, nil
}

func (a *tableArena) free(places []place) {
	for _, p := range places {
		a.shards[p.shard].free.give(p.span)
	}
}

func (a *tableArena) close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	for _, s := range a.shards {
		errs = append(errs, s.m.Close())
	}
	return errors.Join(errs...)
}

// synchronize waits for a grace period by replacing an inner map with itself.
func (a *tableArena) synchronize() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.shards) == 0 {
		if _, _, err := a.alloc(0); err != nil {
			return err
		}
	}
	return a.outer.Put(uint32(0), a.shards[0].m)
}
