// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/objfile/gopclntab"
	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/symbolize"
	"github.com/lowflame/lowflame/symbolize/builder"
	"github.com/lowflame/lowflame/symbolize/debugfile"
	"github.com/lowflame/lowflame/symbolize/index"
)

// symbolCmd names addresses by what a profile's frames are named by: an index made in
// a process of its own, or a Go program's table.
type symbolCmd struct {
	File       string    `arg:"" help:"ELF file for x86-64 or arm64: program, shared library or debug file."`
	Addr       []hexAddr `arg:"" optional:"" help:"Link-time addresses in hexadecimal, as nm prints them. Without any, they are read from standard input, one a line."`
	NoDemangle bool      `help:"Print names as they are in the file."`
	NoInlines  bool      `help:"Print the function that the code lies in alone, without calls inlined into it."`
	DebugDir   []string  `placeholder:"DIR" type:"existingdir" help:"Look for debug files in DIR first, laid out as /usr/lib/debug is. May be given more than once."`
	Verbose    bool      `short:"v" help:"Say on standard error where debugging information came from, and why not from elsewhere."`
}

// Run prints the names on standard output.
func (c symbolCmd) Run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	o, file, err := objfile.OpenFile(c.File)
	if err != nil {
		return err
	}
	defer file.Close()
	out := bufio.NewWriter(os.Stdout)
	lookup, done, err := c.open(ctx, o, file)
	if err != nil {
		return fmt.Errorf("%s: %w", c.File, err)
	}
	defer done()
	p := symbolPrinter{out: out, lookup: lookup, mangled: c.NoDemangle, noInlines: c.NoInlines}
	if len(c.Addr) == 0 {
		err = p.all(os.Stdin, isTerminal(os.Stdout))
	}
	for _, a := range c.Addr {
		err = errors.Join(err, p.one(stack.LinkAddr(a)))
	}
	return errors.Join(err, out.Flush())
}

// lookupFunc returns what is at an address, the innermost call first.
type lookupFunc func(addr stack.LinkAddr) ([]index.Line, error)

// open makes ready to name addresses of a file. The caller calls done.
func (c *symbolCmd) open(ctx context.Context, o *objfile.Object, file *os.File) (lookup lookupFunc, done func(), err error) {
	path, err := filepath.Abs(c.File)
	if err != nil {
		return nil, nil, err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return nil, nil, err
	}
	found := debugfile.New(debugfile.Config{Extra: c.DebugDir}).Find(o, path, []string{"/"})
	defer func() { _ = found.Close() }()
	if c.Verbose {
		explain(os.Stderr, found)
	}
	out, err := os.CreateTemp("", "lowflame-index-*")
	if err != nil {
		return nil, nil, err
	}
	done = func() { out.Close() }
	if err := os.Remove(out.Name()); err != nil {
		done()
		return nil, nil, err
	}
	x, err := build(ctx, builder.Job{Object: file, Found: found, Out: out}, c.Verbose)
	if err != nil {
		done()
		return nil, nil, err
	}
	fromIndex := func(addr stack.LinkAddr) ([]index.Line, error) { return x.Lookup(addr, nil) }
	table, err := gopclntab.Open(o)
	if err != nil { // no Go program
		return fromIndex, done, nil
	}
	return func(addr stack.LinkAddr) ([]index.Line, error) {
		if lines, err := goLines(table, addr); err == nil && len(lines) > 0 {
			return lines, nil
		}
		return fromIndex(addr)
	}, done, nil
}

// build builds the index of a job and opens it.
func build(ctx context.Context, j builder.Job, verbose bool) (*index.Index, error) {
	r, err := builder.Run(ctx, j)
	if err != nil {
		return nil, err
	}
	if verbose {
		fmt.Fprintf(os.Stderr, "lowflame: %d units, %d not readable, %d without their split unit %s\n", r.Units, r.BadUnits, r.NoDWO, r.BadReason)
	}
	st, err := j.Out.Stat()
	if err != nil {
		return nil, err
	}
	return index.Open(j.Out, st.Size(), index.NewBlocks(4<<20))
}

func goLines(t *gopclntab.Table, addr stack.LinkAddr) ([]index.Line, error) {
	in, err := t.Lines(addr)
	out := make([]index.Line, len(in))
	for i, l := range in {
		out[i] = index.Line{Name: l.Func, File: l.File, Line: uint32(max(0, l.Line)), StartLine: uint32(max(0, l.StartLine))}
	}
	return out, err
}

// explain says what was found and why the rest was not.
func explain(w io.Writer, f *debugfile.Found) {
	for _, part := range []struct {
		what string
		file *debugfile.File
	}{{"symbols", f.Symbols}, {"debugging information", f.Debug}, {"supplementary file", f.Alt}, {"split units", f.Package}} {
		if part.file != nil {
			fmt.Fprintf(w, "lowflame: %s: %s (%v)\n", part.what, printable(part.file.Path), part.file.Source)
		}
	}
	for _, m := range f.Missing {
		fmt.Fprintf(w, "lowflame: not used: %s\n", printable(m.String()))
	}
}

// symbolPrinter prints names as llvm-symbolizer does: a function, a place, for each
// inlined call and what it was inlined into, then an empty line. Columns are not
// known, so they are 0.
type symbolPrinter struct {
	out       *bufio.Writer
	lookup    lookupFunc
	mangled   bool
	noInlines bool
}

// all prints what in asks for. A line that is no address is answered with itself.
func (p *symbolPrinter) all(in io.Reader, flush bool) error {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		text := strings.TrimSpace(lines.Text())
		var addr hexAddr
		if err := addr.UnmarshalText([]byte(text)); err != nil {
			fmt.Fprintln(p.out, printable(text))
			continue
		}
		if err := p.one(stack.LinkAddr(addr)); err != nil {
			return err
		}
		if flush {
			if err := p.out.Flush(); err != nil {
				return err
			}
		}
	}
	return lines.Err()
}

func (p *symbolPrinter) one(addr stack.LinkAddr) error {
	lines, err := p.lookup(addr)
	if err != nil {
		return fmt.Errorf("look up %#x: %w", uint64(addr), err)
	}
	if len(lines) == 0 {
		lines = []index.Line{{}}
	}
	if p.noInlines {
		lines = outermost(lines)
	}
	for i := range lines {
		l := &lines[i]
		name, file := "??", "??"
		switch {
		case l.Name != "" && p.mangled:
			name = l.Name
		case l.Name != "":
			name = symbolize.DemangleName(symbolize.Full, l.Name)
		}
		if l.File != "" {
			file = l.File
		}
		fmt.Fprintf(p.out, "%s\n%s:%d:0\n", printable(name), printable(file), l.Line)
	}
	_, err = fmt.Fprintln(p.out)
	return err
}

// outermost returns the function that the code lies in, at the line of the code.
func outermost(lines []index.Line) []index.Line {
	one := lines[len(lines)-1]
	one.File, one.Line = lines[0].File, lines[0].Line
	return []index.Line{one}
}
