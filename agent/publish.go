// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"sync"

	"github.com/lowflame/lowflame/bpf/unwinder"
	"github.com/lowflame/lowflame/process"
)

// publisher keeps what the BPF program knows of processes in step with the
// process table. It is the only caller of SetProcess and DeleteProcess.
type publisher struct {
	unwinder *unwinder.Unwinder
	files    *files

	mu sync.Mutex // guards what follows
	// published is the version of each process's mappings the program has.
	published map[uint32]uint64
	// waiting lists the processes that map a file not loaded yet, by file.
	waiting map[process.FileID]map[uint32]*process.Process
	errors  uint64
}

func newPublisher(u *unwinder.Unwinder, f *files) *publisher {
	return &publisher{
		unwinder: u, files: f,
		published: make(map[uint32]uint64),
		waiting:   make(map[process.FileID]map[uint32]*process.Process),
	}
}

// publish gives the program the mappings of a live process. Files that have
// not been opened are marked missing: the first sample in one arrives raw, has
// it opened, and publishes the process again.
func (p *publisher) publish(proc *process.Process) error {
	if proc.KThread {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	ms := make([]unwinder.Mapping, 0, len(proc.Mappings))
	for i := range proc.Mappings {
		ms = append(ms, p.mapping(proc, &proc.Mappings[i]))
	}
	p.published[proc.PID] = proc.Version
	err := p.unwinder.SetProcess(proc.PID, ms)
	if err != nil {
		p.errors++
	}
	if errors.Is(err, unwinder.ErrMappingsFull) {
		return nil // its samples arrive raw, which costs more and loses nothing
	}
	return err
}

func (p *publisher) mapping(proc *process.Process, m *process.Mapping) unwinder.Mapping {
	out := unwinder.Mapping{Begin: uint64(m.Begin), End: uint64(m.End)}
	switch m.Kind {
	case process.KindAnon:
		out.Kind = unwinder.MapFP
		return out
	case process.KindOther:
		return out
	}
	f := p.files.known(proc, m)
	switch {
	case f == nil && m.Kind == process.KindVDSO:
	case f == nil:
		out.Kind = unwinder.MapMissing
		if p.waiting[m.File] == nil {
			p.waiting[m.File] = make(map[uint32]*process.Process)
		}
		p.waiting[m.File][proc.PID] = proc
	case f.notELF && m.Kind == process.KindMemfd:
		out.Kind = unwinder.MapFP
	case f.table != nil:
		if bias, ok := f.bias(m); ok {
			out.Kind, out.Bias, out.Table = unwinder.MapTable, bias, f.table
		}
	}
	return out
}

// loaded publishes every process that waited for a file again.
func (p *publisher) loaded(id process.FileID, live func(pid uint32) *process.Process) error {
	p.mu.Lock()
	waiting := p.waiting[id]
	delete(p.waiting, id)
	p.mu.Unlock()
	var errs []error
	for pid := range waiting {
		if proc := live(pid); proc != nil {
			errs = append(errs, p.publish(proc))
		}
	}
	return errors.Join(errs...)
}

// forget removes a process that has ended.
func (p *publisher) forget(proc *process.Process) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range proc.Mappings {
		if w := p.waiting[proc.Mappings[i].File]; w != nil {
			delete(w, proc.PID)
			if len(w) == 0 {
				delete(p.waiting, proc.Mappings[i].File)
			}
		}
	}
	if _, ok := p.published[proc.PID]; !ok {
		return nil
	}
	delete(p.published, proc.PID)
	return p.unwinder.DeleteProcess(proc.PID)
}
