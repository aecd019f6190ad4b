// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/unwind"
)

// debugCmd groups the commands that show what lowflame works with.
type debugCmd struct {
	Symbol      symbolCmd      `cmd:"" help:"Name the functions at addresses of a binary, with inlined calls and lines, the way llvm-symbolizer does."`
	UnwindTable unwindTableCmd `cmd:"" help:"Print the unwind table of a binary the way readelf --debug-dump=frames-interp does."`
}

// unwindTableCmd prints the table that the kernel would walk a binary's stacks with.
type unwindTableCmd struct {
	File string   `arg:"" help:"ELF file for x86-64 or arm64: program, shared library or vDSO."`
	PC   *hexAddr `name:"pc" env:"-" placeholder:"ADDR" help:"Print only the row in force at this link-time address, in hexadecimal."`
}

// hexAddr is an address on the command line: hexadecimal, with 0x or without.
type hexAddr uint64

// UnmarshalText parses an address.
func (a *hexAddr) UnmarshalText(text []byte) error {
	s := strings.TrimPrefix(strings.ToLower(string(text)), "0x")
	n, err := strconv.ParseUint(s, 16, 64)
	if err != nil {
		return fmt.Errorf("%q is not a hexadecimal address such as 0x401136", text)
	}
	*a = hexAddr(n)
	return nil
}

// Run prints the table of the file on standard output.
func (c unwindTableCmd) Run() error {
	out := bufio.NewWriter(os.Stdout)
	err := c.print(out, os.Stderr)
	return errors.Join(err, out.Flush())
}

// print writes what was asked for to out, and to warn what is wrong with the file.
func (c unwindTableCmd) print(out, warn io.Writer) error {
	o, file, err := objfile.OpenFile(c.File)
	if err != nil {
		return err
	}
	defer file.Close()
	table, err := unwind.Build(o)
	switch {
	case table == nil && errors.Is(err, unwind.ErrNoCFI):
		return fmt.Errorf("%s: %w: it has no .eh_frame, .debug_frame or Go function table; build it without -fno-asynchronous-unwind-tables", c.File, err)
	case table == nil:
		return fmt.Errorf("%s: %w", c.File, err)
	case err != nil:
		fmt.Fprintf(warn, "lowflame: %s: %v: the table holds what could be used\n", c.File, err)
	}
	p := tablePrinter{out: out, table: table, funcs: openFunctions(o)}
	if c.PC != nil {
		return p.one(c.File, stack.LinkAddr(*c.PC))
	}
	p.head(c.File, o)
	return p.all()
}
