// SPDX-License-Identifier: Apache-2.0

// Package symbolize turns addresses into names: of functions in ELF files and Go
// programs, of the kernel, and of code made at run time.
//
// Names come at once from what is cheap to read; nothing here reads DWARF or waits
// for a network. All of it is bounded in memory, whatever the files hold.
package symbolize

import (
	"cmp"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/objfile/gopclntab"
	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/symbolize/elfsym"
	"github.com/lowflame/lowflame/symbolize/gosym"
	"github.com/lowflame/lowflame/symbolize/internal/lru"
	"github.com/lowflame/lowflame/symbolize/jit"
	"github.com/lowflame/lowflame/symbolize/kernel"
)

// Line is a function and, where known, a place in it. All strings are UTF-8 without
// control characters.
type Line struct {
	// Name is for people: demangled, without the suffix of a clone.
	Name string
	// SystemName is the name in the file, from which other tools make theirs.
	SystemName string
	File       string
	Line       int64 // 0 if not known
	StartLine  int64 // of the function; 0 if not known
}

// Binary is a file with code.
type Binary struct {
	// ID stands for the contents of the file: what is learned of one is used for
	// all with its ID.
	ID string
	// Object is read from while User runs. The file behind it must be open then,
	// and need not be otherwise.
	Object *objfile.Object
	// Debug, unless nil, is the file with the symbols that were taken out of
	// Object, to which the same applies.
	Debug *objfile.Object
	// Index, unless nil, is asked before symbols are.
	Index Index
}

// JITProcess is a process whose perf map is looked for.
type JITProcess = jit.Process

// KernelEvent is a PERF_RECORD_KSYMBOL record.
type KernelEvent = kernel.Event

// Config bounds what a Symbolizer keeps. The zero value is fit for use.
type Config struct {
	Demangle      Demangle
	Kernel        kernel.Config
	JIT           jit.Config
	SymbolBytes   int // tables of ELF files; 0 means 16 MiB
	LocationBytes int // results; 0 means 8 MiB
	GoTables      int // open tables of Go programs; 0 means 16
}

// Symbolizer names addresses. It is safe for concurrent use, but does one thing at a
// time. Only ApplyKernel does not wait for files of processes.
type Symbolizer struct {
	demangle Demangle
	kernel   *kernel.Symbols
	jit      *jit.Maps

	stext   stack.LinkAddr // see UseVmlinux
	vmlinux func(stack.LinkAddr) []Line

	mu        sync.Mutex // guards what follows
	elf       *elfsym.Cache
	golang    *gosym.Cache
	binaries  *lru.Cache[string, *binary]
	locations *lru.Cache[location, []Line]
	funcs     *lru.Cache[function, []Line] // lines shared by all addresses of a function
	named     *lru.Cache[named, []Line]    // the same for what is known by its name and line
	strings   *lru.Cache[string, string]
	serial    uint64
	stats     Stats
}

// binary is what is remembered of a file.
type binary struct {
	serial   uint64
	notGo    bool
	spent    time.Duration // on demangling
	badUntil time.Time     // when to try again to read its symbols
}

type location struct {
	binary uint64 // binary.serial
	addr   stack.LinkAddr
}

type function struct {
	binary uint64
	id     uint32 // elfsym.Func.ID
}

type named struct {
	kind uint8
	name string
	file string
	line uint32
}

const (
	kernelName uint8 = iota
	jitName
	indexName
)

const (
	// maxBinaries bounds the files remembered.
	maxBinaries = 4096
	// maxSpent is how long names of one file may take to demangle. Its 100,000
	// longest functions take less than a second; only names made for it take more.
	maxSpent = 2 * time.Second
	// retryAfter is how long to wait before a file is tried again that could not
	// be read.
	retryAfter = time.Minute
)

// New returns a Symbolizer that has read nothing yet.
func New(c Config) *Symbolizer {
	locations := cmp.Or(c.LocationBytes, 8<<20)
	return &Symbolizer{
		demangle:  c.Demangle,
		kernel:    kernel.New(c.Kernel),
		jit:       jit.New(c.JIT),
		elf:       elfsym.NewCache(c.SymbolBytes),
		golang:    gosym.New(c.GoTables),
		binaries:  lru.New[string, *binary](maxBinaries),
		locations: lru.New[location, []Line](locations / 2),
		funcs:     lru.New[function, []Line](locations / 4),
		named:     lru.New[named, []Line](locations / 8),
		strings:   lru.New[string, string](locations / 8),
	}
}

// User returns the functions at a link-time address of b, the innermost inlined one
// first; nil if there is no name for it. For return addresses pass the byte before.
// The slice is shared: do not change it.
//
// Go code is named by the program's own table, with inlined functions and lines,
// all else by the index if there is one, and by ELF symbols.
func (s *Symbolizer) User(b *Binary, addr stack.LinkAddr) []Line {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := b.ID
	if b.Index != nil { // it knows more than what was found without
		id += " (index)"
	}
	bin := s.binary(id)
	key := location{bin.serial, addr}
	lines, ok := s.locations.Get(key)
	if ok {
		s.stats.count(lines != nil)
		return lines
	}
	lines, err := s.user(b, bin, addr)
	if err != nil {
		s.stats.Errors++
	}
	if err == nil || lines != nil {
		s.locations.Put(key, lines, locationCost+len(lines)*lineBytes)
	}
	s.stats.count(lines != nil)
	return lines
}

// Sizes of what is kept, in bytes, with their share of the maps.
const (
	locationCost = 120
	lineBytes    = 64
)

func (s *Symbolizer) binary(id string) *binary {
	if b, ok := s.binaries.Get(id); ok {
		return b
	}
	s.serial++
	b := &binary{serial: s.serial}
	s.binaries.Put(id, b, 1)
	return b
}

func (s *Symbolizer) user(b *Binary, bin *binary, addr stack.LinkAddr) ([]Line, error) {
	var goErr error
	if !bin.notGo {
		lines, err := s.golang.Lines(b.ID, b.Object, addr)
		switch {
		case errors.Is(err, gopclntab.ErrNoTable):
			bin.notGo = true
		case len(lines) > 0:
			return s.goLines(lines), nil
		default:
			goErr = err
		}
	}
	if b.Index != nil {
		if lines, err := s.indexLines(b, bin, addr); len(lines) > 0 {
			return lines, err
		}
	}
	if b.Debug != nil {
		debug := &Binary{ID: b.ID + " (debug)", Object: b.Debug}
		if lines, err := s.elfLines(debug, s.binary(debug.ID), addr); len(lines) > 0 {
			return lines, err
		}
	}
	lines, err := s.elfLines(b, bin, addr)
	return lines, cmp.Or(err, goErr)
}

func (s *Symbolizer) goLines(in []gopclntab.Line) []Line {
	out := make([]Line, len(in))
	for i, l := range in {
		name := s.intern(l.Func)
		out[i] = Line{
			Name: s.intern(goName(name)), SystemName: name, File: s.intern(l.File),
			Line: int64(l.Line), StartLine: int64(l.StartLine),
		}
	}
	return out
}

// goName returns the name that Go's own tools show: type arguments, which for code
// shared by many types are shapes, become "..." (runtime.funcNameForPrint).
func goName(name string) string {
	i, j := strings.IndexByte(name, '['), strings.LastIndexByte(name, ']')
	if i < 0 || j <= i {
		return name
	}
	return name[:i] + "[...]" + name[j+1:]
}

// intern returns the clean form of str, one copy for all that are equal.
func (s *Symbolizer) intern(str string) string {
	if str == "" {
		return ""
	}
	if kept, ok := s.strings.Get(str); ok {
		return kept
	}
	kept := clip(clean(str), maxSystem)
	s.strings.Put(str, kept, 100+len(str))
	return kept
}

func (s *Symbolizer) elfLines(b *Binary, bin *binary, addr stack.LinkAddr) ([]Line, error) {
	if !bin.badUntil.IsZero() && time.Now().Before(bin.badUntil) {
		return nil, nil
	}
	t, err := s.elf.Table(b.ID, b.Object)
	if err != nil && t.Len() == 0 && !errors.Is(err, elfsym.ErrNoSymbols) {
		s.elf.Drop(b.ID)
		bin.badUntil = time.Now().Add(retryAfter)
		return nil, err
	}
	f, ok := t.Lookup(addr)
	if !ok {
		return nil, nil
	}
	key := function{bin.serial, f.ID}
	if lines, ok := s.funcs.Get(key); ok {
		return lines, nil
	}
	symbol, err := t.Name(b.Object, f)
	if err != nil {
		return nil, err
	}
	line := s.symbolLine(bin, symbol)
	lines := []Line{line}
	s.funcs.Put(key, lines, locationCost+lineBytes+len(line.Name)+len(line.SystemName))
	return lines, nil
}

func (s *Symbolizer) symbolLine(bin *binary, symbol string) Line {
	mode := s.demangle
	if bin.spent > maxSpent {
		mode = Mangled
	}
	start := time.Now()
	name := DemangleName(mode, symbol)
	bin.spent += time.Since(start)
	l := Line{Name: name, SystemName: clip(clean(symbol), maxSystem)}
	if l.SystemName == l.Name {
		l.SystemName = l.Name // one string in memory
	}
	return l
}

// Kernel returns the module that a kernel address is in, "[kernel.kallsyms]" if none
// other is known, "[bpf]", or as in "[nf_tables]"; and the function, nil if it has no
// name. For return addresses pass the byte before. The slice is shared: do not change
// it. See KernelErr for why there are no names at all.
func (s *Symbolizer) Kernel(addr stack.Addr) (module string, lines []Line) {
	sym, ok := s.kernel.Lookup(addr)
	if ok && sym.Module == kernel.Core {
		if lines := s.vmlinuxLines(sym.Name, addr); lines != nil {
			return sym.Module, lines
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.count(ok)
	if !ok {
		return sym.Module, nil
	}
	return sym.Module, s.byName(named{kind: kernelName, name: sym.Name}, func() Line {
		name := clean(sym.Name)
		return Line{Name: stripClone(name), SystemName: name}
	})
}

// UseVmlinux has the kernel's own functions named with what lines knows, innermost
// inlined call first, of an address in a vmlinux whose _stext is at stext, see
// kernel.OpenVmlinux. What it knows is used where it agrees with kallsyms on the
// function. It is called before Kernel, whose goroutines call lines.
func (s *Symbolizer) UseVmlinux(stext stack.LinkAddr, lines func(stack.LinkAddr) []Line) {
	s.stext, s.vmlinux = stext, lines
}

// vmlinuxLines returns what vmlinux has of an address in a function; nil if nothing.
func (s *Symbolizer) vmlinuxLines(function string, addr stack.Addr) []Line {
	if s.vmlinux == nil {
		return nil
	}
	link, ok := s.kernel.LinkAddr(addr, s.stext)
	if !ok {
		return nil
	}
	lines := s.vmlinux(link)
	if n := len(lines); n == 0 || stripClone(lines[n-1].SystemName) != stripClone(clean(function)) {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.count(true)
	return lines
}

// KernelErr returns why the kernel gives no names: kernel.ErrRestricted, another
// error, or nil. Names are read at the first call of Kernel.
func (s *Symbolizer) KernelErr() error { return s.kernel.Err() }

// ApplyKernel takes note of code that the kernel made or dropped.
func (s *Symbolizer) ApplyKernel(e KernelEvent) { s.kernel.Apply(e) }

func (s *Symbolizer) byName(key named, line func() Line) []Line {
	if lines, ok := s.named.Get(key); ok {
		return lines
	}
	l := line()
	lines := []Line{l}
	s.named.Put(key, lines, locationCost+lineBytes+len(key.name)+len(key.file)+len(l.Name)+len(l.SystemName))
	return lines
}

// Trim gives up what is kept only to read faster. Call it after a batch.
func (s *Symbolizer) Trim() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.golang.Trim()
}
