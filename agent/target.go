// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/objfile/gopclntab"
	"github.com/lowflame/lowflame/symbolize/builder"
	"github.com/lowflame/lowflame/symbolize/debugfile"
	"github.com/lowflame/lowflame/symbolize/index"
)

var (
	// ErrNoDWARF says that a file has no debugging information, so that an index
	// would know no more than its symbols.
	ErrNoDWARF = errors.New("no debugging information found")
	// ErrGo says that a file is a Go program, whose own table knows all.
	ErrGo = errors.New("a Go program names itself")
)

// Target is a file that an index is wanted of.
type Target struct {
	Object *objfile.Object
	Handle *os.File
	Path   string // below Root
	Root   string
}

// OpenIndex returns the index of a file from dir, which it makes if there is none. The
// caller closes the handle. The error wraps ErrNoDWARF, ErrGo, index.ErrBusy or ctx's,
// or is a *index.FailedError. It waits for the worker.
func OpenIndex(ctx context.Context, dir *index.Dir, finder *debugfile.Finder, t Target) (*index.Handle, error) {
	f := file{
		object: t.Object, handle: t.Handle, path: t.Path, roots: []string{t.Root},
		buildID: t.Object.BuildID.String(),
	}
	if t.Object.BuildID.Kind != objfile.BuildIDGNU {
		f.buildID = ""
	}
	key, trusted, err := f.indexKey()
	if err != nil {
		return nil, err
	}
	x, err := dir.Open(key)
	if !errors.Is(err, index.ErrNotBuilt) {
		return x, err
	}
	if _, err := gopclntab.Open(t.Object); err == nil {
		return nil, ErrGo
	}
	found := finder.Find(t.Object, t.Path, f.roots)
	defer found.Close()
	switch {
	case found.Debug == nil && len(found.Missing) > 0:
		return nil, fmt.Errorf("%w: %v", ErrNoDWARF, found.Missing[0])
	case found.Debug == nil:
		return nil, ErrNoDWARF
	case trusted && foreign(found):
		return nil, fmt.Errorf("%w: %s is not root's", ErrNoDWARF, found.Debug.Path)
	}
	if err := buildTarget(ctx, dir, key, &t, found); err != nil {
		return nil, fmt.Errorf("build index of %s: %w", t.Path, err)
	}
	return dir.Open(key)
}

// foreign reports whether others than root may have written one of the files.
func foreign(found *debugfile.Found) bool {
	for _, f := range []*debugfile.File{found.Symbols, found.Debug, found.Alt, found.Package} {
		if f != nil && f.Foreign && f.Source != debugfile.SourceSelf {
			return true
		}
	}
	return false
}

func buildTarget(ctx context.Context, dir *index.Dir, key string, t *Target, found *debugfile.Found) error {
	p, err := dir.Begin(key)
	if err != nil {
		return err
	}
	_, err = builder.Run(ctx, builder.Job{Object: t.Handle, Found: found, Out: p.File()})
	switch {
	case ctx.Err() != nil || errors.Is(err, builder.ErrStart):
		return errors.Join(err, p.Abort(""))
	case err != nil:
		return errors.Join(err, p.Abort(err.Error()))
	case found.Changed():
		return errors.Join(errors.New("a file changed meanwhile"), p.Abort(""))
	}
	return p.Commit()
}
