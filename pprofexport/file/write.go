// SPDX-License-Identifier: Apache-2.0

package file

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/pprof/profile"
)

// Options say how to write a profile.
type Options struct {
	Format Format
	// Title heads a flame graph and names a speedscope profile.
	Title string
	// Root is what goes below the first function of each stack. It does not
	// change Pprof, which has labels.
	Root Root
	// Stdout is written to when the path is "-"; nil means os.Stdout.
	Stdout io.Writer
}

// Root is what stacks are grouped by in formats that know no labels.
type Root uint8

const (
	// RootProcess puts the name of the process first, as perf's
	// stackcollapse scripts do.
	RootProcess Root = iota
	// RootThread puts the name of the process and then of the thread first.
	RootThread
	// RootNone puts nothing before the first function.
	RootNone
)

// Write writes p to path as o.Format; "-" is standard output. A file appears
// whole, under its name, or not at all: what was there before is replaced only
// after everything is on disk. Devices and pipes are written to as they are.
func Write(path string, p *profile.Profile, o Options) error {
	if path == "-" {
		w := o.Stdout
		if w == nil {
			w = os.Stdout
		}
		if err := Encode(w, p, o); err != nil {
			return fmt.Errorf("write %s to standard output: %w", o.Format, err)
		}
		return nil
	}
	if err := writeFile(path, p, o); err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err // its path is that of the temporary file
		}
		return fmt.Errorf("write %s to %s: %w", o.Format, path, err)
	}
	return nil
}

func writeFile(path string, p *profile.Profile, o Options) error {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target // replace what a link points to, not the link
	}
	switch st, err := os.Stat(path); {
	case err == nil && st.IsDir():
		return errors.New("is a directory")
	case err == nil && !st.Mode().IsRegular():
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(Encode(f, p, o), f.Close())
	}
	f, err := createBeside(path)
	if err != nil {
		return writeInPlace(path, p, o, err)
	}
	err = errors.Join(Encode(f, p, o), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(filepath.Dir(path))
}

// createBeside creates a file in the directory of path, with the mode of the file
// it is to replace.
func createBeside(path string) (*os.File, error) {
	dir, base := filepath.Split(path)
	tmp := filepath.Join(dir, "."+base[:min(len(base), 200)]+"."+rand.Text()[:8]+".tmp")
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666) // less the umask, as any new file
	if err != nil {
		return nil, err
	}
	if st, err := os.Stat(path); err == nil {
		if err := f.Chmod(st.Mode().Perm()); err != nil {
			return nil, errors.Join(err, f.Close(), os.Remove(tmp))
		}
	}
	return f, nil
}

// writeInPlace writes to a file whose directory is not writable. It returns why
// that is if the file is not writable either.
func writeInPlace(path string, p *profile.Profile, o Options, why error) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return why
	}
	return errors.Join(f.Truncate(0), Encode(f, p, o), f.Sync(), f.Close())
}

// CheckWritable returns an error if Write to path would fail for want of a
// directory or a permission. It leaves no trace.
func CheckWritable(path string) error {
	if path == "-" {
		return nil
	}
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	st, err := os.Stat(path)
	switch {
	case err == nil && st.IsDir():
		return fmt.Errorf("%s is a directory", path)
	case err == nil && !st.Mode().IsRegular():
		return nil // a device or a pipe may not want to be tried
	}
	f, createErr := createBeside(path)
	if createErr == nil {
		return errors.Join(f.Close(), os.Remove(f.Name()))
	}
	if f, err := os.OpenFile(path, os.O_WRONLY, 0); err == nil {
		return f.Close()
	}
	dir := filepath.Dir(path)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot write %s: there is no directory %s", path, dir)
	}
	var pe *fs.PathError
	if errors.As(createErr, &pe) {
		createErr = pe.Err
	}
	return fmt.Errorf("cannot write %s: directory %s: %w", path, dir, createErr)
}

// syncDir makes a rename in dir last.
func syncDir(dir string) error {
	if dir == "" {
		dir = "."
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil // a directory may be writable and not readable
	}
	_ = d.Sync() // some file systems cannot; the file itself is on disk
	return d.Close()
}

// Encode writes p to w as o.Format.
func Encode(w io.Writer, p *profile.Profile, o Options) error {
	b := bufio.NewWriterSize(w, 64<<10)
	var err error
	switch o.Format {
	case Pprof:
		err = p.Write(b)
	case Folded:
		err = folded(b, p, o)
	case Speedscope:
		err = speedscope(b, p, o)
	case FlamegraphHTML:
		err = flamegraph(b, p, o)
	default:
		_, err = ParseFormat(string(o.Format), "")
	}
	if err != nil {
		return err
	}
	return b.Flush()
}
