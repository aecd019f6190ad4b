// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"github.com/lowflame/lowflame/pprofexport"
	"github.com/lowflame/lowflame/process"
	"github.com/lowflame/lowflame/stack"
)

const (
	// maxLate bounds the frames that may get a name later, and maxHeld the samples
	// that wait for it.
	maxLate = 16 << 10
	maxHeld = 64 << 10
)

// lateFrame is a frame of code made at run time that has no name yet: V8 writes its
// dump 2 MB at a time, the JVM its perf map when it exits.
type lateFrame struct {
	proc *process.Process
	addr stack.Addr
}

// keepLate has frames without a name remembered, for nameLate.
func (r *resolver) keepLate() { r.late = make(map[*pprofexport.Frame]lateFrame) }

func (r *resolver) addLate(f *pprofexport.Frame, proc *process.Process, addr stack.Addr) {
	if r.late != nil && len(f.Lines) == 0 && len(r.late) < maxLate {
		r.late[f] = lateFrame{proc, addr}
	}
}

// waits reports whether a frame of s may get its name from nameLate.
func (r *resolver) waits(s *pprofexport.Sample) bool {
	for _, f := range s.Frames {
		if _, ok := r.late[f]; ok {
			return true
		}
	}
	return false
}

// nameLate names what can be named by now.
func (r *resolver) nameLate() {
	for f, l := range r.late {
		f.Lines = r.symbols.JIT(jitProcess(l.proc), l.addr)
	}
	clear(r.late)
}
