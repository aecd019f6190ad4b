// SPDX-License-Identifier: GPL-2.0

package unwinder

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/unwind"
)

// ErrMappingsFull is returned when the mappings of the running processes need
// more than the chunks hold.
var ErrMappingsFull = errors.New("no room for the mappings of another process")

const (
	maxChunks     = 64
	chunkMappings = 1 << 14
	// maxProcessMappings keeps one process from taking all there is. Samples
	// of a process with more arrive raw.
	maxProcessMappings = 1 << 12
	// extentGrace is how long a replaced extent is left alone: far longer than
	// a walk, or a child that inherited it, can go on using it.
	extentGrace = time.Second
)

// procSettled is UNW_PROC_SETTLED of abi.h.
const procSettled = 1

// MapKind says how code in a mapping is walked.
type MapKind uint8

// The kinds of mapping, as in abi.h.
const (
	MapNoRule  MapKind = iota // walks end with NO_RULE
	MapTable                  // by Mapping.Table
	MapFP                     // by frame pointers: anonymous executable memory
	MapMissing                // the file's table is not installed: samples arrive raw
)

// Mapping is one executable mapping of a process, [Begin, End) in process
// addresses. Bias is process address minus link-time address.
type Mapping struct {
	Begin, End, Bias uint64
	Kind             MapKind
	Table            *InstalledTable // for MapTable
}

// processArena hands out extents of mappings in chunks of 1 MiB.
type processArena struct {
	mu      sync.Mutex // guards everything below
	u       *Unwinder
	outer   *ebpf.Map
	inner   *ebpf.MapSpec
	chunks  []*chunk
	extents map[uint32]extent // by tgid, as published
	retired []retired         // oldest first
	// generation counts the extents published.
	generation uint32
}

type chunk struct {
	m        *ebpf.Map
	mappings []bpfUnwMapping
	free     spans
}

type extent struct {
	chunk      uint32
	span       span
	generation uint32
}

type retired struct {
	extent extent
	at     time.Time
}

// SetProcess publishes the executable mappings of a process, which are sorted
// and do not overlap. They are written beside the old ones and then swapped in,
// so that a walk sees one or the other. since is a time, CLOCK_MONOTONIC ns, at which
// the process is known to have run the program they are of; if it has begun another
// since then nothing is published.
func (u *Unwinder) SetProcess(pid uint32, since uint64, ms []Mapping) error {
	if err := u.processes.set(pid, since, ms); err != nil {
		return fmt.Errorf("publish the mappings of process %d: %w", pid, err)
	}
	return nil
}

// Settle says that the mappings and tables last set are all there is: samples
// at other addresses no longer arrive raw. The next SetProcess undoes it.
func (u *Unwinder) Settle(pid uint32) error {
	if err := u.processes.settle(pid); err != nil {
		return fmt.Errorf("settle process %d: %w", pid, err)
	}
	return nil
}

// DeleteProcess forgets a process that has ended.
func (u *Unwinder) DeleteProcess(pid uint32) error {
	if err := u.processes.remove(pid); err != nil {
		return fmt.Errorf("forget process %d: %w", pid, err)
	}
	return nil
}

// HasProcess reports whether the program knows the process.
func (u *Unwinder) HasProcess(pid uint32) bool {
	var p bpfUnwProc
	return u.objs.UnwProcs.Lookup(pid, &p) == nil
}

func (a *processArena) set(pid uint32, since uint64, ms []Mapping) error {
	entries := expand(ms)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.outdated(pid, since) {
		return nil
	}
	e, err := a.alloc(uint32(len(entries)))
	if err != nil {
		// The old mappings must not be used for what is mapped now.
		return errors.Join(err, a.drop(pid))
	}
	a.generation++
	e.generation = a.generation
	for i := range entries {
		entries[i].Generation = e.generation
	}
	copy(a.chunks[e.chunk].mappings[e.span.off:], entries)
	if err := a.u.objs.UnwProcs.Put(pid, e.proc(0)); err != nil {
		a.chunks[e.chunk].free.give(e.span)
		if errors.Is(err, unix.E2BIG) { // kernel: htab_map_update_elem, the map is full
			err = fmt.Errorf("%w: %w", ErrMappingsFull, err)
		}
		return errors.Join(err, a.drop(pid))
	}
	a.retire(pid)
	a.extents[pid] = e
	if a.outdated(pid, since) { // meanwhile: the program may have deleted too early
		return a.drop(pid)
	}
	return nil
}

// outdated reports whether a process has begun another program after since. Before
// Linux 6.10 the kernel does not tell in time, see unw_prepare_exec.
func (a *processArena) outdated(pid uint32, since uint64) bool {
	var last uint64
	return a.u.objs.UnwExecs.Lookup(pid, &last) == nil && last > since
}

func (e extent) proc(flags uint32) *bpfUnwProc {
	return &bpfUnwProc{Chunk: e.chunk, Off: e.span.off, N: e.span.n, Generation: e.generation, Flags: flags}
}

// settle marks the extent a process has as all there is to know.
func (a *processArena) settle(pid uint32) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	e, ok := a.extents[pid]
	if !ok {
		return nil
	}
	// Only if the program still has it: the process may be gone.
	err := a.u.objs.UnwProcs.Update(pid, e.proc(procSettled), ebpf.UpdateExist)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}

func (a *processArena) remove(pid uint32) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.drop(pid)
}

// drop has the program forget a process.
func (a *processArena) drop(pid uint32) error {
	err := a.u.objs.UnwProcs.Delete(pid)
	a.retire(pid)
	delete(a.extents, pid)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}

func (a *processArena) retire(pid uint32) {
	if e, ok := a.extents[pid]; ok {
		a.retired = append(a.retired, retired{e, time.Now()})
	}
}

func (a *processArena) reclaim() {
	n := 0
	for _, r := range a.retired {
		if time.Since(r.at) < extentGrace {
			break
		}
		a.chunks[r.extent.chunk].free.give(r.extent.span)
		n++
	}
	a.retired = append(a.retired[:0], a.retired[n:]...)
}

func (a *processArena) alloc(n uint32) (extent, error) {
	if n > maxProcessMappings {
		return extent{}, fmt.Errorf("%d executable mappings: at most %d are kept: %w", n, maxProcessMappings, ErrMappingsFull)
	}
	a.reclaim()
	for i, c := range a.chunks {
		if off, ok := c.free.take(n); ok {
			return extent{chunk: uint32(i), span: span{off, n}}, nil
		}
	}
	if len(a.chunks) >= maxChunks {
		return extent{}, ErrMappingsFull
	}
	m, err := newInner(a.outer, a.inner, uint32(len(a.chunks)))
	if err != nil {
		return extent{}, err
	}
	mem, err := a.u.mmap(m, chunkBytes)
	if err != nil {
		return extent{}, errors.Join(fmt.Errorf("map mapping memory: %w", err), m.Close())
	}
	c := &chunk{m: m, mappings: mappings(mem), free: spans{{0, chunkMappings}}}
	a.chunks = append(a.chunks, c)
	off, _ := c.free.take(n)
	return extent{chunk: uint32(len(a.chunks) - 1), span: span{off, n}}, nil
}

func (a *processArena) close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	for _, c := range a.chunks {
		errs = append(errs, c.m.Close())
	}
	return errors.Join(errs...)
}

// expand turns mappings into the program's entries: a mapping is cut where its
// table's pieces begin and end, and what no piece covers has no rule.
func expand(ms []Mapping) []bpfUnwMapping {
	entries := make([]bpfUnwMapping, 0, len(ms)+len(ms)/4)
	for _, m := range ms {
		if m.Kind != MapTable || m.Table == nil {
			entries = append(entries, bpfUnwMapping{Begin: m.Begin, End: m.End, Kind: uint8(m.Kind)})
			continue
		}
		at := m.Begin
		for i := range m.Table.Table.Pieces {
			p := &m.Table.Table.Pieces[i]
			begin, end := max(m.Begin, uint64(p.Start)+m.Bias), min(m.End, uint64(p.End)+m.Bias)
			if begin >= end {
				continue
			}
			if at < begin {
				entries = append(entries, bpfUnwMapping{Begin: at, End: begin, Kind: uint8(MapNoRule)})
			}
			entries = append(entries, pieceEntry(m, p, m.Table.places[i], begin, end))
			at = end
		}
		if at < m.End {
			entries = append(entries, bpfUnwMapping{Begin: at, End: m.End, Kind: uint8(MapNoRule)})
		}
	}
	return entries
}

func pieceEntry(m Mapping, p *unwind.Piece, at place, begin, end uint64) bpfUnwMapping {
	off := at.span.off
	return bpfUnwMapping{
		Begin: begin, End: end, Base: uint64(p.Start) + m.Bias,
		Idx: off, Row: off + p.Row, Dict: off + p.Dict, Wide: off + p.Wide,
		Shard: at.shard, Shift: p.Shift, Kind: uint8(MapTable),
	}
}
