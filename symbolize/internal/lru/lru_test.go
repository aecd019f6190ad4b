// SPDX-License-Identifier: Apache-2.0

package lru

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestAgainstSlice compares the cache with a slice kept in order of use.
func TestAgainstSlice(t *testing.T) {
	type item struct{ key, value, cost int }
	rng := rand.New(rand.NewPCG(1, 2))
	const most = 100
	c := New[int, int](most)
	var want []item // oldest first
	find := func(key int) int { return slices.IndexFunc(want, func(i item) bool { return i.key == key }) }
	for step := range 20000 {
		key := rng.IntN(40)
		at := find(key)
		switch rng.IntN(5) {
		case 0:
			c.Drop(key)
			if at >= 0 {
				want = slices.Delete(want, at, at+1)
			}
		case 1, 2:
			x := item{key, step, rng.IntN(30)}
			if rng.IntN(50) == 0 {
				x.cost = 2 * most
			}
			c.Put(key, x.value, x.cost)
			if at >= 0 {
				want = slices.Delete(want, at, at+1)
			}
			want = append(want, x)
			sum := func() (n int) {
				for _, i := range want {
					n += i.cost
				}
				return n
			}
			for sum() > most && len(want) > 1 {
				want = want[1:]
			}
			if c.Cost() != sum() {
				t.Fatalf("step %d: cost %d, want %d", step, c.Cost(), sum())
			}
		default:
			v, ok := c.Get(key)
			if ok != (at >= 0) || (ok && v != want[at].value) {
				t.Fatalf("step %d: Get(%d) = %d, %v; want %v", step, key, v, ok, want)
			}
			if ok {
				x := want[at]
				want = append(slices.Delete(want, at, at+1), x)
			}
		}
		if c.Len() != len(want) {
			t.Fatalf("step %d: %d values, want %d", step, c.Len(), len(want))
		}
	}
}
