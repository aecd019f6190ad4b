// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"runtime"
	"slices"

	"github.com/lowflame/lowflame/bpf/unwinder"
	"github.com/lowflame/lowflame/process"
	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/unwind"
)

// nativeArch is the machine lowflame runs on.
func nativeArch() unwind.Arch {
	if runtime.GOARCH == "arm64" {
		return unwind.ARM64
	}
	return unwind.AMD64
}

// space is the code of one process, for the walk in Go. Files are opened as
// the walk comes to them.
type space struct {
	files *files
	proc  *process.Process
	vm    *vm // of the process, or nil
	// fresh collects the files that were opened, completed those whose tables were.
	fresh     []process.FileID
	completed []*file
}

// At implements unwind.Space.
func (s *space) At(pc uint64) (unwind.Code, bool) {
	m := s.proc.Find(stack.Addr(pc))
	if m == nil {
		return unwind.Code{}, false
	}
	if s.vm != nil && m.Kind == process.KindAnon {
		return s.vm.code(m, pc), true
	}
	code := unwind.Code{Begin: uint64(m.Begin), End: uint64(m.End)}
	f, fresh := s.files.get(s.proc, m)
	if fresh {
		s.fresh = append(s.fresh, m.File)
	}
	switch {
	case m.Kind == process.KindAnon || f != nil && f.notELF && m.Kind == process.KindMemfd:
		code.FPWalk = true
	case f == nil || f.object == nil:
	default:
		table := f.table.Load()
		if table == nil {
			code.Table = new(unwind.Table) // no rule for any address
		} else if bias, ok := f.bias(m); ok {
			code.Bias, code.Table = bias, table.Table
		}
	}
	return code, true
}

// complete completes the table of the file that a walk ended in for want of a
// rule. It returns false if it was complete.
func (s *space) complete(walked *unwind.Result) bool {
	last := len(walked.PCs) - 1
	at := walked.PCs[last]
	if last > 0 && !slices.Contains(walked.Interrupted, last) {
		at-- // as unwind.Frame.Lookup
	}
	m := s.proc.Find(stack.Addr(at))
	if walked.Stop != stack.StopNoRule || m == nil {
		return false
	}
	f := s.files.known(s.proc, m)
	if f == nil || !s.files.complete(f) {
		return false
	}
	s.completed = append(s.completed, f)
	return true
}

// walkRaw finishes the walk of a raw sample with what is known of its process
// by now; sp.fresh has the files this opened, sp.completed those it looked at again.
func walkRaw(sp *space, raw *unwinder.RawSample) stack.Sample {
	sample := raw.Sample
	walked := unwind.Walk(nativeArch(), sp, &raw.Stack, raw.Regs, unwinder.MaxUserFrames)
	for sp.complete(&walked) {
		walked = unwind.Walk(nativeArch(), sp, &raw.Stack, raw.Regs, unwinder.MaxUserFrames)
	}
	sample.Stop = walked.Stop
	if sample.Stop == stack.StopEnd && len(raw.Kernel) >= unwinder.MaxKernelFrames {
		sample.Stop = stack.StopTooDeep // as the BPF program does: frames in the middle may be missing
	}
	sample.Interrupted = walked.Interrupted
	sample.User = make([]stack.Addr, len(walked.PCs))
	for i, pc := range walked.PCs {
		sample.User[i] = stack.Addr(pc)
	}
	return sample
}
