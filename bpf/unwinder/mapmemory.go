// SPDX-License-Identifier: GPL-2.0

package unwinder

import (
	"fmt"
	"os"

	"github.com/cilium/ebpf"
)

// Sizes of the kernel's own structures, bytes: kernel/bpf/hashtab.c, ringbuf.c,
// arraymap.c, as of Linux 6.18. They differ little from release to release.
const (
	kernelHashElem   = 48  // struct htab_elem
	kernelHashBucket = 16  // struct bucket
	kernelHead       = 512 // struct bpf_htab, bpf_array, bpf_ringbuf_map
)

// MapMemory returns how many bytes of kernel memory the maps take that Open makes
// for cfg, on a machine with so many CPUs online and possible, once tables fill
// so many shards and mappings so many chunks, of a MiB each.
//
// It is the sum over the maps, of
//
//	array                 value × entries
//	per-CPU array         value × entries × possible CPUs
//	hash                  (48 + key + value) × (entries + possible CPUs) + 16 × entries, rounded up to a power of two
//	ring buffer           entries + 3 pages + 16 bytes a page
//	array of maps         8 × entries, and a MiB for each inner map
//
// key and value rounded up to 8 bytes, mappable arrays to pages.
func MapMemory(cfg Config, online, possible, shards, chunks int) (int64, error) {
	spec, err := loadBpf()
	if err != nil {
		return 0, fmt.Errorf("read the BPF object: %w", err)
	}
	u := &Unwinder{cfg: cfg.withDefaults()}
	u.size(spec, online)
	total := int64(shards+chunks) * chunkBytes
	for _, m := range spec.Maps {
		total += mapBytes(m, int64(possible))
	}
	return total, nil
}

// mapBytes is what one map takes, without inner maps.
func mapBytes(m *ebpf.MapSpec, possible int64) int64 {
	page := int64(os.Getpagesize())
	entries, key, value := int64(m.MaxEntries), roundUp(int64(m.KeySize), 8), roundUp(int64(m.ValueSize), 8)
	switch m.Type {
	case ebpf.PerCPUArray:
		return kernelHead + entries*(8+value*possible)
	case ebpf.Hash:
		return kernelHead + (kernelHashElem+key+value)*(entries+possible) + kernelHashBucket*int64(ceilPow2(int(entries)))
	case ebpf.RingBuf:
		return kernelHead + entries + 3*page + 16*entries/page
	case ebpf.ArrayOfMaps:
		return kernelHead + 8*entries
	}
	// Arrays: those that can be mapped, and the program's own variables.
	return kernelHead + roundUp(value*entries, page)
}

func roundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }
