// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"debug/elf"
	"errors"
	"fmt"

	"github.com/lowflame/lowflame/objfile"
)

// maxDebugFrame bounds .debug_frame. No compiler writes it by default where it
// writes .eh_frame, so large ones do not occur.
const maxDebugFrame = 64 << 20

// Build returns the unwind table of o, from .eh_frame, from .debug_frame for
// code that .eh_frame lacks, from .gopclntab for Go code, and for functions that
// only symbols tell of from their instructions.
//
// Only code in executable segments is covered. Build does not retain o. It
// returns ErrNoCFI if there is nothing to build from; with any other error the
// table is returned too and holds what could be used: a *CFIError names the
// first malformed entry, ErrTooBig says that the rest did not fit.
//
// See DWARF 5 §6.4 and LSB 5.0 §10.6.
func Build(o *objfile.Object) (*Table, error) { return tableUpTo(o, 1<<63-1) }

// deferFrames is the size of call frame information from which BuildFirst leaves the
// rest of the code for later, bytes. Looking at it takes several times as long as
// reading the call frame information does; where that is small, neither takes long.
const deferFrames = 1 << 20

// BuildFirst is Build, but does not look at code without call frame information
// where that may take long and few walks come by: in files that have a lot. Such
// a table has Partial set; Build completes it. Until then walks end with
// StopNoRule there.
func BuildFirst(o *objfile.Object) (*Table, error) { return tableUpTo(o, deferFrames) }

// tableUpTo is Build, and BuildFirst for files with deferred bytes of .eh_frame and more.
func tableUpTo(o *objfile.Object, deferred int) (*Table, error) {
	arch, err := archOf(o)
	if err != nil {
		return nil, err
	}
	src := sources{arch: arch, segs: executable(o)}
	goErr := src.openGo(o)
	ehErr := src.openEH(o)
	debugErr := src.openDebug(o)
	f, err := src.first(entryCode(o, &src))
	gaps := f.gaps(src.segs)
	if src.eh != nil && len(src.eh.data) >= deferred && (len(gaps) > 0 || len(f.pads) > 0) {
		f.table.Partial = true
		return f.table, firstError(err, goErr, ehErr, debugErr)
	}
	code, small := findCode(o, &src, &f, gaps)
	if src.eh == nil && src.debug == nil && src.goRows == nil && len(code) == 0 {
		if err := firstError(goErr, ehErr, debugErr); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoCFI, err)
		}
		return nil, ErrNoCFI
	}
	if found := overlay(overlay(overlay(findRows(o, src.arch, gaps), stubRows(o, src.arch, gaps)), code), small); len(found) > 0 && !errors.Is(err, ErrTooBig) {
		t, tooBig := src.with(&f, found)
		return t, firstError(tooBig, err, goErr, ehErr, debugErr)
	}
	return f.table, firstError(err, goErr, ehErr, debugErr)
}

// archOf returns the machine o is for, ErrNoCFI if it is none of ours.
func archOf(o *objfile.Object) (Arch, error) {
	switch o.Machine {
	case elf.EM_X86_64:
		return AMD64, nil
	case elf.EM_AARCH64:
		return ARM64, nil
	}
	return 0, fmt.Errorf("machine %v: %w", o.Machine, ErrNoCFI)
}

// openEH reads .eh_frame, if there is one.
func (src *sources) openEH(o *objfile.Object) error {
	data, addr, hdr, hdrAddr, err := o.EHFrame()
	if errors.Is(err, objfile.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read .eh_frame: %w", err)
	}
	if len(data) > 0 {
		src.eh = &section{data: data, addr: uint64(addr), hdr: hdr, hdrAddr: uint64(hdrAddr)}
	}
	return nil
}

// openDebug reads .debug_frame, if there is one.
func (src *sources) openDebug(o *objfile.Object) error {
	s, ok := o.Section(".debug_frame")
	if !ok {
		s, ok = o.Section(".zdebug_frame")
	}
	if !ok || s.Type == elf.SHT_NOBITS {
		return nil
	}
	data, err := o.Data(s, maxDebugFrame)
	if err != nil {
		return fmt.Errorf("read .debug_frame: %w", err)
	}
	if len(data) > 0 {
		src.debug = &section{data: data}
	}
	return nil
}

// executable returns the parts of executable segments that o has the bytes of.
func executable(o *objfile.Object) []gap {
	var segs []gap
	for _, s := range o.Segments {
		if s.Exec && uint64(s.Off) < uint64(o.Size()) {
			n := min(s.FileSize, uint64(o.Size())-uint64(s.Off))
			segs = append(segs, gap{uint64(s.Addr), uint64(s.Addr) + n})
		}
	}
	return segs
}
