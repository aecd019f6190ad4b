// SPDX-License-Identifier: Apache-2.0

// Package lru is a cache that is bounded by what its values cost.
package lru

// Cache keeps the values used last. The zero Cache keeps nothing; see New. It
// is not safe for concurrent use.
type Cache[K comparable, V any] struct {
	max, total int
	index      map[K]int32
	nodes      []node[K, V] // nodes[0] is the ring's head: next is the newest
	free       []int32
}

type node[K comparable, V any] struct {
	key        K
	value      V
	cost       int
	prev, next int32
}

// New returns a cache that holds values of at most max cost together, in
// whatever unit Put is told.
func New[K comparable, V any](max int) *Cache[K, V] {
	return &Cache[K, V]{max: max, index: map[K]int32{}, nodes: make([]node[K, V], 1)}
}

// Get returns the value of key and marks it as used.
func (c *Cache[K, V]) Get(key K) (V, bool) {
	i, ok := c.index[key]
	if !ok {
		var zero V
		return zero, false
	}
	c.unlink(i)
	c.link(i)
	return c.nodes[i].value, true
}

// Put sets the value of key and drops those not used for longest until all fit
// again; a value that does not fit by itself stays until the next Put.
func (c *Cache[K, V]) Put(key K, value V, cost int) {
	i, ok := c.index[key]
	switch {
	case ok:
		c.unlink(i)
		c.total -= c.nodes[i].cost
	case len(c.free) > 0:
		i = c.free[len(c.free)-1]
		c.free = c.free[:len(c.free)-1]
	default:
		i = int32(len(c.nodes))
		c.nodes = append(c.nodes, node[K, V]{})
	}
	c.nodes[i] = node[K, V]{key: key, value: value, cost: cost}
	c.index[key] = i
	c.total += cost
	c.link(i)
	for c.total > c.max && c.nodes[0].prev != i {
		c.remove(c.nodes[0].prev)
	}
}

// Drop removes key.
func (c *Cache[K, V]) Drop(key K) {
	if i, ok := c.index[key]; ok {
		c.remove(i)
	}
}

// Len returns how many values there are, Cost what they cost together.
func (c *Cache[K, V]) Len() int { return len(c.index) }

// Cost returns what the values cost together.
func (c *Cache[K, V]) Cost() int { return c.total }

func (c *Cache[K, V]) remove(i int32) {
	c.unlink(i)
	c.total -= c.nodes[i].cost
	delete(c.index, c.nodes[i].key)
	c.nodes[i] = node[K, V]{}
	c.free = append(c.free, i)
}

func (c *Cache[K, V]) unlink(i int32) {
	n := &c.nodes[i]
	c.nodes[n.prev].next, c.nodes[n.next].prev = n.next, n.prev
}

// link puts i in front.
func (c *Cache[K, V]) link(i int32) {
	head := &c.nodes[0]
	c.nodes[i].prev, c.nodes[i].next = 0, head.next
	c.nodes[head.next].prev = i
	c.nodes[0].next = i
}

// Each calls f for each value, from the one used last on. f must not change the
// cache.
func (c *Cache[K, V]) Each(f func(K, V)) {
	for i := c.nodes[0].next; i != 0; i = c.nodes[i].next {
		f(c.nodes[i].key, c.nodes[i].value)
	}
}
