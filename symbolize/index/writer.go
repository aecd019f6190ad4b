// SPDX-License-Identifier: Apache-2.0

package index

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/lowflame/lowflame/symbolize/dwarf"
)

// Config is what Create takes beside the file.
type Config struct {
	// TempDir is where the temporary file goes, which has no name; "" is
	// os.TempDir. It takes about 5 times the index.
	TempDir string
	// CreateTemp, if not nil, makes that file instead. The Writer closes it.
	CreateTemp func() (*os.File, error)
}

// Writer writes an index. It takes units in any order, and symbols. Memory is
// bounded, whatever they are; but for the unit that is being added.
// Not safe for concurrent use.
type Writer struct {
	out     output
	names   stringWriter
	files   stringWriter
	code    codeWriter
	runs    runs
	symbols []*sectionWriter
	unit    unitReader
	units   uint64
	err     error // the first, which sticks
	ended   bool
}

// partBytes is the size a piece is divided at, so that a lookup reads little: most
// functions take less. It grows by the calls of the last segment at most.
const partBytes = 1 << 10

// Create returns a Writer of an index into f, which is empty. f stays the caller's;
// it holds no index before Finish has returned nil.
func Create(f io.WriterAt, c Config) (*Writer, error) {
	w := &Writer{out: output{w: f, off: headerSize}, runs: runs{create: c.temp, limit: runBytes}}
	w.names.section = &sectionWriter{out: &w.out}
	w.files.section = &sectionWriter{out: &w.out}
	w.code.section = &sectionWriter{out: &w.out}
	return w, nil
}

// AddUnit adds what u says; it keeps nothing of u. Where units overlap, the first
// that has a function there counts, else the first that has lines.
//
// The error wraps ErrTooLarge if it is more than an index takes, or says that the
// disk is full; the Writer is no good then.
func (w *Writer) AddUnit(u *dwarf.Unit) error {
	return w.do(func() error {
		w.units++
		return w.unit.run(w, u)
	})
}

// do calls f unless something has failed before.
func (w *Writer) do(f func() error) error {
	if w.ended {
		return errors.New("write index: it is finished")
	}
	if w.err == nil {
		w.err = f()
	}
	return w.err
}

// Finish writes the rest of the index; its header last, so that a file is an index
// or is none. It does not sync or close the file.
func (w *Writer) Finish() error {
	err := w.do(w.finish)
	w.ended = true
	return errors.Join(err, w.runs.close())
}

// Close ends a Writer that is not to be finished. After Finish it does nothing.
func (w *Writer) Close() error {
	if w.ended {
		return nil
	}
	w.ended = true
	return w.runs.close()
}

func (w *Writer) finish() error {
	w.unit = unitReader{}
	w.names.seen, w.files.seen = seen{}, seen{}
	merger, err := w.runs.merge()
	if err != nil {
		return err
	}
	var segs segments
	o := overlay{merger: merger, show: func(p *piece, begin, end uint64) error {
		if err := p.unpack(&segs, begin, end); err != nil {
			return err
		}
		return w.code.add(&segs)
	}}
	for _, f := range []func() error{o.run, w.code.end, w.names.end, w.files.end} {
		if err := f(); err != nil {
			return err
		}
	}
	var sections [sectionCount]section
	writers := append([]*sectionWriter{
		codeSection: w.code.section, nameSection: w.names.section, fileSection: w.files.section,
	}, w.symbols...)
	for i, s := range writers {
		if sections[i], err = s.end(); err != nil {
			return err
		}
	}
	if _, err := w.out.w.WriteAt(encodeHeader(&sections, uint64(w.out.off)), 0); err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	return nil
}
