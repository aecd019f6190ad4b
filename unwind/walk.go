// SPDX-License-Identifier: Apache-2.0

package unwind

import "github.com/lowflame/lowflame/stack"

// NumRegs is how many general registers Regs keeps: DWARF numbers 0..31 on
// arm64, 0..16 (16 is RIP) on x86-64.
const NumRegs = 33

// Regs is a thread's user-mode registers, by DWARF number.
type Regs struct {
	PC, SP, FP, LR uint64
	// General holds every register of an interrupted instruction. AllValid is
	// false in calling frames, where only PC, SP and FP are known.
	General  [NumRegs]uint64
	AllValid bool
}

// Memory reads the target's stack.
type Memory interface {
	// Word returns the little-endian 8 bytes at addr, and whether they could
	// be read.
	Word(addr uint64) (uint64, bool)
}

// Space finds what a process has mapped.
type Space interface {
	// At returns the code mapping that holds pc, or ok false.
	At(pc uint64) (c Code, ok bool)
}

// Code is one executable mapping as the walk sees it.
type Code struct {
	Begin, End uint64 // process addresses
	// Bias is process address minus link-time address.
	Bias uint64
	// Table is nil when FPWalk is set or the table is not there (TABLE_MISSING).
	Table *Table
	// FPWalk: anonymous executable memory, walked by frame pointer.
	FPWalk bool
}

// Result is a walked stack.
type Result struct {
	// PCs are process addresses, innermost first: the interrupted instruction,
	// then return addresses. There is at least one.
	PCs []uint64
	// Interrupted lists the indexes beyond 0 that are interrupted instructions
	// too, below a signal frame, ascending.
	Interrupted []int
	// Stop says why there are not more.
	Stop stack.Stop
	// Missing is the PC that lies in no mapping, or in one without a table, if
	// Stop is StopNoMapping or StopTableMissing.
	Missing uint64
}

// Walk walks the stack of a thread whose registers are regs, as the BPF program
// does, and returns at most max frames.
//
// The stack pointer must rise from frame to frame, but where a signal or a
// switch of stacks allows otherwise, so the walk ends for any memory.
func Walk(arch Arch, space Space, mem Memory, regs Regs, max int) Result {
	res := Result{PCs: []uint64{regs.PC}}
	f := Frame{Regs: regs, Exact: true}
	var code Code
	for res.Stop == stack.StopNone {
		at := f.Lookup()
		if at < code.Begin || at >= code.End {
			var ok bool
			if code, ok = space.At(at); !ok {
				res.Stop, res.Missing = stack.StopNoMapping, f.PC
				break
			}
		}
		res.Stop = Step(arch, &code, mem, &f)
		switch {
		case res.Stop == stack.StopTableMissing:
			res.Missing = f.PC
		case res.Stop != stack.StopNone:
		case len(res.PCs) >= max:
			res.Stop = stack.StopTooDeep
		default:
			if f.Exact {
				res.Interrupted = append(res.Interrupted, len(res.PCs))
			}
			res.PCs = append(res.PCs, f.PC)
		}
	}
	return res
}
