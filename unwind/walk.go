// SPDX-License-Identifier: Apache-2.0

package unwind

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
