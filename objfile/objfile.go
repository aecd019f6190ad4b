// SPDX-License-Identifier: Apache-2.0

// Package objfile reads ELF files that nobody vouches for. Every size is
// checked against the file, every allocation is bounded, and nothing is mapped:
// a file that is truncated or replaced while it is read gives an error, not a
// signal.
//
// What the kernel and the dynamic linker need is read through program headers;
// section headers may be missing or lie.
package objfile

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"

	"github.com/lowflame/lowflame/stack"
)

var (
	// ErrNotELF is returned for files that are not ELF at all.
	ErrNotELF = errors.New("not an ELF file")
	// ErrUnsupported is returned for ELF files that are not 64-bit little-endian.
	ErrUnsupported = errors.New("not a 64-bit little-endian ELF file")
	// ErrNotFound is returned when the file does not have what was asked for.
	ErrNotFound = errors.New("not in the file")
	// ErrTooLarge is returned when an answer would be larger than the caller's
	// limit, or than its compressed form can justify.
	ErrTooLarge = errors.New("larger than the limit")
)

// FormatError says which part of a file is malformed.
type FormatError struct {
	Off  uint64 // file offset of the part
	What string // what is wrong with it
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("malformed ELF file at offset %#x: %s", e.Off, e.What)
}

// Object is an ELF file. Its exported fields are read-only; all methods are safe
// for concurrent use as far as the io.ReaderAt is.
type Object struct {
	Machine elf.Machine
	Type    elf.Type
	Entry   stack.LinkAddr
	// Segments are the PT_LOAD program headers in the order of the file.
	Segments []Segment
	// Sections are the section headers, the null section left out. Nil if there
	// are none or they make no sense, and then SectionsErr says why.
	Sections    []Section
	SectionsErr error
	// BuildID is never zero.
	BuildID BuildID
	// GoBuildID is the build ID the Go linker wrote, "" if there is none.
	GoBuildID string

	r     io.ReaderAt
	size  int64
	progs []prog // program headers other than PT_LOAD that are of use
}

// Open reads the headers and the build ID of the ELF file that is the first size
// bytes of r. The object reads more from r as it is asked; the caller keeps r
// open as long as it uses the object, and closes it.
//
// The error wraps ErrNotELF, ErrUnsupported, a *FormatError, or an error of r.
// Missing or malformed section headers are no error; see Object.SectionsErr.
//
// See System V gABI chapters 4 and 5.
func Open(r io.ReaderAt, size int64) (o *Object, err error) {
	defer func() {
		if p := recover(); p != nil {
			o, err = nil, &FormatError{What: fmt.Sprintf("cannot be read: %v", p)}
		}
	}()
	o = &Object{r: r, size: size}
	h, err := o.readHeader()
	if err != nil {
		return nil, err
	}
	// Section 0 holds the counts that do not fit the header.
	null, nullErr := o.readSectionZero(h)
	if err := o.readSegments(h, null); err != nil {
		return nil, err
	}
	if o.SectionsErr = nullErr; nullErr == nil {
		o.Sections, o.SectionsErr = o.readSections(h, null)
	}
	if err := o.readBuildID(); err != nil {
		return nil, fmt.Errorf("read build ID: %w", err)
	}
	return o, nil
}

// Size returns the size of the file in bytes.
func (o *Object) Size() int64 { return o.size }

// File returns a reader of the whole file.
func (o *Object) File() *io.SectionReader { return io.NewSectionReader(o.r, 0, o.size) }

// read fills p with the bytes at off of the file.
func (o *Object) read(p []byte, off uint64) error {
	if off > uint64(o.size) || uint64(len(p)) > uint64(o.size)-off {
		return &FormatError{off, "lies outside the file"}
	}
	n, err := o.r.ReadAt(p, int64(off))
	switch {
	case n == len(p):
		return nil
	case err == io.EOF:
		return &FormatError{off, "file is shorter than it was"}
	}
	return fmt.Errorf("read %d bytes at %#x: %w", len(p), off, err)
}

// has reports whether the file has size bytes at off.
func (o *Object) has(off, size uint64) bool {
	return off <= uint64(o.size) && size <= uint64(o.size)-off
}
