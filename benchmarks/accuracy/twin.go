// SPDX-License-Identifier: Apache-2.0

package accuracy

import (
	"fmt"
	"slices"

	"github.com/lowflame/lowflame/stack"
)

// Twins compares samples that the BPF program walked with what unwind.Walk makes
// of the same registers and a copy of the same stack.
type Twins struct {
	Compared int64 // walked to the same end
	// Short counts those of which the copy of the stack held only the first
	// frames, which are equal.
	Short int64
	// Untold counts samples of processes, mappings or files the program did not
	// know yet. Its frames, as far as they go, are equal.
	Untold int64
	// Differ counts all others, by what differs.
	Differ map[string]int64
}

// Add compares one sample.
func (t *Twins) Add(bpf, walked *stack.Sample) {
	n := len(walked.User)
	for i := range walked.User {
		walked.User[i] &^= kernelBase // where BPF keeps a flag; no code is there
	}
	further := len(bpf.User) < n || len(bpf.User) == n && bpf.Stop != walked.Stop
	switch {
	case untold(bpf.Stop) && further && slices.Equal(bpf.User, walked.User[:len(bpf.User)]):
		t.Untold++
	case bpf.Stop == walked.Stop && slices.Equal(bpf.User, walked.User) && slices.Equal(bpf.Interrupted, walked.Interrupted):
		t.Compared++
	case walked.Stop == stack.StopReadStack && n <= len(bpf.User) && slices.Equal(bpf.User[:n], walked.User) &&
		slices.Equal(below(bpf.Interrupted, n), walked.Interrupted):
		t.Short++
	default:
		if t.Differ == nil {
			t.Differ = make(map[string]int64)
		}
		t.Differ[difference(bpf, walked)]++
	}
}

// untold reports whether a stop may be for want of what user space knows by now.
func untold(s stack.Stop) bool {
	return s == stack.StopNoProc || s == stack.StopTableMissing || s == stack.StopNoMapping || s == stack.StopNoRule
}

// below returns the numbers of an ascending list that are less than n.
func below(list []int, n int) []int {
	i, _ := slices.BinarySearch(list, n)
	return list[:i]
}

func difference(bpf, walked *stack.Sample) string {
	at := 0
	for at < len(bpf.User) && at < len(walked.User) && bpf.User[at] == walked.User[at] {
		at++
	}
	frame := func(s *stack.Sample) string {
		if at >= len(s.User) {
			return "none"
		}
		return fmt.Sprintf("%#x", uint64(s.User[at]))
	}
	return fmt.Sprintf("frame %d is %s in BPF (%d frames, %v) and %s in Go (%d frames, %v)",
		at, frame(bpf), len(bpf.User), bpf.Stop, frame(walked), len(walked.User), walked.Stop)
}
