// SPDX-License-Identifier: Apache-2.0

// Package gosym names functions of Go programs, inlined ones included, with files
// and lines, by the table the Go runtime itself uses. Stripping cannot remove it.
package gosym

import (
	"cmp"
	"fmt"

	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/objfile/gopclntab"
	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/symbolize/internal/lru"
)

// Cache keeps the tables of the programs used last open. Not safe for concurrent
// use.
type Cache struct {
	tables *lru.Cache[string, opened]
	opens  uint64
}

type opened struct {
	o     *objfile.Object
	table *gopclntab.Table
	err   error // why there is no table
}

// New returns a cache of at most max tables, each of which takes up to 512 KiB while
// it is used and some 10 KiB after Trim; 0 means 16.
func New(max int) *Cache {
	return &Cache{tables: lru.New[string, opened](cmp.Or(max, 16))}
}

// Lines returns the functions at addr, the innermost inlined one first; nil if addr
// is not in Go code, as are the C parts of a program that uses cgo. id stands for
// the contents of o.
//
// The error wraps gopclntab.ErrNoTable if o is no Go program. The table found in o is kept for the next call with the same o; with another
// object of the same id it is looked for anew, since the file of the first may have
// been closed. An error may come with lines.
func (c *Cache) Lines(id string, o *objfile.Object, addr stack.LinkAddr) ([]gopclntab.Line, error) {
	k, ok := c.tables.Get(id)
	if !ok || k.o != o {
		c.opens++
		k = opened{o: o}
		if k.table, k.err = gopclntab.Open(o); k.err != nil {
			k.table, k.err = nil, fmt.Errorf("open Go function table: %w", k.err)
		}
		c.tables.Put(id, k, 1)
	}
	if k.err != nil {
		return nil, k.err
	}
	if start, end := k.table.Text(); addr < start || addr >= end {
		return nil, nil
	}
	return k.table.Lines(addr)
}

// Trim gives up what the tables read ahead.
func (c *Cache) Trim() {
	c.tables.Each(func(_ string, k opened) {
		if k.table != nil {
			k.table.Drop()
		}
	})
}

// Stats returns how many tables are kept, and how many were opened since New.
func (c *Cache) Stats() (tables int, opens uint64) {
	return c.tables.Len(), c.opens
}
