// SPDX-License-Identifier: Apache-2.0

package process

import (
	"slices"
	"sort"

	"github.com/lowflame/lowflame/stack"
)

// upTo is the part of m before addr, which lies inside it.
func (m Mapping) upTo(addr stack.Addr) Mapping {
	m.End = addr
	return m
}

// from is the part of m from addr, which lies inside it.
func (m Mapping) from(addr stack.Addr) Mapping {
	if m.Kind != KindAnon {
		m.Off += stack.FileOff(addr - m.Begin)
	}
	m.Begin = addr
	return m
}

// insert puts m into the sorted list, in place of what it overlaps.
func insert(list []Mapping, m Mapping) []Mapping {
	i := sort.Search(len(list), func(i int) bool { return list[i].End > m.Begin })
	j := i + sort.Search(len(list)-i, func(k int) bool { return list[i+k].Begin >= m.End })
	var parts [3]Mapping
	n := 0
	if i < j && list[i].Begin < m.Begin {
		parts[n] = list[i].upTo(m.Begin)
		n++
	}
	parts[n] = m
	n++
	if i < j && list[j-1].End > m.End {
		parts[n] = list[j-1].from(m.End)
		n++
	}
	return slices.Replace(list, i, j, parts[:n]...)
}

// overlay returns, in a new slice, the mappings of the sorted list old with
// those of adds, given in the order they were made, put over them: there is no
// record of an unmapping, but a later mapping shows that what was there is gone.
// It takes time in the length of old once, however many are added.
func overlay(old, adds []Mapping) []Mapping {
	top := make([]Mapping, 0, len(adds))
	for _, m := range adds {
		top = insert(top, m)
	}
	out := make([]Mapping, 0, len(old)+2*len(top))
	push := func(m Mapping) {
		if n := len(out); n > 0 && joins(&out[n-1], &m) {
			out[n-1].End = m.End
			return
		}
		out = append(out, m)
	}
	var cur Mapping // what is left of the mapping of old that is next; empty at the end
	next := func() {
		cur = Mapping{}
		if len(old) > 0 {
			cur, old = old[0], old[1:]
		}
	}
	next()
	for _, m := range top {
		for cur.End != 0 && cur.End <= m.Begin {
			push(cur)
			next()
		}
		if cur.End != 0 && cur.Begin < m.Begin {
			push(cur.upTo(m.Begin))
			cur = cur.from(m.Begin)
		}
		for cur.End != 0 && cur.End <= m.End {
			next()
		}
		if cur.End != 0 && cur.Begin < m.End {
			cur = cur.from(m.End)
		}
		push(m)
	}
	for cur.End != 0 {
		push(cur)
		next()
	}
	return out
}
