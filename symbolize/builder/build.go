// SPDX-License-Identifier: Apache-2.0

// Package builder makes symbol indexes from debugging information, in a process of
// its own that can do nothing else.
//
// The files come from programs nobody vouches for, and may be large. So the agent
// does not read them: Run starts the same binary again, which hands the process to
// Worker. That has no capabilities, opens no file and no socket, is niced, and is
// killed when it takes more memory or time than it may. All it can reach are the
// files it was given and those it asks Run for.
package builder

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/symbolize/dwarf"
	"github.com/lowflame/lowflame/symbolize/elfsym"
	"github.com/lowflame/lowflame/symbolize/index"
)

// Input is what an index is made of.
type Input struct {
	// Object is the file with the code.
	Object *objfile.Object
	// Symbols has its .symtab, Debug its .debug_info. Each may be nil, and may be
	// Object.
	Symbols, Debug *objfile.Object
	// Alt and Package belong to Debug, see dwarf.Config; nil if there is none.
	Alt, Package *objfile.Object
	// OpenDWO and CreateTemp are those of dwarf.Config.
	OpenDWO    func(name, compDir string) (*objfile.Object, func(), error)
	CreateTemp func() (*os.File, error)
}

// Result says what an index was made of.
type Result struct {
	Units int // compilation units
	// BadUnits are left out, for BadReason and the like.
	BadUnits  int
	BadReason string
	// NoDWO counts split units whose file was not found: they have lines only.
	NoDWO int
}

// Build writes the index of in to out, which is empty. That there is no DWARF, or no
// symbols, is no error.
func Build(out io.WriterAt, in Input) (r Result, err error) {
	w, err := index.Create(out, index.Config{CreateTemp: in.CreateTemp})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if in.Debug != nil {
		if err := r.addUnits(w, &in); err != nil {
			return r, fmt.Errorf("read debugging information: %w", err)
		}
	}
	for _, o := range []*objfile.Object{in.Symbols, in.Object} {
		if o == nil || o == in.Symbols && o == in.Object {
			continue
		}
		if err := addSymbols(w, o); err != nil {
			return r, err
		}
	}
	return r, w.Finish()
}

func (r *Result) addUnits(w *index.Writer, in *Input) (err error) {
	d, err := dwarf.Open(in.Debug, dwarf.Config{
		Alt: in.Alt, DWP: in.Package, OpenDWO: in.OpenDWO, CreateTemp: in.CreateTemp,
	})
	if errors.Is(err, dwarf.ErrNoDebugInfo) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	err = d.Units(func(u *dwarf.Unit) error {
		r.Units++
		return w.AddUnit(u)
	})
	r.BadUnits, r.NoDWO = d.Bad(), d.NoDWO()
	if bad := d.BadErr(); bad != nil {
		r.BadReason = bad.Error()
	}
	return err
}

// addSymbols adds the functions that the symbol tables of o name, as far as they can
// be read.
func addSymbols(w *index.Writer, o *objfile.Object) error {
	t, err := elfsym.Build(o)
	if t == nil {
		if errors.Is(err, elfsym.ErrNoSymbols) {
			return nil
		}
		return err
	}
	return w.AddSymbols(o, t)
}
