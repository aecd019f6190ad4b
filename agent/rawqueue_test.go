// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"

	"github.com/go-kit/log"

	"github.com/lowflame/lowflame/bpf/unwinder"
	"github.com/lowflame/lowflame/process"
	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/unwind"
)

// TestRawNotWalked counts the raw samples that no window gets.
func TestRawNotWalked(t *testing.T) {
	s := openSession(t, Config{Compare: func(*stack.Sample, *stack.Sample) {}})
	queue := make([]*unwinder.RawSample, 4)
	for i := range queue {
		queue[i] = &unwinder.RawSample{Walked: i == 3}
		s.queueRaw(t.Context(), queue[i])
	}
	s.walkDone(queue[0], &stack.Sample{})
	if got := s.raws.take(); len(got) != 1 {
		t.Errorf("%d samples are walked, want 1", len(got))
	}
	s.walkDone(queue[1], &stack.Sample{})
	s.walkDone(queue[3], &stack.Sample{}) // no sample of its own
	s.raws.fired = 5
	if got, lost := s.raws.takeLast(true); len(got) != 1 || lost != 1 {
		t.Errorf("%d more samples are walked and %d lost, want 1 and 1", len(got), lost)
	}
	if _, lost := s.raws.takeLast(false); lost != 3 {
		t.Errorf("%d samples are lost with those the kernel has, want 3", lost)
	}
}

// TestRawKernelCut holds that a stack is not complete whose kernel part may be cut.
func TestRawKernelCut(t *testing.T) {
	for n, want := range map[int]stack.Stop{unwinder.MaxKernelFrames - 1: stack.StopEnd, unwinder.MaxKernelFrames: stack.StopTooDeep} {
		raw := &unwinder.RawSample{
			Sample: stack.Sample{Trace: stack.Trace{Kernel: make([]stack.Addr, n)}},
			Regs:   unwind.Regs{PC: 0x1000, SP: 0x8000, FP: 0x8000, AllValid: true},
			// A frame record without a caller.
			Stack: unwinder.StackCopy{{Base: 0x8000, Bytes: make([]byte, 16)}},
		}
		proc := &process.Process{PID: 1, Mappings: []process.Mapping{{Begin: 0x1000, End: 0x2000, Kind: process.KindAnon}}}
		sp := space{files: newFiles(nil, nil, log.NewNopLogger()), proc: proc}
		if got := walkRaw(&sp, raw); got.Stop != want {
			t.Errorf("%d kernel frames: %v, want %v", n, got.Stop, want)
		}
	}
}
