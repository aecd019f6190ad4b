// SPDX-License-Identifier: Apache-2.0

package symbolize

import (
	"errors"
	"io/fs"
	"regexp"
	"strconv"
	"strings"

	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/symbolize/jit"
)

var (
	// jsName is what V8 writes with --perf-basic-prof: how the function runs
	// (~ interpreted, ^ and + baseline, * optimized), its name, and where it is.
	jsName = regexp.MustCompile(`^(?:JS|LazyCompile|Function|Script|Eval):[~^+*']{0,2}(.*?) ?((?:file://|node:|/|[A-Za-z]:\\|\S*\.[cm]?[jt]s:).*|\S+):([0-9]{1,9}):[0-9]{1,9}$`)
	// pyName is what CPython writes with -X perf.
	pyName = regexp.MustCompile(`^py::(.+?):(/.+|<.+>)$`)
	// javaName is a method as the JVM writes it, with all types.
	javaName = regexp.MustCompile(`^[\w.$\[\]]+ ([\w.$]+(?:<init>|<clinit>)?)\([\w.$\[\], ]*\)$`)
)

// jitLine makes a line out of what a perf map or a dump has. The compilation tier,
// which would keep samples of one function apart, stays in SystemName only.
func jitLine(mode Demangle, sym jit.Symbol) Line {
	symbol := clean(sym.Name)
	l := Line{Name: clip(symbol, MaxName), SystemName: symbol}
	switch {
	case mode == Mangled:
	case strings.HasPrefix(symbol, "py::"):
		if m := pyName.FindStringSubmatch(symbol); m != nil {
			l.Name, l.File = clip(m[1], MaxName), m[2]
		}
	case strings.Contains(symbol, ":"):
		if m := jsName.FindStringSubmatch(symbol); m != nil {
			l.Name, l.File = clip(m[1], MaxName), strings.TrimPrefix(m[2], "file://")
			l.StartLine, _ = strconv.ParseInt(m[3], 10, 64)
			if l.Name == "" {
				l.Name = "(anonymous)"
			}
		}
	case mode == Simplified:
		if m := javaName.FindStringSubmatch(symbol); m != nil {
			l.Name = clip(m[1], MaxName)
		}
	}
	// Of code inlined from another file the dump has the line, but not the function.
	file := strings.TrimPrefix(clip(clean(sym.File), maxSystem), "file://")
	if file != "" && (l.File == "" || l.File == file) {
		l.File, l.Line = file, int64(sym.Line)
	}
	return l
}

// JIT returns the function at an address of code that a process made at run time, as
// its perf map or its dumps have it; nil if it has no name. The slice is shared: do not
// change it. What was known of a process is known for a while after it has gone.
func (s *Symbolizer) JIT(p JITProcess, addr stack.Addr) []Line {
	sym, ok, err := s.jit.Lookup(p, addr)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.count(ok)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.stats.Errors++
	}
	if !ok {
		return nil
	}
	key := named{kind: jitName, name: sym.Name, file: sym.File, line: sym.Line}
	return s.byName(key, func() Line { return jitLine(s.demangle, sym) })
}

// AddJITDump has a jitdump of a process read too, when path, of one of its executable
// mappings, is that of one.
func (s *Symbolizer) AddJITDump(p JITProcess, path string) {
	if jit.IsDump(path) {
		s.jit.AddDump(p, path)
	}
}

// RefreshJIT reads what is new in the perf map and the dumps of a process now, rather
// than when it is asked for: call it when the process is about to go.
func (s *Symbolizer) RefreshJIT(p JITProcess) error { return s.jit.Refresh(p) }
