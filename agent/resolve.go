// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"github.com/lowflame/lowflame/pprofexport"
	"github.com/lowflame/lowflame/process"
	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/symbolize"
)

// resolver turns addresses into frames. A frame is made once per file and
// link-time address, however many processes and stacks it is in. Not safe for
// concurrent use.
type resolver struct {
	files   *files
	table   *process.Table
	symbols *symbolize.Symbolizer
	unnamed bool // Config.NoSymbols
	kernel  map[stack.Addr]*pprofexport.Frame
	modules map[string]*pprofexport.Mapping
	images  map[uint64]*imageFrames // by process.Process.ID
	late    map[*pprofexport.Frame]lateFrame
}

// imageFrames holds the frames that mean something in one process only.
type imageFrames struct {
	used uint64 // time of the last window that needed it
	// refreshed is set once the perf map has been read in this window.
	refreshed bool
	frames    map[stack.Addr]*pprofexport.Frame
}

func newResolver(f *files, t *process.Table, s *symbolize.Symbolizer) *resolver {
	return &resolver{
		files: f, table: t, symbols: s,
		kernel:  make(map[stack.Addr]*pprofexport.Frame),
		modules: make(map[string]*pprofexport.Mapping),
		images:  make(map[uint64]*imageFrames),
	}
}

// begin starts a window: forget what may mean something else by now. Code made
// at run time moves and gets its names late; of the kernel only BPF programs and
// the like do, when symbols says that it made or dropped some.
func (r *resolver) begin(symbols bool) {
	for _, image := range r.images {
		image.refreshed = false
		clear(image.frames)
	}
	if !symbols {
		return
	}
	for addr, f := range r.kernel {
		if len(f.Lines) == 0 || f.Mapping.File != pprofexport.KernelFile {
			delete(r.kernel, addr)
		}
	}
}

// resolve names the frames and labels of a sample.
func (r *resolver) resolve(s *stack.Sample) pprofexport.Sample {
	proc := r.table.At(s.PID, s.Time)
	switch n := len(s.User); {
	case r.inExec(s):
		s.User, s.Stop = nil, stack.StopExec
	case s.Stop == stack.StopNoMapping && n > 1 && (proc == nil || proc.Find(s.Lookup(n-1)) == nil):
		s.User = s.User[:n-1] // no return address
	}
	out := pprofexport.Sample{
		Frames: make([]*pprofexport.Frame, 0, len(s.Kernel)+len(s.User)),
		Labels: labels(s, proc),
		Count:  int64(s.Count),
		Stop:   s.Stop,
	}
	for i := range s.Kernel {
		out.Frames = append(out.Frames, r.kernelFrame(s.KernelLookup(i)))
	}
	for i := range s.User {
		out.Frames = append(out.Frames, r.userFrame(proc, s.Lookup(i), s.Time))
	}
	return out
}

// inExec reports whether a sample was taken in execve between the end of the
// old image and the start of the new: the registers are still the old one's.
func (r *resolver) inExec(s *stack.Sample) bool {
	if s.Stop.Complete() || len(s.User) > 1 {
		return false
	}
	for i := range s.Kernel {
		for _, l := range r.kernelFrame(s.KernelLookup(i)).Lines {
			switch l.Name {
			case "load_elf_binary", "begin_new_exec", "bprm_execve":
				return true
			}
		}
	}
	return false
}

func labels(s *stack.Sample, proc *process.Process) pprofexport.Labels {
	l := pprofexport.Labels{PID: s.PID, TID: s.TID, Comm: s.Comm, Thread: s.Comm}
	if proc != nil {
		l.ContainerID, l.Cgroup = proc.ContainerID, proc.Cgroup
		if proc.Comm != "" {
			l.Comm = proc.Comm
		}
	}
	return l
}

func (r *resolver) kernelFrame(addr stack.Addr) *pprofexport.Frame {
	if f := r.kernel[addr]; f != nil {
		return f
	}
	module, lines := r.symbols.Kernel(addr)
	m := r.modules[module]
	if m == nil {
		m = pprofexport.KernelMapping(module)
		r.modules[module] = m
	}
	f := &pprofexport.Frame{Addr: uint64(addr), Mapping: m, Lines: lines}
	r.kernel[addr] = f
	return f
}

func (r *resolver) userFrame(proc *process.Process, addr stack.Addr, when uint64) *pprofexport.Frame {
	if proc == nil {
		return &pprofexport.Frame{Addr: uint64(addr)}
	}
	m := proc.Find(addr)
	if m == nil {
		return r.imageFrame(proc, nil, addr, when)
	}
	f, _ := r.files.get(proc, m)
	if f == nil || f.object == nil {
		return r.imageFrame(proc, m, addr, when)
	}
	bias, ok := f.bias(m)
	if !ok {
		return r.imageFrame(proc, m, addr, when)
	}
	return r.fileFrame(f, proc, m, stack.LinkAddr(uint64(addr)-bias))
}

func (r *resolver) fileFrame(f *file, proc *process.Process, m *process.Mapping, addr stack.LinkAddr) *pprofexport.Frame {
	f.mu.Lock()
	frame := f.frames[addr]
	f.mu.Unlock()
	if frame != nil {
		return frame
	}
	frame = &pprofexport.Frame{
		Addr:    uint64(addr),
		Mapping: f.mapping(m, addr, proc.Exe != "" && m.Path == proc.Exe),
	}
	if !r.unnamed {
		frame.Lines = r.symbols.User(f.binary, addr)
	}
	f.mu.Lock()
	f.frames[addr] = frame
	f.mu.Unlock()
	return frame
}

// imageFrame makes a frame for code that belongs to one process: made at run
// time, or in a file that could not be opened.
func (r *resolver) imageFrame(proc *process.Process, m *process.Mapping, addr stack.Addr, when uint64) *pprofexport.Frame {
	image := r.images[proc.ID]
	if image == nil {
		image = &imageFrames{frames: make(map[stack.Addr]*pprofexport.Frame)}
		r.images[proc.ID] = image
		addDumps(r.symbols, proc)
	}
	image.used = max(image.used, when)
	if f := image.frames[addr]; f != nil {
		return f
	}
	f := &pprofexport.Frame{Addr: uint64(addr)}
	switch {
	case m == nil:
	case m.Kind == process.KindFile || m.Kind == process.KindOther || m.Kind == process.KindVDSO:
		f.Mapping = &pprofexport.Mapping{Begin: uint64(m.Begin), End: uint64(m.End), Off: uint64(m.Off), File: m.Path, Main: m.Path == proc.Exe}
	default:
		f.Mapping = pprofexport.AnonMapping(uint64(m.Begin), uint64(m.End))
		f.Lines = r.jitLines(image, proc, addr)
		r.addLate(f, proc, addr)
	}
	image.frames[addr] = f
	return f
}

// jitLines names code made at run time. The perf map may have grown since it
// was read: it is read again once a window if it lacks an address.
func (r *resolver) jitLines(image *imageFrames, proc *process.Process, addr stack.Addr) []symbolize.Line {
	lines := r.symbols.JIT(jitProcess(proc), addr)
	if len(lines) == 0 && !image.refreshed {
		image.refreshed = true
		addDumps(r.symbols, proc)
		if r.symbols.RefreshJIT(jitProcess(proc)) == nil {
			lines = r.symbols.JIT(jitProcess(proc), addr)
		}
	}
	return lines
}

// addDumps looks for the mappings by which a process names its jitdumps.
func addDumps(symbols *symbolize.Symbolizer, proc *process.Process) {
	for i := range proc.Mappings {
		if m := &proc.Mappings[i]; m.Kind == process.KindFile {
			symbols.AddJITDump(jitProcess(proc), m.Path)
		}
	}
}

func jitProcess(proc *process.Process) symbolize.JITProcess {
	return symbolize.JITProcess{PID: proc.PID, NSPID: proc.NSPID, Start: proc.ID}
}

// forget drops the frames of processes that no window since the given time
// needed, CLOCK_MONOTONIC ns.
func (r *resolver) forget(before uint64) {
	for id, image := range r.images {
		if image.used < before {
			delete(r.images, id)
		}
	}
}

// mapping describes the segment that holds a link-time address, in link-time
// addresses: equal for every process that maps the file. Code outside every
// executable segment was made executable later; then it is what m maps.
func (f *file) mapping(m *process.Mapping, addr stack.LinkAddr, main bool) *pprofexport.Mapping {
	out := &pprofexport.Mapping{File: f.path, BuildID: f.buildID, Main: main}
	for _, s := range f.object.Segments {
		if s.Exec && addr >= s.Addr && uint64(addr-s.Addr) < s.MemSize {
			out.Begin, out.End, out.Off = uint64(s.Addr), uint64(s.Addr)+s.MemSize, uint64(s.Off)
			return out
		}
	}
	bias, _ := f.bias(m)
	out.Begin, out.End, out.Off = uint64(m.Begin)-bias, uint64(m.End)-bias, uint64(m.Off)
	return out
}
