// SPDX-License-Identifier: Apache-2.0

package jit

import (
	"cmp"
	"math"
	"slices"
)

func (e entry) end() uint64 { return e.start + uint64(e.size) }

// ranges builds a sorted list of ranges that do not overlap, joining neighbours
// that share a name.
type ranges []entry

func (r *ranges) add(from, to uint64, name uint32) {
	if from >= to {
		return
	}
	if n := len(*r); n > 0 {
		last := &(*r)[n-1]
		if last.name == name && last.end() == from && to-last.start <= math.MaxUint32 {
			last.size = uint32(to - last.start)
			return
		}
	}
	*r = append(*r, entry{start: from, size: uint32(to - from), name: name})
}

// flatten returns what of each range of in, given from oldest to newest, no
// newer one hides, sorted by start.
func flatten(in []entry) []entry {
	order := make([]int32, len(in))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int {
		return cmp.Or(cmp.Compare(in[a].start, in[b].start), cmp.Compare(a, b))
	})
	out := make(ranges, 0, len(in))
	var open newest // begun and perhaps not ended at pos
	var pos uint64
	until := func(limit uint64) {
		for len(open) > 0 && pos < limit {
			top := in[open[0]]
			if top.end() <= pos {
				open.pop()
				continue
			}
			to := min(limit, top.end())
			out.add(pos, to, top.name)
			pos = to
		}
		pos = limit
	}
	for _, i := range order {
		until(in[i].start)
		open.push(i)
	}
	until(math.MaxUint64)
	return out
}

// overlay returns what of old no range of top hides, together with top. Both
// are sorted and do not overlap within themselves.
func overlay(old, top []entry) []entry {
	if len(old) == 0 {
		return top
	}
	out := make(ranges, 0, len(old)+len(top))
	j := 0
	for _, o := range old {
		pos := o.start
		for j < len(top) && top[j].start < o.end() {
			out.add(pos, top[j].start, o.name)
			if top[j].end() > o.end() {
				pos = o.end()
				break // it may hide the next range too
			}
			pos = max(pos, top[j].end())
			out.add(top[j].start, top[j].end(), top[j].name)
			j++
		}
		out.add(pos, o.end(), o.name)
	}
	for ; j < len(top); j++ {
		out.add(top[j].start, top[j].end(), top[j].name)
	}
	return out
}

// newest is a binary heap of indexes, the greatest first.
type newest []int32

func (h *newest) push(x int32) {
	*h = append(*h, x)
	s := *h
	for i := len(s) - 1; i > 0; {
		up := (i - 1) / 2
		if s[up] >= s[i] {
			return
		}
		s[up], s[i] = s[i], s[up]
		i = up
	}
}

func (h *newest) pop() {
	s := *h
	n := len(s) - 1
	s[0] = s[n]
	s = s[:n]
	*h = s
	for i := 0; ; {
		c := 2*i + 1
		if c >= n {
			return
		}
		if c+1 < n && s[c+1] > s[c] {
			c++
		}
		if s[i] >= s[c] {
			return
		}
		s[i], s[c] = s[c], s[i]
		i = c
	}
}
