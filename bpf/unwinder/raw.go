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
	// Stack is a copy of the stack from the stack pointer up, at most 16 KiB.
	Stack StackCopy
}

// StackCopy is a piece of a thread's stack. It implements unwind.Memory.
type StackCopy struct {
	Base  uint64 // address of Bytes[0]
	Bytes []byte
}

// Word returns the 8 bytes at addr.
func (c StackCopy) Word(addr uint64) (uint64, bool) {
	off := addr - c.Base
	if off > uint64(len(c.Bytes)) || uint64(len(c.Bytes))-off < 8 {
		return 0, false
	}
	return binary.NativeEndian.Uint64(c.Bytes[off:]), true
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
	if len(bytes) < int(r.StackN) || int(r.KernelN) > len(r.Kernel) {
		return nil
	}
	s := &RawSample{
		Sample: stack.Sample{
			PID: r.Key.Tgid, TID: r.Key.Tid, Time: r.Time, Comm: comm(r.Key.Comm), Count: 1,
			Trace: stack.Trace{Stop: stack.Stop(r.Key.Stop)},
		},
		Regs:  unwind.Regs{PC: r.Pc, SP: r.Sp, FP: r.Fp, LR: r.Lr, General: r.Regs, AllValid: true},
		Stack: StackCopy{Base: r.Sp, Bytes: append([]byte(nil), bytes[:r.StackN]...)},
	}
	for _, a := range r.Kernel[:r.KernelN] {
		s.Kernel = append(s.Kernel, stack.Addr(a))
	}
	return s
}
