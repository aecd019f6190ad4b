// SPDX-License-Identifier: Apache-2.0

package dwarf

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/lowflame/lowflame/internal/hostile"
	"github.com/lowflame/lowflame/objfile"
)

// ErrNoDebugInfo is returned for files without .debug_info.
var ErrNoDebugInfo = errors.New("no debug information")

// Config says where the parts of debug information are that are not in the file.
type Config struct {
	// Alt is the supplementary file that dwz made (.gnu_debugaltlink), nil if there
	// is none: then names in it are missing.
	Alt *objfile.Object
	// DWP is the package of split units, nil if there is none.
	DWP *objfile.Object
	// OpenDWO opens the file of a split unit. name is as in the unit, relative to
	// compDir unless absolute. Data calls the function that is returned when it is
	// done with the unit. Nil if no such files are to be opened.
	OpenDWO func(name, compDir string) (*objfile.Object, func(), error)
	// TempDir is where sections are decompressed to, in files that have no name.
	// Empty is os.TempDir.
	TempDir string
	// CreateTemp, if not nil, makes those files instead. Data closes them.
	CreateTemp func() (*os.File, error)
}

// temp returns an empty file without a name.
func (c *Config) temp() (*os.File, error) {
	if c.CreateTemp != nil {
		return c.CreateTemp()
	}
	f, err := os.CreateTemp(c.TempDir, "lowflame-section-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Data is the debug information of a file. Not safe for concurrent use.
type Data struct {
	f, alt, dwp *file
	index       packageIndex
	c           Config
	code        code
	altPath     string
	altID       string

	unit   unit
	other  unit // the split one
	lines  lineTable
	walker walker
	out    Unit
	bad    int
	badErr error
	noDWO  int
}

// Open returns the debug information of o. It decompresses sections that are
// compressed, and reads nothing else that is large. o and the objects in c must stay
// open for as long as the result is used; the caller closes all of them.
//
// The error wraps ErrNoDebugInfo if o has no .debug_info, or those of objfile.
func Open(o *objfile.Object, c Config) (*Data, error) {
	d := &Data{c: c, code: codeOf(o)}
	if err := d.open(o); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (d *Data) open(o *objfile.Object) (err error) {
	c := &d.c
	_, ok := o.Section(".debug_info")
	if _, old := o.Section(".zdebug_info"); !ok && !old {
		return ErrNoDebugInfo
	}
	if d.f, err = openFile(o, false, c); err != nil {
		return err
	}
	if d.f.info.size == 0 {
		return ErrNoDebugInfo
	}
	d.readAltLink(o)
	if c.Alt != nil {
		if d.alt, err = openFile(c.Alt, false, c); err != nil {
			return fmt.Errorf("supplementary file: %w", err)
		}
		d.f.alt = d.alt
	}
	if c.DWP != nil {
		if d.dwp, err = openFile(c.DWP, true, c); err != nil {
			return fmt.Errorf("package file: %w", err)
		}
		if d.index, err = openIndex(c.DWP, c); err != nil {
			return fmt.Errorf("package file: %w", err)
		}
	}
	d.walker = walker{lines: &d.lines, names: newNaming(), code: &d.code}
	return nil
}

// readAltLink reads .gnu_debugaltlink: a path, a NUL, a build ID.
func (d *Data) readAltLink(o *objfile.Object) {
	s, ok := o.Section(".gnu_debugaltlink")
	if !ok {
		return
	}
	data, err := o.Data(s, 64<<10)
	if err != nil {
		return
	}
	if path, id, ok := bytes.Cut(data, []byte{0}); ok {
		d.altPath, d.altID = string(path), hex.EncodeToString(id)
	}
}

// AltLink returns the path and the build ID, in hexadecimal, of the supplementary file
// that the debug information refers to. ok is false if it refers to none.
func (d *Data) AltLink() (path, buildID string, ok bool) {
	return d.altPath, d.altID, d.altPath != ""
}

// Bad returns how many units were skipped, all or in part, because they make no sense
// or are larger than the limits.
func (d *Data) Bad() int { return d.bad }

// BadErr returns what was wrong with the first of them, nil if there is none.
func (d *Data) BadErr() error { return d.badErr }

// NoDWO returns how many split units could not be opened. Of those there are lines,
// and no functions.
func (d *Data) NoDWO() int { return d.noDWO }

// Close removes what sections were decompressed to. It does not close the objects.
func (d *Data) Close() error {
	return errors.Join(d.f.close(), d.alt.close(), d.dwp.close(), d.index.s.close())
}

// Units calls yield for each compilation unit that has code, in the order of the file.
// The unit and its slices are valid until yield returns; strings stay.
//
// An error of yield ends it and is returned. Units that make no sense are counted
// (Bad); an error of the reader ends it, but for the end of a truncated file.
func (d *Data) Units(yield func(*Unit) error) error {
	for off := uint64(0); off < d.f.info.size; {
		b, err := d.f.info.view(off, maxHeader)
		if err != nil {
			return d.failed(off, err)
		}
		h, err := parseHeader(b, off, d.f.info.size)
		ok := false
		if err == nil && h.unitType != utType {
			ok, err = d.read(h)
		}
		if err = d.failed(off, err); err != nil {
			return err
		}
		if ok {
			if err := yield(&d.out); err != nil {
				return err
			}
		}
		if h.end <= off {
			return nil // where the next unit begins is not known
		}
		off = h.end
	}
	return nil
}

// failed counts a unit that is bad, and returns errors that end it all.
func (d *Data) failed(off uint64, err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("unit at %#x: %w", off, err)
	for _, of := range []error{errMalformed, errTooMuch, hostile.ErrShort, io.EOF, io.ErrUnexpectedEOF} {
		if errors.Is(err, of) {
			d.bad++
			if d.badErr == nil {
				d.badErr = err
			}
			return nil
		}
	}
	return err
}

// read reads a unit into d.out; ok is false if it has no code. What could be read
// comes with an error too.
func (d *Data) read(h header) (ok bool, err error) {
	u := &d.unit
	*u = unit{header: h, f: d.f, addrs: d.f, buf: u.buf, scratch: u.scratch}
	d.lines.reset()
	d.out = Unit{}
	root, err := u.load(&d.walker.d)
	if err != nil {
		return false, err
	}
	if root.tag == tagPartialUnit || root.tag == tagTypeUnit {
		return false, nil
	}
	lineErr := d.lines.read(u, &d.code)
	split, done := d.split(u)
	walkErr := d.walker.walk(split)
	done()
	if walkErr == nil {
		d.out.Scopes = d.walker.scopes
	}
	d.out.Files, d.out.Lines = d.lines.paths, d.lines.rows
	return len(d.out.Lines) > 0 || len(d.out.Scopes) > 0, errors.Join(lineErr, walkErr)
}

// load reads the bytes of the unit and its first entry.
func (u *unit) load(d *die) (root *abbrev, err error) {
	if u.end-u.off > maxUnit {
		return nil, errTooMuch
	}
	if u.buf, err = u.f.info.readInto(u.buf, u.off, u.end-u.off); err != nil {
		return nil, err
	}
	if u.table, err = u.f.abbrevs.get(&u.f.abbrev, &u.header); err != nil {
		return nil, err
	}
	code, at := uleb(u.buf, int(u.first))
	root = u.table.get(code)
	if code == 0 || root == nil || root.action != doUnit {
		return nil, errMalformed
	}
	if u.table.decode(root, u.buf, at, &u.header, d) < 0 {
		return nil, errMalformed
	}
	u.setBases(d)
	u.setNames(d)
	return root, nil
}
