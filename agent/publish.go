// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/lowflame/lowflame/bpf/unwinder"
	"github.com/lowflame/lowflame/process"
)

// publisher keeps what the BPF program knows of processes in step with the
// process table. It is the only caller of SetProcess and DeleteProcess.
type publisher struct {
	unwinder *unwinder.Unwinder
	files    *files
	vms      *vms
	told     func(p *process.Process, missing int) // Config.Published

	mu sync.Mutex // guards what follows
	// published holds the processes the program was told of.
	published map[uint32]struct{}
	// quiet holds those of them whose samples come raw for unknown tables only.
	quiet map[uint32]struct{}
	// waiting lists the processes that map a file not loaded yet, by file.
	waiting map[process.FileID]map[uint32]struct{}
}

func newPublisher(u *unwinder.Unwinder, f *files, vs *vms, told func(*process.Process, int)) *publisher {
	return &publisher{
		unwinder: u, files: f, vms: vs, told: told,
		published: make(map[uint32]struct{}),
		quiet:     make(map[uint32]struct{}),
		waiting:   make(map[process.FileID]map[uint32]struct{}),
	}
}

// publish gives the program the mappings of a live process. Files that have
// not been opened are marked missing: the first sample in one arrives raw, has
// it opened, and publishes the process again. After an error all its samples
// arrive raw, which costs more and loses little.
func (p *publisher) publish(proc *process.Process) error {
	if proc.KThread {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	ms := make([]unwinder.Mapping, 0, len(proc.Mappings))
	v, missing := p.vms.of(proc), 0
	for i := range proc.Mappings {
		if m := &proc.Mappings[i]; v != nil && m.Kind == process.KindAnon {
			ms = v.mappings(ms, m)
			continue
		}
		m := p.mapping(proc, &proc.Mappings[i])
		if m.Kind == unwinder.MapMissing {
			missing++
		}
		ms = append(ms, m)
	}
	p.published[proc.PID] = struct{}{}
	delete(p.quiet, proc.PID)
	err := p.unwinder.SetProcess(proc.PID, max(proc.Since, proc.Known), ms)
	if err == nil && p.told != nil {
		p.told(proc, missing)
	}
	return err
}

// settle says that what was last published of a process is all there is.
func (p *publisher) settle(pid uint32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.published[pid]; !ok {
		return nil
	}
	p.quiet[pid] = struct{}{}
	return p.unwinder.Settle(pid)
}

// settled reports whether any process is.
func (p *publisher) settled() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.quiet) > 0
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
	f := p.files.expect(proc, m)
	switch {
	case f == nil && m.Kind == process.KindVDSO:
	case f == nil:
		out.Kind = unwinder.MapMissing
		p.wait(m.File, proc.PID)
	case f.notELF && m.Kind == process.KindMemfd:
		out.Kind = unwinder.MapFP
	default:
		table := f.table.Load()
		if bias, ok := f.bias(m); ok && table != nil {
			out.Kind, out.Bias, out.Table = unwinder.MapTable, bias, table
		}
	}
	return out
}

// loaded publishes again every process that waited for a file and now has it.
func (p *publisher) loaded(id process.FileID, live func(pid uint32) *process.Process) error {
	p.mu.Lock()
	waiting := p.waiting[id]
	delete(p.waiting, id)
	p.mu.Unlock()
	var errs []error
	var still []uint32
	for pid := range waiting {
		proc := live(pid)
		i := -1
		if proc != nil {
			i = slices.IndexFunc(proc.Mappings, func(m process.Mapping) bool { return m.File == id })
		}
		switch {
		case i < 0:
		case p.files.known(proc, &proc.Mappings[i]) == nil: // loaded for another process only
			still = append(still, pid)
		default:
			errs = append(errs, p.publish(proc))
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pid := range still {
		p.wait(id, pid)
	}
	return errors.Join(errs...)
}

// completed publishes again every process that maps one of the files, whose tables
// have been replaced.
func (p *publisher) completed(files []*file, live func(pid uint32) *process.Process) error {
	if len(files) == 0 {
		return nil
	}
	p.mu.Lock()
	pids := slices.Collect(maps.Keys(p.published))
	p.mu.Unlock()
	var errs []error
	for _, pid := range pids {
		proc := live(pid)
		if proc != nil && slices.ContainsFunc(proc.Mappings, func(m process.Mapping) bool {
			return slices.Contains(files, p.files.known(proc, &m))
		}) {
			errs = append(errs, p.publish(proc))
		}
	}
	return errors.Join(errs...)
}

// wait notes that a process waits for a file. p.mu is held.
func (p *publisher) wait(id process.FileID, pid uint32) {
	if p.waiting[id] == nil {
		p.waiting[id] = make(map[uint32]struct{})
	}
	p.waiting[id][pid] = struct{}{}
}

// retire notes that an image has ended: it waits for nothing any more.
func (p *publisher) retire(proc *process.Process) {
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
}

// forget removes a process that has ended.
func (p *publisher) forget(pid uint32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.published[pid]; !ok {
		return nil
	}
	delete(p.published, pid)
	delete(p.quiet, pid)
	return p.unwinder.DeleteProcess(pid)
}
