// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/symbolize/builder"
	"github.com/lowflame/lowflame/symbolize/debugfile"
	"github.com/lowflame/lowflame/symbolize/debuginfod"
	"github.com/lowflame/lowflame/symbolize/index"
)

// Indexes has the symbol indexes of files, and makes those that are missing. Safe for
// concurrent use.
type Indexes struct {
	dir     *index.Dir
	finder  *debugfile.Finder
	servers *debuginfod.Client // nil if nobody is to be asked
	temp    string
}

// IndexConfig says where indexes are kept.
type IndexConfig struct {
	Dir       string // "" means DefaultIndexDir
	MaxBytes  int64
	DebugDirs []string // tried before /usr/lib/debug
	// Debuginfod are the URLs of servers that are asked for what is not on this
	// machine. What they send is kept beside Dir.
	Debuginfod []string
}

// DefaultIndexDir returns where indexes are kept unless it is said otherwise:
// /var/cache/lowflame/symbols for root, and for others in the directory of their
// caches.
func DefaultIndexDir() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/cache/lowflame/symbols", nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find directory for symbol indexes: %w", err)
	}
	return filepath.Join(dir, "lowflame", "symbols"), nil
}

// OpenIndexes opens the directory of indexes.
func OpenIndexes(c IndexConfig) (*Indexes, error) {
	if c.Dir == "" {
		var err error
		if c.Dir, err = DefaultIndexDir(); err != nil {
			return nil, err
		}
	}
	dir, err := index.OpenDir(c.Dir, c.MaxBytes)
	if err != nil {
		return nil, err
	}
	x := &Indexes{dir: dir, temp: c.Dir}
	find := debugfile.Config{Extra: c.DebugDirs}
	if len(c.Debuginfod) > 0 {
		x.servers, err = debuginfod.New(debuginfod.Config{URLs: c.Debuginfod, Dir: filepath.Clean(c.Dir) + "-debuginfod"})
		if err != nil {
			return nil, errors.Join(err, dir.Close())
		}
		find.Cache = x.servers
	}
	x.finder = debugfile.New(find)
	return x, nil
}

// Close closes the directory.
func (x *Indexes) Close() error {
	if x.servers != nil {
		x.servers.Close()
	}
	return x.dir.Close()
}

// ErrNoDWARF says that a file has no debugging information, so that an index would know
// no more than its symbols.
var ErrNoDWARF = errors.New("no debugging information found")

// Target is a file that an index is wanted of.
type Target struct {
	Object *objfile.Object
	Handle *os.File
	Path   string   // below the first of Roots
	Roots  []string // see debugfile.Finder.Find
	Cached bool     // make no index where there is none
}

// Get returns the index of a file, which it makes if there is none. The caller closes
// the handle. The error wraps ErrNoDWARF, index.ErrBusy or ctx's, or is a
// *index.FailedError. It waits for the worker, and for servers: call it where waiting
// is fine.
func (x *Indexes) Get(ctx context.Context, t Target) (*index.Handle, error) {
	key, own, err := indexKeys(&t)
	if err != nil {
		return nil, err
	}
	h, err := x.dir.Open(key)
	if t.Cached || !errors.Is(err, index.ErrNotBuilt) {
		return h, err
	}
	found := x.finder.Find(t.Object, t.Path, t.Roots)
	defer func() { _ = found.Close() }()
	if x.fetch(ctx, found.Wanted) {
		_ = found.Close()
		found = x.finder.Find(t.Object, t.Path, t.Roots)
	}
	if found.Debug == nil {
		if len(found.Missing) > 0 {
			return nil, fmt.Errorf("%w: %v", ErrNoDWARF, found.Missing[len(found.Missing)-1])
		}
		return nil, ErrNoDWARF
	}
	if key != own && foreign(found) {
		key = own
		if h, err = x.dir.Open(key); !errors.Is(err, index.ErrNotBuilt) {
			return h, err
		}
	}
	if err := x.build(ctx, key, &t, found); err != nil {
		return nil, err
	}
	return x.dir.Open(key)
}

// foreign reports whether others than root of this host may have written what was found.
func foreign(found *debugfile.Found) bool {
	return slices.ContainsFunc([]*debugfile.File{found.Symbols, found.Debug, found.Alt, found.Package},
		func(f *debugfile.File) bool { return f != nil && f.Foreign })
}

// fetch asks servers for files and reports whether one came.
func (x *Indexes) fetch(ctx context.Context, wanted []string) bool {
	if x.servers == nil {
		return false
	}
	came := false
	for _, id := range wanted {
		if f, err := x.servers.Fetch(ctx, id); err == nil {
			came = true
			_ = f.Close()
		}
	}
	return came
}

func (x *Indexes) build(ctx context.Context, key string, t *Target, found *debugfile.Found) error {
	p, err := x.dir.Begin(key)
	if err != nil {
		return err
	}
	var before, after unix.Stat_t
	if err := unix.Fstat(int(t.Handle.Fd()), &before); err != nil {
		return errors.Join(fmt.Errorf("stat %s: %w", t.Path, err), p.Abort(""))
	}
	_, err = builder.Run(ctx, builder.Job{Object: t.Handle, Found: found, Out: p.File(), TempDir: x.temp})
	switch {
	case ctx.Err() != nil:
		return errors.Join(ctx.Err(), p.Abort(""))
	case errors.Is(err, builder.ErrStart): // says nothing of the files
		return errors.Join(err, p.Abort(""))
	case err != nil:
		return errors.Join(fmt.Errorf("build index of %s: %w", t.Path, err), p.Abort(err.Error()))
	case found.Changed(), unix.Fstat(int(t.Handle.Fd()), &after) != nil, before.Size != after.Size, before.Mtim != after.Mtim:
		return errors.Join(fmt.Errorf("build index of %s: it was written to meanwhile", t.Path), p.Abort(""))
	}
	return p.Commit()
}

// indexKeys returns what the index of a file is kept under, and what one is that is
// made of files that others may have written. The first is the build ID where only
// root can have written the file itself. Anyone can claim any build ID: others' files
// have indexes of their own, and both are the same.
func indexKeys(t *Target) (key, own string, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(t.Handle.Fd()), &st); err != nil {
		return "", "", fmt.Errorf("stat %s: %w", t.Path, err)
	}
	h := sha256.Sum256(fmt.Appendf(nil, "%s %d %d %d %d %d", t.Object.BuildID, st.Dev, st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano()))
	own = hex.EncodeToString(h[:20])
	hosts := len(t.Roots) == 1 && t.Roots[0] == "/"
	if t.Object.BuildID.Kind == objfile.BuildIDGNU && st.Uid == 0 && st.Mode&0o022 == 0 && hosts {
		return t.Object.BuildID.ID, own, nil
	}
	return own, own, nil
}
