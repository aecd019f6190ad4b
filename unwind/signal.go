// SPDX-License-Identifier: Apache-2.0

package unwind

import "github.com/lowflame/lowflame/stack"

const (
	// sigRegsX86 is where the registers are from the stack pointer of a signal
	// return trampoline: there SP is at the ucontext (kernel: struct
	// rt_sigframe in arch/x86/include/asm/sigframe.h), whose uc_mcontext
	// follows flags, link and stack.
	sigRegsX86 = 40
	// sigRegsARM64 is the same on arm64, with SP at the start of the
	// rt_sigframe: siginfo (128), ucontext up to the aligned mcontext (176),
	// and its fault_address (kernel: arch/arm64/kernel/signal.c).
	sigRegsARM64 = 312
)

// sigOrderX86 is the DWARF numbers of the registers in the order struct
// sigcontext has them (kernel: arch/x86/include/uapi/asm/sigcontext.h).
func sigOrderX86() [17]uint8 {
	return [...]uint8{8, 9, 10, 11, 12, 13, 14, 15, 5, 4, 6, 3, 1, 0, 2, 7, 16}
}

// signal restores the registers of the instruction a signal interrupted. The
// handler may have run on another stack, so SP may go anywhere.
func (s *stepper) signal() (Frame, stack.Stop) {
	next := Frame{Exact: true}
	next.AllValid = true
	if s.arch == ARM64 {
		for i := range 33 { // x0..x30, sp, pc
			if !s.read(s.f.SP+sigRegsARM64+8*uint64(i), &next.General[i]) {
				return next, stack.StopReadStack
			}
		}
		next.FP, next.LR = next.General[arm64FP], next.General[arm64LR]
		next.SP, next.PC = next.General[arm64SP], next.General[arm64SP+1]
		return next, stack.StopNone
	}
	for i, n := range sigOrderX86() {
		if !s.read(s.f.SP+sigRegsX86+8*uint64(i), &next.General[n]) {
			return next, stack.StopReadStack
		}
	}
	next.FP, next.SP, next.PC = next.General[x86RBP], next.General[x86RSP], next.General[x86RIP]
	return next, stack.StopNone
}
