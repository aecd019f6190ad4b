// SPDX-License-Identifier: Apache-2.0

package pprofexport

import (
	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/symbolize"
)

// Names of mappings that are no files. pprof knows a name that begins with a
// bracket, and "//anon", as one it cannot symbolize
// (profile.Mapping.Unsymbolizable).
const (
	KernelFile = "[kernel.kallsyms]" // the kernel proper
	AnonFile   = "//anon"            // anonymous executable memory: JIT code
	OwnFile    = "[lowflame]"        // frames the profiler makes up
)

// Mapping is a range of a process's memory, or of the kernel's, that frames
// lie in. Mappings with equal fields become one in the profile.
type Mapping struct {
	Begin, End uint64 // addresses, End exclusive
	Off        uint64 // offset into File of Begin, bytes
	// File is the path as the process sees it, without " (deleted)", or one of
	// the names above, or the name of a kernel module in brackets.
	File    string
	BuildID string // hexadecimal, or as the toolchain wrote it; "" if none
	// Main says that File is the program a process runs. It decides which
	// mapping comes first in the profile and is not itself written.
	Main bool
}

// KernelMapping returns the mapping for kernel code: module as
// symbolize.Symbolizer.Kernel names it ("[nf_tables]", "bpf"); "" is the kernel
// proper. It covers the upper half of the address space, where every kernel
// address lies, so that it is the same mapping in every profile and
// profile.Merge does not shift addresses.
func KernelMapping(module string) *Mapping {
	switch {
	case module == "":
		module = KernelFile
	case module[0] != '[':
		module = "[" + module + "]"
	}
	return &Mapping{Begin: 1 << 63, End: ^uint64(0), File: module}
}

// AnonMapping returns the mapping for anonymous executable memory.
func AnonMapping(begin, end uint64) *Mapping {
	return &Mapping{Begin: begin, End: end, File: AnonFile}
}

// Frame is one address of a stack and what it means. Builder keeps frames it
// was given by pointer: but for its lines, of which Builder.Relabel is told, a frame
// must not change once added, and a caller that passes the same frame again spares the
// builder the work.
type Frame struct {
	// Addr is the address the frame was looked up with (stack.Trace.Lookup),
	// as the process sees it. For a return address that is the byte before it:
	// profile.proto says of Location.address that a non-leaf one "may be in the
	// middle of a call instruction", and pprof takes it as it is.
	Addr    uint64
	Mapping *Mapping // nil when no mapping held the address
	// Lines are the functions at Addr, innermost inlined one first. Empty, or
	// only empty names: the frame has no name.
	Lines []symbolize.Line
}

// Label is a further name and value on a sample.
type Label struct{ Key, Value string }

// Labels say where a sample was taken. Zero fields are left out.
type Labels struct {
	// PID and TID become the numeric labels "pid" and "tid". pprof shows and
	// filters them as numbers: -tagfocus=pid=123, or a range such as
	// pid=100:200. TID is 0 unless threads are told apart.
	PID, TID uint32
	Comm     string // "comm": name of the process
	Thread   string // "thread": name of the thread
	// ContainerID and Cgroup become "container_id" and "cgroup".
	ContainerID, Cgroup string
	// More holds other labels. In keys, bytes outside [a-zA-Z0-9_] become "_";
	// Parca refuses anything else. The first of two with the same key wins, and
	// none can replace a label above or "stop".
	More []Label
}

// Sample is one stack and how often it was caught.
type Sample struct {
	// Frames are leaf first: kernel frames, then user frames.
	Frames []*Frame
	Labels Labels
	Count  int64
	// Stop says why the walk of the user stack ended. When that leaves the
	// stack incomplete, its name becomes the label "stop".
	Stop stack.Stop
}
