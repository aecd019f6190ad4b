// SPDX-License-Identifier: Apache-2.0

package elfsym

import (
	"cmp"

	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/symbolize/internal/lru"
)

// Cache keeps the tables of files used last, within a bound on their heap. Not
// safe for concurrent use.
type Cache struct {
	tables *lru.Cache[string, built]
	builds uint64
}

type built struct {
	table *Table // never nil
	err   error
}

// NewCache returns a cache of at most max bytes of tables; 0 means 16 MiB.
func NewCache(max int) *Cache {
	return &Cache{tables: lru.New[string, built](cmp.Or(max, 16<<20))}
}

// Table returns the table of o, whose contents id stands for, building it if it is
// not kept. It is never nil; the error is that of Build, each time.
func (c *Cache) Table(id string, o *objfile.Object) (*Table, error) {
	if b, ok := c.tables.Get(id); ok {
		return b.table, b.err
	}
	t, err := Build(o)
	if t == nil {
		t = &Table{}
	}
	c.builds++
	c.tables.Put(id, built{t, err}, t.Bytes()+len(id)+128)
	return t, err
}

// Stats returns how many tables are kept, their bytes of heap, and how many were
// built since NewCache.
func (c *Cache) Stats() (tables, bytes int, builds uint64) {
	return c.tables.Len(), c.tables.Cost(), c.builds
}

// Drop forgets the table of the file that id stands for.
func (c *Cache) Drop(id string) { c.tables.Drop(id) }
