// SPDX-License-Identifier: Apache-2.0

package process

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lowflame/lowflame/stack"
)

func TestLimits(t *testing.T) {
	table := fakeTable(t)
	s := &story{now: 100}
	for i := range uint32(maxLive + 100) {
		s.fork(i+10, 9)
	}
	for i := range stack.Addr(maxMappings + 100) {
		s.maps(10, fileMap(i*16, i*16+8, 0, "/a"))
	}
	table.Apply(s.events)
	if st := table.Stats(); st.Live != maxLive || st.DroppedProcesses < 100 {
		t.Errorf("%+v", st)
	}
	if p := table.Live(10); len(p.Mappings) > maxMappings || len(p.Mappings) < maxMappings-maxAdds || !p.Truncated {
		t.Errorf("%d mappings, truncated %v", len(p.Mappings), p.Truncated)
	}
	s = &story{now: s.now}
	for range 2 {
		for i := range uint32(maxLive) {
			s.exec(i+10, "b")
		}
	}
	table.Apply(s.events)
	if st := table.Stats(); st.Live != maxLive || st.Dead != maxDead {
		t.Errorf("%+v", st)
	}
	checkStats(t, table)
	for i := range uint32(maxThreads + 100) {
		table.Apply([]Event{{Kind: EventFork, Time: s.now + 1, PID: 10, TID: i + 1000, PPID: 10}})
	}
	if e := table.procs[10]; len(e.others) != maxThreads || !e.untracked {
		t.Errorf("%d threads", len(e.others))
	}
}

// TestTotalMappings fills the table with processes of many mappings.
func TestTotalMappings(t *testing.T) {
	table := fakeTable(t)
	s := &story{}
	const each, n = 4000, maxMapTotal/4000 + 10
	for pid := range uint32(n) {
		s.exec(pid+1, "x")
		for i := range stack.Addr(each) {
			s.maps(pid+1, fileMap(i*16, i*16+8, 0, "/a"))
		}
		table.Apply(s.events)
		s.events = s.events[:0]
	}
	if st := table.Stats(); st.Mappings > maxMapTotal || st.DroppedMappings == 0 {
		t.Errorf("%+v", st)
	}
	checkStats(t, table)
}

func TestTableConcurrent(t *testing.T) {
	root := t.TempDir()
	fakeProc(t, root, 9, 'S', 100, oneMap)
	table := NewTable(root)
	var wg sync.WaitGroup
	work := []func(i uint64){
		func(i uint64) {
			table.Apply([]Event{{Kind: EventFork, Time: 10 * i, PID: 10, TID: 10, PPID: 9}, {Kind: EventExec, Time: 10*i + 1, PID: 10, TID: 10, Comm: "b"},
				{Kind: EventMap, Time: 10*i + 2, PID: 10, TID: 10, Map: fileMap(0x1000, 0x2000, 0, "/b")}, {Kind: EventExit, Time: 10*i + 3, PID: 10, TID: 10}})
		},
		func(uint64) { _ = table.Scan(t.Context(), nil) },
		func(uint64) { table.Rescan(9); table.Refresh(10) },
		func(i uint64) { table.Forget(i) },
		func(i uint64) {
			for _, p := range slices.Concat(table.All(), []*Process{table.At(10, i), table.Live(9)}) {
				if p != nil {
					_ = p.Find(0x1800)
					_, _, _ = table.Open(p, &Mapping{Path: "/nowhere"})
				}
			}
		},
	}
	for _, f := range work {
		wg.Go(func() {
			for i := range uint64(200) {
				f(i)
			}
		})
	}
	wg.Wait()
	checkStats(t, table)
}

func TestBucket(t *testing.T) {
	var b bucket
	n := 0
	for range 2 * eagerReads {
		if b.take(uint64(time.Hour)) {
			n++
		}
	}
	if n != eagerReads || !b.take(uint64(time.Hour+time.Second)) {
		t.Errorf("%d at once", n)
	}
}
