// SPDX-License-Identifier: Apache-2.0

// Package kernel names kernel addresses: functions of the kernel and its
// modules, and what the kernel made at run time (BPF programs, trampolines).
//
// Names come from /proc/kallsyms, read when the first address is asked for, and
// from the PERF_RECORD_KSYMBOL events the caller hands over, which make a newly
// loaded BPF program known without reading 5 MB of text again.
package kernel

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/lowflame/lowflame/stack"
)

// Core is the module name of the kernel proper, the one perf uses.
const Core = "[kernel.kallsyms]"

// BPF is the module name of BPF programs and trampolines.
const BPF = "[bpf]"

// ErrRestricted says that the kernel shows its symbols with all addresses zero:
// the reader lacks CAP_SYSLOG, or kernel.kptr_restrict is 2.
var ErrRestricted = errors.New("kernel symbol addresses are hidden: needs CAP_SYSLOG, and kernel.kptr_restrict below 2")

// Config says where to read from. The zero value is the running kernel.
type Config struct {
	// Kallsyms and Modules are the paths of the files to read; empty means
	// /proc/kallsyms and /proc/modules.
	Kallsyms, Modules string
	// Recheck is the least time between two looks at Modules; 0 means 10 s.
	Recheck time.Duration
}

// Symbol is a function of the kernel.
type Symbol struct {
	// Name is the symbol's name as the kernel gives it, at most 511 bytes.
	Name string
	// Module is Core, BPF, or a module's name in square brackets, as in
	// "[nf_tables]".
	Module string
	// Start is the first address and End the one past the last. kallsyms has no
	// sizes, so End may lie in the padding behind the function.
	Start, End stack.Addr
}

// Stats counts what happened since New.
type Stats struct {
	Loads   uint64 // times kallsyms was read
	Symbols uint64 // functions known now, without those made at run time
	Dynamic uint64 // functions made at run time that are known now
	Bytes   uint64 // heap held by the table
}

// Symbols names kernel addresses. It is safe for concurrent use.
type Symbols struct {
	kallsyms, modules string
	recheck           time.Duration

	mu      sync.Mutex // guards what follows
	static  *table     // nil until the first load
	dynamic dynamic
	err     error
	looked  time.Time // when modules was last looked at
	seen    uint64    // fingerprint of modules at the last load
	loads   uint64
}

// New returns Symbols that read nothing until the first Lookup.
func New(c Config) *Symbols {
	return &Symbols{
		kallsyms: cmp.Or(c.Kallsyms, "/proc/kallsyms"),
		modules:  cmp.Or(c.Modules, "/proc/modules"),
		recheck:  cmp.Or(c.Recheck, 10*time.Second),
	}
}

// Lookup returns the function that contains addr, and whether there is one.
// Without one, Symbol.Module still says which part of the kernel addr belongs
// to: Core when nothing better is known.
//
// The first call reads kallsyms (50 to 80 ms of CPU); so does one that comes
// after the set of loaded modules changed.
func (s *Symbols) Lookup(addr stack.Addr) (Symbol, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refresh()
	if d, ok := s.dynamic.find(addr); ok {
		return d, true
	}
	if s.static == nil {
		return Symbol{Module: Core}, false
	}
	return s.static.find(addr)
}

// Err returns why names are missing altogether: ErrRestricted, an error of the
// file system, or nil. It is nil before the first Lookup.
func (s *Symbols) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Stats returns the counters.
func (s *Symbols) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{Loads: s.loads, Dynamic: uint64(len(s.dynamic.syms)), Bytes: s.dynamic.bytes()}
	if s.static != nil {
		st.Symbols = uint64(len(s.static.offs))
		st.Bytes += s.static.bytes()
	}
	return st
}

// refresh loads the table when there is none or when modules came or went.
func (s *Symbols) refresh() {
	now := time.Now()
	if !s.looked.IsZero() && now.Sub(s.looked) < s.recheck {
		return
	}
	s.looked = now
	mods, err := readModules(s.modules)
	if err != nil {
		s.err = err
	}
	fp := fingerprint(mods)
	if s.static != nil && fp == s.seen {
		return
	}
	s.seen = fp
	if err := s.load(mods); err != nil {
		s.err = err // an older table is better than none
		return
	}
	s.err = nil
}

func (s *Symbols) load(mods []module) error {
	f, err := os.Open(s.kallsyms)
	if err != nil {
		return fmt.Errorf("read kernel symbols: %w", err)
	}
	defer f.Close()
	s.loads++
	raw, err := parse(f)
	if err != nil {
		return fmt.Errorf("read kernel symbols from %s: %w", s.kallsyms, err)
	}
	var dyn []Symbol
	s.static, dyn = build(raw, mods)
	s.dynamic.merge(dyn)
	return nil
}

// Event is a PERF_RECORD_KSYMBOL record: code the kernel made or dropped.
type Event struct {
	Addr stack.Addr
	Len  uint32 // bytes of code
	// Type is 1 for BPF (PERF_RECORD_KSYMBOL_TYPE_BPF), 2 for other code that is
	// not in the kernel image, such as kprobe and ftrace trampolines.
	Type uint16
	// Unregister is set when the code went away
	// (PERF_RECORD_KSYMBOL_FLAGS_UNREGISTER).
	Unregister bool
	Name       string
}

// Apply takes one event into account. A symbol that went away keeps its name
// until other code takes its place, for samples taken before it went.
func (s *Symbols) Apply(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.Unregister {
		s.dynamic.drop(e.Addr)
		return
	}
	mod := Core
	if e.Type == 1 {
		mod = BPF
	}
	s.dynamic.add(Symbol{
		Name: e.Name[:min(len(e.Name), maxName)], Module: mod,
		Start: e.Addr, End: end(e.Addr, uint64(e.Len)),
	})
}

// end returns start+n, without running past the last address.
func end(start stack.Addr, n uint64) stack.Addr {
	if e := start + stack.Addr(n); e >= start {
		return e
	}
	return ^stack.Addr(0)
}

// maxDynamic bounds the symbols made at run time. The kernel has no limit, but
// a machine with this many BPF programs is under attack or broken.
const maxDynamic = 1 << 16

// dynamic holds the code made at run time, sorted by Start, not overlapping.
type dynamic struct {
	syms []dynSymbol
	gone int // how many of syms have gone
}

type dynSymbol struct {
	Symbol
	gone bool
}

func (d *dynamic) search(addr stack.Addr) (int, bool) {
	return slices.BinarySearchFunc(d.syms, addr, func(s dynSymbol, a stack.Addr) int {
		return cmp.Compare(s.Start, a)
	})
}

func (d *dynamic) find(addr stack.Addr) (Symbol, bool) {
	i, ok := d.search(addr)
	if !ok {
		i--
	}
	if i < 0 || addr >= d.syms[i].End {
		return Symbol{}, false
	}
	return d.syms[i].Symbol, true
}

// add inserts s and forgets what it overlaps: two pieces of code cannot be in
// one place, so what was there before has gone.
func (d *dynamic) add(s Symbol) {
	if s.End <= s.Start {
		return
	}
	from, _ := d.search(s.Start)
	if from > 0 && d.syms[from-1].End > s.Start {
		// Whatever kallsyms gave has a guessed end; a start inside it tells more.
		if d.syms[from-1].gone {
			from--
		} else {
			d.syms[from-1].End = s.Start
		}
	}
	to := from
	for to < len(d.syms) && d.syms[to].Start < s.End {
		to++
	}
	for _, old := range d.syms[from:to] {
		if old.gone {
			d.gone--
		}
	}
	d.syms = slices.Replace(d.syms, from, to, dynSymbol{Symbol: s})
	d.trim()
}

func (d *dynamic) drop(addr stack.Addr) {
	if i, ok := d.search(addr); ok && !d.syms[i].gone {
		d.syms[i].gone = true
		d.gone++
		d.trim()
	}
}

// trim keeps the symbols that went few, and all of them bounded.
func (d *dynamic) trim() {
	if d.gone > 1024 || (len(d.syms) > maxDynamic && d.gone > 0) {
		d.syms = slices.DeleteFunc(d.syms, func(s dynSymbol) bool { return s.gone })
		d.gone = 0
	}
	if len(d.syms) > maxDynamic {
		d.syms = d.syms[:maxDynamic]
	}
}

// merge adds what kallsyms lists, whose ends are guesses, around what events
// told exactly. Symbols known as gone but listed have come back.
func (d *dynamic) merge(listed []Symbol) {
	for _, s := range listed {
		if i, ok := d.search(s.Start); ok && !d.syms[i].gone && d.syms[i].Name == s.Name {
			continue
		}
		if i, _ := d.search(s.Start); i < len(d.syms) && d.syms[i].Start > s.Start {
			s.End = min(s.End, d.syms[i].Start)
		}
		d.add(s)
	}
}

func (d *dynamic) bytes() uint64 {
	n := uint64(cap(d.syms)) * 64
	for _, s := range d.syms {
		n += uint64(len(s.Name))
	}
	return n
}
