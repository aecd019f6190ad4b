// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"syscall"
	"time"

	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/symbolize/elfsym"
)

// tables measures the table of a symbol table.
func (b *bench) tables(_ context.Context, file string) error {
	symbols, err := functionSymbols(file)
	if err != nil {
		return err
	}
	addrs := spread(symbols, asked)
	o, handle, err := objfile.OpenFile(file)
	if err != nil {
		return err
	}
	defer handle.Close()
	var table *elfsym.Table
	build := least(5, func() error {
		table, err = elfsym.Build(o)
		return err
	})
	if err != nil {
		return err
	}
	found := 0
	lookup := least(5, func() error {
		found = 0
		for _, a := range addrs {
			if _, ok := table.Lookup(stack.LinkAddr(a)); ok {
				found++
			}
		}
		return nil
	})
	if found != len(addrs) {
		b.report.Problem("symbols: addresses in functions that no symbol has")
	}
	b.report.Line("symbols of %s: %d", file, table.Len())
	b.report.Demand("symbols: heap of a function", float64(table.Bytes())/float64(table.Len()), 16, false, "B")
	b.report.Demand("symbols: CPU of 100,000", build.Seconds()*1e3*1e5/float64(table.Len()), 20, false, "ms")
	b.report.Demand("symbols: CPU of a lookup", float64(lookup.Nanoseconds())/float64(len(addrs)), 400, false, "ns")
	return nil
}

// least returns the least CPU time of n calls of f.
func least(n int, f func() error) time.Duration {
	best := time.Duration(1<<63 - 1)
	for range n {
		before := cpuTime()
		if f() != nil {
			break
		}
		best = min(best, cpuTime()-before)
	}
	return best
}

func cpuTime() time.Duration {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		return 0
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}
