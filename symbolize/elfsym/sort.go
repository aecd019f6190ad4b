// SPDX-License-Identifier: Apache-2.0

package elfsym

import (
	"math"

	"github.com/lowflame/lowflame/stack"
)

// sortByAddr returns syms ordered by address, and by their order in syms where
// that is equal. It leaves out what lies 4 GiB or more above the first.
//
// This is a radix sort, because comparing took half the time of a build.
func sortByAddr(syms []symbol) []symbol {
	if len(syms) == 0 {
		return nil
	}
	base := syms[0].addr
	for i := range syms {
		base = min(base, syms[i].addr)
	}
	keys := make([]uint64, 0, len(syms)) // offset from base, index
	var last stack.LinkAddr
	for i := range syms {
		if off := syms[i].addr - base; off <= math.MaxUint32 {
			last = max(last, off)
			keys = append(keys, uint64(off)<<32|uint64(i))
		}
	}
	other := make([]uint64, len(keys))
	for shift := 0; last>>shift != 0; shift += radixBits {
		radixPass(keys, other, 32+shift)
		keys, other = other, keys
	}
	sorted := make([]symbol, len(keys))
	for i, k := range keys {
		sorted[i] = syms[uint32(k)]
	}
	return sorted
}

const radixBits = 11

// radixPass copies from to to ordered by radixBits bits from shift on, keeping the
// order of those equal.
func radixPass(from, to []uint64, shift int) {
	var at [1 << radixBits]uint32
	for _, k := range from {
		at[k>>shift&(1<<radixBits-1)]++
	}
	sum := uint32(0)
	for i, n := range at {
		at[i] = sum
		sum += n
	}
	for _, k := range from {
		d := &at[k>>shift&(1<<radixBits-1)]
		to[*d] = k
		*d++
	}
}
