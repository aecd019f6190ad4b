// SPDX-License-Identifier: GPL-2.0

package unwinder

import (
	"context"
	"encoding/binary"
	"unsafe"

	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/unwind"
)

// RawSample is a sample whose user stack was left to user space, because the
// process or the table of a binary was not known in the kernel yet.
type RawSample struct {
	// Sample has the kernel frames and a Count of 1; User is empty.
	stack.Sample
	Regs unwind.Regs
	// Stack is a copy of the stack from the stack pointer up, at most 16 KiB, and
	// of at most 8 KiB from where the frame pointers first lead out of that.
	Stack StackCopy
	// Walked: with Config.Compare, the program has walked and counted the sample
	// too; Stop says how that ended.
	Walked bool
}

// StackCopy is two pieces of a thread's stacks. It implements unwind.Memory.
type StackCopy [2]StackPiece

// StackPiece is a copy of memory.
type StackPiece struct {
	Base  uint64 // address of Bytes[0]
	Bytes []byte
}

// Word returns the 8 bytes at addr.
func (c *StackCopy) Word(addr uint64) (uint64, bool) {
	for i := range c {
		p := &c[i]
		if off, n := addr-p.Base, uint64(len(p.Bytes)); off < n && n-off >= 8 {
			return binary.NativeEndian.Uint64(p.Bytes[off:]), true
		}
	}
	return 0, false
}

// RunRaw hands raw samples to use as they come, until ctx ends or the Unwinder
// is closed. The sample belongs to use.
func (u *Unwinder) RunRaw(ctx context.Context, use func(*RawSample)) error {
	return run(ctx, u.raws, u.rawDone, func(record []byte) {
		if s := parseRaw(record); s != nil {
			use(s)
		}
	})
}

func parseRaw(record []byte) *RawSample {
	const head = int(unsafe.Sizeof(bpfUnwRaw{}))
	if len(record) < head {
		return nil
	}
	var r bpfUnwRaw
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&r)), head), record)
	bytes := record[head:]
	near, far := int(r.StackN), int(r.FarN)
	if len(bytes) < near+far || int(r.KernelN) > len(r.Kernel) {
		return nil
	}
	bytes = append([]byte(nil), bytes[:near+far]...)
	s := &RawSample{
		Sample: stack.Sample{
			PID: r.Key.Tgid, TID: r.Key.Tid, Time: r.Time, Comm: comm(r.Key.Comm), Count: 1,
			Trace: stack.Trace{Stop: stack.Stop(r.Key.Stop)},
		},
		Regs:   unwind.Regs{PC: r.Pc, SP: r.Sp, FP: r.Fp, LR: r.Lr, General: r.Regs, AllValid: true},
		Stack:  StackCopy{{Base: r.Sp, Bytes: bytes[:near]}, {Base: r.Far, Bytes: bytes[near:]}},
		Walked: r.Walked != 0,
	}
	for _, a := range r.Kernel[:r.KernelN] {
		s.Kernel = append(s.Kernel, stack.Addr(a))
	}
	return s
}
