// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"unicode"

	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/objfile/gopclntab"
	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/symbolize/elfsym"
	"github.com/lowflame/lowflame/unwind"
)

// functions names the functions of a file, as far as it does itself.
type functions struct {
	o    *objfile.Object
	syms *elfsym.Table    // nil if there are none
	gos  *gopclntab.Table // nil if it is no Go program
}

// openFunctions opens what names functions in o. That nothing does is no error.
func openFunctions(o *objfile.Object) functions {
	f := functions{o: o}
	f.gos, _ = gopclntab.Open(o)
	f.syms, _ = elfsym.Build(o)
	return f
}

// stubs stands for all entries of the procedure linkage table, which have a name
// each, and rules together.
const stubs = "(procedure linkage table)"

// function is a range of code with a name, or one between two that have.
type function struct {
	name       string
	begin, end stack.LinkAddr
}

// at returns the function at pc. Where none is, its name is empty, and it ends
// where the next begins.
func (f *functions) at(pc stack.LinkAddr) function {
	if f.gos != nil {
		if fn, ok, err := f.gos.FuncAt(pc); err == nil && ok && fn.End > pc {
			return function{printable(f.gos.Name(fn)), fn.Entry, fn.End}
		}
	}
	gap := function{begin: pc, end: math.MaxUint64}
	if f.syms == nil {
		return gap
	}
	if fn, ok := f.syms.Lookup(pc); ok {
		name, err := f.syms.Name(f.o, fn)
		if err == nil {
			if strings.HasSuffix(name, "@plt") {
				name = stubs
			}
			return function{printable(name), fn.Start, fn.End}
		}
		gap.end = fn.End
		return gap
	}
	if next, ok := f.syms.Next(pc); ok {
		gap.end = next
	}
	return gap
}

// printable returns a name without what could take the terminal's breath away.
func printable(name string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, name)
}

// tablePrinter prints rows.
type tablePrinter struct {
	out   io.Writer
	table *unwind.Table
	funcs functions
	fn    function // whose rows are being printed
	any   bool     // there is one
}

// padding is the size of what is between two functions and never runs.
const padding = 16

// head prints what there is in all.
func (p *tablePrinter) head(path string, o *objfile.Object) {
	var rows, bytes, wide int
	var code uint64
	for i := range p.table.Pieces {
		piece := &p.table.Pieces[i]
		bytes += 4 * len(piece.Words)
		wide += (len(piece.Words) - int(piece.Wide)) / unwind.WideWords
	}
	for r := range p.table.Rows() {
		rows++
		if r.Rule.Kind() != unwind.KindNone {
			code += uint64(r.End - r.Begin)
		}
	}
	fmt.Fprintf(p.out, "%s: %v, build ID %v\n", printable(path), p.table.Arch, o.BuildID)
	fmt.Fprintf(p.out, "%d pieces, %d rows, %d bytes, %.2f bytes/row, %d wide rules, %d bytes of code\n",
		len(p.table.Pieces), rows, bytes, float64(bytes)/float64(max(rows, 1)), wide, code)
}

// all prints every row, by function. A row that reaches from one function into
// others is there in each.
func (p *tablePrinter) all() error {
	for r := range p.table.Rows() {
		for pc := r.Begin; pc < r.End; {
			fn := p.fn
			if pc < fn.begin || pc >= fn.end || !p.any {
				fn = p.funcs.at(pc)
			}
			end := min(r.End, fn.end)
			pad := fn.name == "" && pc > r.Begin && end-pc < padding
			none := fn.name == "" && r.Rule.Kind() == unwind.KindNone
			if none {
				p.any = false // what follows is another function's
			} else if !pad {
				if err := p.row(fn, pc, r); err != nil {
					return err
				}
			}
			pc = end
		}
	}
	return nil
}

// row prints a row that holds from pc on in fn.
func (p *tablePrinter) row(fn function, pc stack.LinkAddr, r unwind.Row) error {
	same := p.any && (fn == p.fn || fn.name == p.fn.name && (fn.name == stubs || fn.name == ""))
	p.fn = fn
	if same && fn.name == stubs && pc > r.Begin {
		return nil
	}
	if !same {
		title := "(no symbol)"
		if fn.name != "" {
			title = fmt.Sprintf("%s pc=%016x..%016x", fn.name, uint64(fn.begin), uint64(fn.end))
		}
		if fn.name == stubs {
			title = stubs
		}
		fp := "rbp"
		if p.table.Arch == unwind.ARM64 {
			fp = "x29"
		}
		fmt.Fprintf(p.out, "\n%s\n   LOC           CFA      %-5s ra\n", title, fp)
	}
	p.any = true
	t := r.Rule.Text(p.table.Arch, r.Piece)
	_, err := fmt.Fprintf(p.out, "%016x %-8s %-5s %s\n", uint64(pc), t.CFA, t.FP, t.RA)
	return err
}

// one prints the row in force at pc.
func (p *tablePrinter) one(path string, pc stack.LinkAddr) error {
	for r := range p.table.Rows() {
		if pc < r.Begin || pc >= r.End || r.Rule.Kind() == unwind.KindNone {
			continue
		}
		fn := p.funcs.at(pc)
		if fn.name != "" && fn.name != stubs {
			fn.name = fmt.Sprintf("%s+%#x", fn.name, uint64(pc-fn.begin))
		}
		return p.row(fn, r.Begin, r)
	}
	return fmt.Errorf("%s: nothing says how to unwind at %#x: addresses are those of the file, as nm prints them, not a process's", path, uint64(pc))
}
