// SPDX-License-Identifier: Apache-2.0

package unwind

import "math/bits"

// How the rows of all but the largest tables are cut into runs: so that the words
// they take, for the row, its share of the index, and the run in the dictionary,
// are as few as can be had cheaply. It makes the tables of ordinary programs a
// third smaller than cutting at every gap, and takes as long as reading the call
// frame information does; the largest tables repeat themselves enough without.
const (
	maxBest = 1 << 16 // rows
	// bestGap is the most bytes between two rows of a run, bestSpan those from the
	// first to the last: what a delta can say.
	bestGap, bestSpan = 64, 255
	// rowCost is what a run costs beside its words in the dictionary, in words.
	rowCost = 1 + 1.0/rowsPerPage
	// newCost is the factor by which a run that nothing used in the first round
	// is dearer than its words in the second.
	newCost = 1.5
	// bestRounds is how often the cut is made: first on the assumption that each
	// run is used wherever it could be, then on how often it was.
	bestRounds = 2
)

// runCounts counts runs by their hash, in a table of tag16 | count16 that forgets
// what finds no room: that only makes the cut a little worse.
type runCounts struct {
	slots []uint32
	mask  uint64
}

// countProbes is how many slots a run may be in.
const countProbes = 4

func newRunCounts(rows int) runCounts {
	size := 1 << bits.Len(uint(4*rows))
	return runCounts{make([]uint32, size), uint64(size - 1)}
}

// slot returns where the run is counted, or the empty slot where it would be; nil
// if it has found no room.
func (c *runCounts) slot(hash uint64) *uint32 {
	for i := range uint64(countProbes) {
		s := &c.slots[(hash>>32+i)&c.mask]
		if *s == 0 || *s>>16 == uint32(hash)>>16 {
			return s
		}
	}
	return nil
}

// add counts a run.
func (c *runCounts) add(hash uint64) {
	if s := c.slot(hash); s != nil && *s&0xffff != 0xffff {
		*s = uint32(hash)&^0xffff | *s&0xffff + 1
	}
}

// of returns how often the run was counted.
func (c *runCounts) of(hash uint64) uint32 {
	if s := c.slot(hash); s != nil {
		return *s & 0xffff
	}
	return 0
}

// runHash goes on from the hash of a run to that of one with another row, delta
// bytes from the first.
func runHash(hash, delta uint64, r Rule) uint64 {
	hash = (hash ^ (delta | uint64(r)<<8)) * 0x9e3779b97f4a7c15
	return hash ^ hash>>29
}

// bestRuns returns the lengths of the runs that rows are cut into.
func bestRuns(rows []span) []uint8 {
	if len(rows) == 0 {
		return nil
	}
	counts := newRunCounts(len(rows))
	for i := range rows {
		hash := uint64(0)
		for n := range runLimit(rows[i:]) {
			hash = runHash(hash, rows[i+n].pc-rows[i].pc, rows[i+n].rule)
			counts.add(hash)
		}
	}
	runs := cutRuns(rows, &counts)
	for range bestRounds - 1 {
		clear(counts.slots)
		at := 0
		for _, n := range runs {
			hash := uint64(0)
			for _, s := range rows[at : at+int(n)] {
				hash = runHash(hash, s.pc-rows[at].pc, s.rule)
			}
			counts.add(hash)
			at += int(n)
		}
		runs = cutRuns(rows, &counts)
	}
	return runs
}

// cutRuns returns the cheapest cut if each run costs its share of the words it
// has in the dictionary.
func cutRuns(rows []span, counts *runCounts) []uint8 {
	cost := make([]float32, len(rows)+1) // of the rows from each on
	length := make([]uint8, len(rows))
	for i := len(rows) - 1; i >= 0; i-- {
		hash := uint64(0)
		best := float32(0)
		for n := range runLimit(rows[i:]) {
			hash = runHash(hash, rows[i+n].pc-rows[i].pc, rows[i+n].rule)
			words := float32(n + 1)
			if used := counts.of(hash); used > 0 {
				words /= float32(used)
			} else {
				words *= newCost
			}
			if c := rowCost + words + cost[i+n+1]; n == 0 || c < best {
				best, length[i] = c, uint8(n+1)
			}
		}
		cost[i] = best
	}
	runs := length[:0]
	for i := 0; i < len(rows); {
		n := length[i]
		runs = append(runs, n) // never overtakes i
		i += int(n)
	}
	return runs
}

// runLimit is the most rows that the run rows begin with can have.
func runLimit(rows []span) int {
	n := 1
	for n < min(len(rows), maxRun) && rows[n].pc-rows[n-1].pc <= bestGap && rows[n].pc-rows[0].pc <= bestSpan {
		n++
	}
	return n
}
