// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/lowflame/lowflame/agent"
	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/pprofexport"
	"github.com/lowflame/lowflame/pprofexport/file"
	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/symbolize"
)

// symbolizeCmd names what a profile leaves unnamed.
type symbolizeCmd struct {
	File   string `arg:"" help:"Profile in pprof's format."`
	Output string `short:"o" placeholder:"FILE" help:"File to write, - is standard output; otherwise FILE itself."`
	Force  bool   `help:"Find names anew for what has some already."`
	Quiet  bool   `short:"q" help:"Do not say what was found."`
	indexFlags
}

// Run symbolizes the profile.
func (c *symbolizeCmd) Run() error {
	p, err := file.Read(c.File)
	if err != nil {
		return err
	}
	if c.Output == "" {
		c.Output = c.File
	}
	if err := file.CheckWritable(c.Output); err != nil {
		return err
	}
	indexes, err := c.open()
	if err != nil {
		return err
	}
	defer func() { _ = indexes.Close() }()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	say := io.Writer(os.Stderr)
	if c.Quiet {
		say = io.Discard
	}
	s := lateSymbolizer{indexes: indexes, dirs: c.DebugDir, say: say, symbols: symbolize.New(symbolize.Config{})}
	err = pprofexport.Symbolize(p, c.Force, func(m pprofexport.Mapping, all int) (pprofexport.Lookup, func(int)) {
		return s.open(ctx, m, all)
	})
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted; nothing was written")
	case err != nil:
		return err
	}
	return file.Write(c.Output, p, file.Options{Format: file.Pprof})
}

// lateSymbolizer finds the files of a profile and names what is in them.
type lateSymbolizer struct {
	indexes *agent.Indexes
	symbols *symbolize.Symbolizer
	dirs    []string
	files   map[string]string // in dirs, by build ID; nil before it is needed
	say     io.Writer
}

// open returns what names the code of a mapping, nil if its file is not there.
func (s *lateSymbolizer) open(ctx context.Context, m pprofexport.Mapping, all int) (pprofexport.Lookup, func(int)) {
	name := printable(m.File)
	if m.File == "" || strings.HasPrefix(m.File, "[") || m.File == pprofexport.AnonFile || ctx.Err() != nil {
		return nil, nil // the kernel, and code that no file has
	}
	path, o, handle, err := s.find(m)
	if err != nil {
		fmt.Fprintf(s.say, "%s: nothing named: %v\n", name, err)
		return nil, nil
	}
	b := &symbolize.Binary{ID: path + " " + o.BuildID.String(), Object: o}
	how := "with lines and inlined calls, from " + printable(path)
	h, err := s.indexes.Get(ctx, agent.Target{Object: o, Handle: handle, Path: path, Roots: []string{"/"}})
	if err == nil {
		b.Index = h
	} else {
		how = fmt.Sprintf("by what %s has itself: %v", printable(path), err)
	}
	lookup := func(off stack.FileOff) []symbolize.Line {
		addr, ok := o.LinkAddr(off)
		if !ok {
			return nil
		}
		return s.symbols.User(b, addr)
	}
	return lookup, func(named int) {
		fmt.Fprintf(s.say, "%s: %d of %d locations named %s\n", name, named, all, how)
		if h != nil {
			_ = h.Close()
		}
		handle.Close()
	}
}

// find opens the file of a mapping: the one it names, or one of those in the debug
// directories, with its build ID.
func (s *lateSymbolizer) find(m pprofexport.Mapping) (path string, o *objfile.Object, handle *os.File, err error) {
	if m.BuildID == "" {
		return "", nil, nil, errors.New("the profile has no build ID of it")
	}
	o, handle, err = openWithID(m.File, m.BuildID)
	if err == nil {
		return m.File, o, handle, nil
	}
	if s.files == nil {
		s.files = buildIDs(s.dirs)
	}
	path, ok := s.files[m.BuildID]
	if !ok && len(m.BuildID) > 2 && filepath.IsLocal(m.BuildID) {
		path = filepath.Join("/usr/lib/debug/.build-id", m.BuildID[:2], m.BuildID[2:]+".debug")
	}
	if path == "" {
		return "", nil, nil, err
	}
	o, handle, again := openWithID(path, m.BuildID)
	if again != nil {
		return "", nil, nil, errors.Join(err, again)
	}
	return path, o, handle, nil
}

func openWithID(path, buildID string) (*objfile.Object, *os.File, error) {
	o, handle, err := objfile.OpenFile(path)
	if err != nil {
		return nil, nil, err
	}
	if o.BuildID.String() != buildID {
		err := fmt.Errorf("%s has build ID %s, not %s", path, o.BuildID, buildID)
		return nil, nil, errors.Join(err, handle.Close())
	}
	return o, handle, nil
}

// maxScanned is how many files are looked at in debug directories.
const maxScanned = 100_000

// buildIDs returns the object files below directories by build ID. A file that cannot
// be read is not one of them.
func buildIDs(dirs []string) map[string]string {
	found := make(map[string]string)
	scanned := 0
	for _, dir := range dirs {
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return nil
			}
			if scanned++; scanned > maxScanned {
				return fs.SkipAll
			}
			if o, handle, err := objfile.OpenFile(path); err == nil {
				found[o.BuildID.String()] = path
				handle.Close()
			}
			return nil
		})
	}
	return found
}
