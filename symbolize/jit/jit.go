// SPDX-License-Identifier: Apache-2.0

// Package jit names code that a process made at run time, from what the process
// writes of it: a perf map, /tmp/perf-PID.map, one line "start size name" per
// function, in hex (Linux: tools/perf/Documentation/jit-interface.txt), and dumps,
// jit-PID.dump, which have lines of source too.
//
// The files belong to the profiled process and are not to be trusted: they are
// opened only as regular files owned by the user of that process or by root,
// inside the root directory of the process, and what is read and kept of them is
// bounded in bytes, entries and time.
package jit

import (
	"cmp"
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lowflame/lowflame/stack"
)

// Process says whose code it is.
type Process struct {
	PID uint32
	// NSPID is the PID the process itself sees, which names the map; 0 means
	// read it from /proc/PID/status.
	NSPID uint32
	// Start tells two processes with one PID apart: any value that differs, such
	// as the start time in clock ticks.
	Start uint64
}

// Config bounds what Maps keeps. The zero value is fit for use.
type Config struct {
	Proc       string        // where proc is mounted; empty means /proc
	MaxBytes   int           // heap for all maps; 0 means 16 MiB
	MaxEntries int           // functions of one process; 0 means 1 Mi
	MaxFile    int64         // bytes of a map read at once; 0 means 64 MiB
	Interval   time.Duration // least time between two looks at a map; 0 means 1 s
}

// Symbol is what is known of an address.
type Symbol struct {
	// Name is the function's name as the file has it, at most 4 KiB of any bytes.
	Name string
	// File, of any bytes too, and Line are where the code at the address comes
	// from, which is another function if that was inlined; "" and 0 if not known.
	File string
	Line uint32
}

// Stats counts what happened since New.
type Stats struct {
	Processes uint64 // maps kept now
	Entries   uint64 // functions in them
	Bytes     uint64 // heap they take
	Read      uint64 // bytes read from maps
	Skipped   uint64 // lines that could not be understood or found no room
	Refused   uint64 // maps not opened because of what they are or who owns them
}

// Maps keeps the perf maps of processes. It is safe for concurrent use.
type Maps struct {
	c Config

	mu    sync.Mutex // guards what follows
	procs map[Process]*perfMap
	clock uint64 // ticks with every use, for eviction
	stats Stats
}

// New returns Maps with nothing read.
func New(c Config) *Maps {
	c.Proc = cmp.Or(c.Proc, "/proc")
	c.MaxBytes = cmp.Or(c.MaxBytes, 16<<20)
	c.MaxEntries = cmp.Or(c.MaxEntries, 1<<20)
	c.MaxFile = cmp.Or(c.MaxFile, 64<<20)
	c.Interval = cmp.Or(c.Interval, time.Second)
	return &Maps{c: c, procs: map[Process]*perfMap{}}
}

// Lookup returns the function of p that contains addr; ok is false if there is
// none.
//
// It looks at the files at most once per Config.Interval, and less often when
// reading them takes long. After the process has gone, the last state known
// answers. The error says why there is nothing to read, and comes with what an
// older state knows; it is fs.ErrNotExist for the many processes without a file.
func (m *Maps) Lookup(p Process, addr stack.Addr) (sym Symbol, ok bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	pm, err := m.refresh(p, false)
	if pm == nil {
		return Symbol{}, false, err
	}
	sym, ok = pm.find(uint64(addr))
	return sym, ok, err
}

// maxDumps bounds the dumps of a process. Most have one.
const maxDumps = 8

// AddDump has a dump of p read too. The process names it by an executable mapping
// of it; path is that of the mapping, in the root of the process. All dumps of a
// process are asked for every address.
func (m *Maps) AddDump(p Process, path string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	pm := m.of(p)
	if len(pm.dumps) >= maxDumps || slices.ContainsFunc(pm.dumps, func(d *perfMap) bool { return d.path == path }) {
		return
	}
	pm.dumps = append(pm.dumps, &perfMap{path: path})
	pm.next = time.Time{}
}

// IsDump reports whether the path of a mapping is that of a dump: jit-PID.dump.
func IsDump(path string) bool {
	name, ok := strings.CutPrefix(path[strings.LastIndexByte(path, '/')+1:], "jit-")
	pid, dump := strings.CutSuffix(name, ".dump")
	_, err := strconv.ParseUint(pid, 10, 32)
	return ok && dump && err == nil && path[0] == '/'
}

// Refresh reads what is new in the files of p now. Call it when p is about to go,
// so that its last functions have names.
func (m *Maps) Refresh(p Process) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := m.refresh(p, true)
	return err
}

// Forget drops the map of p.
func (m *Maps) Forget(p Process) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.procs, p)
}

// Stats returns the counters.
func (m *Maps) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	st := m.stats
	for _, pm := range m.procs {
		st.Processes++
		st.Entries += uint64(len(pm.entries))
		for _, d := range pm.dumps {
			st.Entries += uint64(len(d.entries))
		}
		st.Bytes += uint64(pm.bytes())
	}
	return st
}

// maxProcesses bounds the map of processes, each of which costs some 300 bytes
// even without a file.
const maxProcesses = 4096

// of returns what is known of p.
func (m *Maps) of(p Process) *perfMap {
	pm := m.procs[p]
	if pm == nil {
		if len(m.procs) >= maxProcesses {
			m.evict(nil)
		}
		pm = &perfMap{}
		m.procs[p] = pm
	}
	m.clock++
	pm.used = m.clock
	return pm
}

func (m *Maps) refresh(p Process, now bool) (*perfMap, error) {
	pm := m.of(p)
	start := time.Now()
	if !now && start.Before(pm.next) {
		return pm, pm.err
	}
	pm.err = m.readAll(p, pm)
	// A process that keeps its map growing cannot make us spend more than 5 % of
	// a CPU on it.
	pm.next = time.Now().Add(max(m.c.Interval, 20*time.Since(start)))
	if pm.err != nil && !errors.Is(pm.err, fs.ErrNotExist) {
		pm.next = time.Now().Add(10 * m.c.Interval)
	}
	m.makeRoom(pm)
	return pm, pm.err
}

// readAll reads what is new in the map and the dumps of p. That there is no map
// is no error if there are dumps.
func (m *Maps) readAll(p Process, pm *perfMap) error {
	n, err := m.read(p, pm)
	m.stats.Read += uint64(n)
	if errors.Is(err, errRefused) {
		m.stats.Refused++
	}
	if errors.Is(err, fs.ErrNotExist) && len(pm.dumps) > 0 {
		err = nil
	}
	for _, d := range pm.dumps {
		n, dumpErr := m.readDump(p, pm, d)
		m.stats.Read += uint64(n)
		if errors.Is(dumpErr, errRefused) || errors.Is(dumpErr, errDump) {
			m.stats.Refused++
		}
		err = errors.Join(err, dumpErr)
	}
	return err
}

// makeRoom drops the maps not used for longest until all fit, sparing keep.
func (m *Maps) makeRoom(keep *perfMap) {
	total := 0
	for _, pm := range m.procs {
		total += pm.bytes()
	}
	for total > m.c.MaxBytes && len(m.procs) > 1 {
		total -= m.evict(keep)
	}
}

// evict drops the map not used for longest, other than keep, and returns its
// bytes.
func (m *Maps) evict(keep *perfMap) int {
	var victim Process
	var oldest *perfMap
	for p, pm := range m.procs {
		if pm != keep && (oldest == nil || pm.used < oldest.used) {
			victim, oldest = p, pm
		}
	}
	if oldest == nil {
		return 0
	}
	delete(m.procs, victim)
	return oldest.bytes()
}
