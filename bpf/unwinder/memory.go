// SPDX-License-Identifier: GPL-2.0

package unwinder

import (
	"errors"
	"fmt"
	"sort"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// chunkBytes is the size of one shard of tables and one chunk of mappings.
const chunkBytes = 1 << 20

// mmap maps the first n bytes of a BPF_F_MMAPABLE array; unmap releases it.
func (u *Unwinder) mmap(m *ebpf.Map, n int) ([]byte, error) {
	b, err := unix.Mmap(m.FD(), 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err == nil {
		u.pages = append(u.pages, b)
	}
	return b, err
}

func (u *Unwinder) unmap() error {
	var errs []error
	for _, b := range u.pages {
		errs = append(errs, unix.Munmap(b))
	}
	u.pages = nil
	return errors.Join(errs...)
}

func words32(b []byte) []uint32 {
	return unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/4)
}

func words64(b []byte) []uint64 {
	return unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/8)
}

func mappings(b []byte) []bpfUnwMapping {
	return unsafe.Slice((*bpfUnwMapping)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/int(unsafe.Sizeof(bpfUnwMapping{})))
}

// newInner creates one inner map and puts it into slot i of outer. The update
// waits for a grace period, 4..24 ms, which is why inner maps are few and large.
func newInner(outer *ebpf.Map, spec *ebpf.MapSpec, i uint32) (*ebpf.Map, error) {
	m, err := ebpf.NewMap(spec)
	if err != nil {
		return nil, fmt.Errorf("create table memory: %w", err)
	}
	if err := outer.Put(i, m); err != nil {
		return nil, errors.Join(fmt.Errorf("add table memory: %w", err), m.Close())
	}
	return m, nil
}

// span is a range [off, off+n) of a chunk, in the chunk's units.
type span struct{ off, n uint32 }

// spans is the free space of one chunk, sorted, with no two adjacent.
type spans []span

// take cuts n units off the first span that has them.
func (s *spans) take(n uint32) (off uint32, ok bool) {
	for i := range *s {
		f := &(*s)[i]
		if f.n < n {
			continue
		}
		off = f.off
		f.off += n
		f.n -= n
		if f.n == 0 {
			*s = append((*s)[:i], (*s)[i+1:]...)
		}
		return off, true
	}
	return 0, false
}

// give returns a span, merging it with its neighbours.
func (s *spans) give(f span) {
	if f.n == 0 {
		return
	}
	i := sort.Search(len(*s), func(i int) bool { return (*s)[i].off > f.off })
	*s = append(*s, span{})
	copy((*s)[i+1:], (*s)[i:])
	(*s)[i] = f
	if i+1 < len(*s) && f.off+f.n == (*s)[i+1].off {
		(*s)[i].n += (*s)[i+1].n
		*s = append((*s)[:i+1], (*s)[i+2:]...)
	}
	if i > 0 && (*s)[i-1].off+(*s)[i-1].n == (*s)[i].off {
		(*s)[i-1].n += (*s)[i].n
		*s = append((*s)[:i], (*s)[i+1:]...)
	}
}
