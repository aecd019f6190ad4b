// SPDX-License-Identifier: Apache-2.0

package file

import (
	"cmp"
	"slices"

	"github.com/google/pprof/profile"
)

// node is one call path of a call tree.
type node struct {
	frame, parent int // index of the frame, of the parent's node
	value, count  int64
}

// callTree returns the nodes of the call tree of p, parents before children.
// Node 0 is the root, which has no frame (-1) and holds the totals.
func callTree(p *profile.Profile, s *stacks) []node {
	type edge struct{ parent, frame int }
	nodes := []node{{frame: -1, parent: -1}}
	index := make(map[edge]int)
	var stack []int
	for _, sample := range p.Sample {
		value, count := s.weight(sample)
		if value == 0 {
			continue
		}
		stack = s.of(stack[:0], sample)
		at := 0
		nodes[0].value += value
		nodes[0].count += count
		for _, f := range stack {
			e := edge{at, f}
			next, ok := index[e]
			if !ok {
				next = len(nodes)
				index[e] = next
				nodes = append(nodes, node{frame: f, parent: at})
			}
			nodes[next].value += value
			nodes[next].count += count
			at = next
		}
	}
	return nodes
}

// prune keeps the largest nodes, most of them if the rest are equal, at most
// limit, and returns how many are gone. Parents are never smaller than their
// children, so what is left is a tree; nodes keep their order.
func prune(nodes []node, limit int) (kept []node, gone int) {
	if len(nodes) <= limit {
		return nodes, 0
	}
	values := make([]int64, len(nodes))
	for i, n := range nodes {
		values[i] = n.value
	}
	slices.Sort(values)
	bar := values[len(values)-limit-1] // limit values are at least as large
	to := make([]int, len(nodes))
	for i, n := range nodes {
		if i > 0 && n.value <= bar {
			continue
		}
		to[i] = len(kept)
		if i > 0 {
			n.parent = to[n.parent]
		}
		kept = append(kept, n)
	}
	return kept, len(nodes) - len(kept)
}

// drawn is a node in the order of drawing: parents before children, siblings
// by value, each subtree together.
type drawn struct {
	node
	depth int
}

func drawingOrder(nodes []node, s *stacks) []drawn {
	children := make([][]int, len(nodes))
	for i := 1; i < len(nodes); i++ {
		p := nodes[i].parent
		children[p] = append(children[p], i)
	}
	for _, c := range children {
		slices.SortFunc(c, func(a, b int) int { // reversed: they go on a stack
			x, y := &nodes[a], &nodes[b]
			return cmp.Or(cmp.Compare(x.value, y.value), cmp.Compare(s.frames[y.frame].name, s.frames[x.frame].name), b-a)
		})
	}
	out := make([]drawn, 0, len(nodes))
	depth := make([]int, len(nodes))
	todo := []int{0}
	for len(todo) > 0 {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		out = append(out, drawn{nodes[i], depth[i]})
		for _, c := range children[i] {
			depth[c] = depth[i] + 1
		}
		todo = append(todo, children[i]...)
	}
	return out
}
