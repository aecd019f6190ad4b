// SPDX-License-Identifier: Apache-2.0

package symbolize

import (
	"regexp"
	"strconv"
	"strings"

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
