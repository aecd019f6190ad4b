// SPDX-License-Identifier: Apache-2.0

// Package stack holds the nouns every other package speaks of: addresses,
// sampled stacks, and the reason a stack walk ended.
package stack

// Addr is a virtual address as a process (or the kernel) sees it at run time.
type Addr uint64

// LinkAddr is a virtual address as the ELF file gives it: what symbol tables,
// unwind tables and DWARF are keyed by. Process address minus load bias.
type LinkAddr uint64

// FileOff is a byte offset into an object file.
type FileOff uint64

// Trace is one stack, innermost frame first. User[0] and Kernel[0] are the
// interrupted instructions; all later entries are return addresses, which point
// one instruction past the call.
type Trace struct {
	Kernel []Addr
	User   []Addr
	// Interrupted lists the indexes into User, beyond 0, whose address is an
	// interrupted instruction rather than a return address: the frame below a
	// signal frame. Nil in nearly every trace.
	Interrupted []int
	// Stop says why the user walk ended.
	Stop Stop
}

// Lookup returns the address to look names and tables up with for User[i]: the
// interrupted instruction itself, or for a return address the byte before it,
// which lies inside the call (DWARF 5 §6.4.4).
func (t *Trace) Lookup(i int) Addr {
	if i == 0 || t.User[i] == 0 {
		return t.User[i]
	}
	for _, n := range t.Interrupted {
		if n == i {
			return t.User[i]
		}
	}
	return t.User[i] - 1
}

// KernelLookup is Lookup for Kernel[i].
func (t *Trace) KernelLookup(i int) Addr {
	if i == 0 || t.Kernel[i] == 0 {
		return t.Kernel[i]
	}
	return t.Kernel[i] - 1
}

// Sample is a trace and how often one thread was caught in it.
type Sample struct {
	Trace
	PID, TID uint32 // TID is 0 unless threads are told apart
	// Time is when the stack was first seen in its window, CLOCK_MONOTONIC ns.
	Time uint64
	// Comm is the name of the thread, at most 15 bytes, any bytes.
	Comm  string
	Count uint64
}
