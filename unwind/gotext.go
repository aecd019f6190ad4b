// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/objfile/gopclntab"
	"github.com/lowflame/lowflame/stack"
)

// goText makes the rows of Go code. The Go linker writes no .eh_frame, and its
// .debug_frame knows nothing of frame pointers; but the function table, which
// stripping leaves, has the depth of the stack at every instruction, and the
// runtime's own frame pointers lead across its changes of stack.
type goText struct {
	o    *objfile.Object
	t    *gopclntab.Table
	arch goArch
	wide *wideSet
	rows []span
	// text holds the code at textAt, read ahead: functions come in order.
	text   []byte
	textAt uint64
	err    error // the first
}

// goArch is what differs between machines.
type goArch interface {
	// rows adds the rows of an ordinary function.
	rows(g *goText, f *goFunc)
	// switching adds those of a function that changes stacks.
	switching(g *goText, f *goFunc)
	// sigreturn is the code of a signal return trampoline.
	sigreturn() []byte
}

// goFunc is one function.
type goFunc struct {
	begin, end uint64
	code       []byte // may be cut off
	// deltas are the depths of the stack in order of address, without
	// neighbours that are equal.
	deltas []goDelta
	name   string // only of functions with a flag
}

// goDelta says that the stack pointer is n bytes below where it was at the
// function's entry, from pc on.
type goDelta struct {
	pc uint64
	n  int32
}

// maxGoCode is how much of a function is looked at for its prologue or its
// change of stacks.
const maxGoCode = 4096

// openGo makes the rows of the Go code of o, if there is any.
func (src *sources) openGo(o *objfile.Object) error {
	t, err := gopclntab.Open(o)
	if errors.Is(err, gopclntab.ErrNoTable) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read Go function table: %w", err)
	}
	g := goText{o: o, t: t, arch: goX86{}, wide: &src.wide}
	if src.arch == ARM64 {
		g.arch = goARM64{}
	}
	g.run()
	src.goRows = g.rows
	return g.err
}

// run makes the rows of all functions.
func (g *goText) run() {
	end := uint64(0)
	var deltas []goDelta
	for i := range g.t.NumFuncs() {
		f, err := g.t.Func(i)
		if err != nil {
			g.fail(err)
			continue
		}
		fn := goFunc{begin: uint64(f.Entry), end: uint64(f.End), deltas: deltas[:0]}
		if fn.begin < end || fn.end <= fn.begin || len(g.rows) > maxRows {
			continue
		}
		if end != 0 && fn.begin != end {
			g.add(end, 0)
		}
		g.function(&fn, f)
		deltas = fn.deltas
		end = fn.end
	}
	if end != 0 {
		g.add(end, 0)
	}
}

func (g *goText) fail(err error) {
	if g.err == nil {
		g.err = fmt.Errorf("read Go function: %w", err)
	}
}

// add adds a row; of rows with one PC the last counts.
func (g *goText) add(pc uint64, r Rule) {
	n := len(g.rows)
	switch {
	case n > 0 && g.rows[n-1].pc >= pc:
		g.rows[n-1].rule = r
	case n > 0 && g.rows[n-1].rule == r:
	default:
		g.rows = append(g.rows, span{pc, r})
	}
}

// lost adds a row for code that cannot be unwound.
func (g *goText) lost(pc uint64) { g.add(pc, g.wide.rule(lost())) }

// function makes the rows of one function.
func (g *goText) function(fn *goFunc, f gopclntab.Func) {
	g.read(fn, f)
	asm := f.Flag & gopclntab.FuncFlagAsm
	if f.Flag != 0 {
		fn.name = g.t.Name(f)
	}
	switch {
	case bytes.HasPrefix(fn.code, g.arch.sigreturn()) && len(g.arch.sigreturn()) > 0:
		// A handler returns to the first byte, so its frame is looked up by
		// the byte before, see Frame.Lookup.
		g.add(fn.begin-1, MakeRule(KindSignal, 0, 0))
		g.add(fn.begin, MakeRule(KindSignal, 0, 0))
	case len(fn.deltas) == 0:
		// C code that the Go linker linked. It drops what C compilers say
		// of it.
		g.add(fn.begin, 0)
	case isEntry(fn.name):
		g.add(fn.begin, MakeRule(KindEnd, 0, 0))
	case f.Flag&gopclntab.FuncFlagTopFrame != 0 && !isSigtramp(fn.name):
		g.add(fn.begin, MakeRule(KindEnd, 0, 0))
	case f.Flag&gopclntab.FuncFlagSPWrite != 0 && asm != 0:
		g.arch.switching(g, fn)
	default:
		g.arch.rows(g, fn)
	}
}

// isEntry reports whether a function is jumped to by the kernel or the dynamic
// linker at the start of the program: _rt0_amd64, _rt0_amd64_linux. Those with
// _lib in their names are called by C.
func isEntry(name string) bool {
	return strings.HasPrefix(name, "_rt0_") && !strings.Contains(name, "_lib")
}

// isSigtramp reports whether a function is one the kernel calls for a signal.
// The runtime calls that the top of a stack; we go on to what was interrupted.
func isSigtramp(name string) bool {
	return name == "runtime.sigtramp" || name == "runtime.cgoSigtramp" || name == "runtime.sigprofNonGoWrapper"
}

// neverReturns reports whether the functions called after a change of stacks
// were called by nobody: what is below them is another goroutine's business, or in
// clone another thread's.
func neverReturns(name string) bool {
	switch name {
	case "gogo", "runtime.gogo", "runtime.mcall", "runtime.morestack", "runtime.switchToCrashStack0", "runtime.clone":
		return true
	}
	return false
}

// read reads code and deltas of a function.
func (g *goText) read(fn *goFunc, f gopclntab.Func) {
	size := min(fn.end-fn.begin, maxGoCode)
	if f.Flag == 0 {
		// Of Go code only the prologue counts, which ends by the first
		// change of the stack pointer.
		size = min(size, 256)
	}
	fn.code = g.code(fn.begin, size)
	pc := fn.begin
	err := g.t.SPDeltas(f, func(end stack.LinkAddr, delta int32) bool {
		if n := len(fn.deltas); n == 0 || fn.deltas[n-1].n != delta {
			fn.deltas = append(fn.deltas, goDelta{pc, delta})
		}
		pc = uint64(end)
		return pc < fn.end
	})
	if err != nil {
		g.fail(err)
	}
}

// textAhead is how much code is read at a time.
const textAhead = 64 << 10

// code returns up to size bytes of code at pc, less where the file ends. They are
// valid until the next call.
func (g *goText) code(pc, size uint64) []byte {
	if pc < g.textAt || pc+size > g.textAt+uint64(len(g.text)) {
		if g.text == nil {
			g.text = make([]byte, textAhead)
		}
		n, _ := g.o.ReadAt(g.text[:textAhead], stack.LinkAddr(pc))
		g.text, g.textAt = g.text[:n], pc
	}
	off := pc - g.textAt
	return g.text[off:min(off+size, uint64(len(g.text)))]
}

// at returns the code from pc on.
func (fn *goFunc) at(pc uint64) []byte {
	if off := pc - fn.begin; off < uint64(len(fn.code)) {
		return fn.code[off:]
	}
	return nil
}
