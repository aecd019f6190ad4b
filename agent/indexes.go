// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/go-kit/log/level"
	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/objfile/gopclntab"
	"github.com/lowflame/lowflame/pprofexport"
	"github.com/lowflame/lowflame/symbolize/builder"
	"github.com/lowflame/lowflame/symbolize/index"
)

// minIndexShare is the share of samples with code of a file from which building an
// index of the file is worth it.
const minIndexShare = 0.005

// Indexed says what AddLines did.
type Indexed struct {
	Files  int // whose frames have inlined calls and lines
	Built  int // of them, the indexes that were not there before
	Failed int // that could not be built
}

// AddLines gives the frames of files with DWARF their inlined calls and lines, from
// indexes in dir, and builds those that are missing of the files that have most
// samples until ctx is done. building is called before each. Call it after Run, and
// before Session.Close. What fails costs lines, not names, and is logged.
func (r *Recording) AddLines(ctx context.Context, dir *index.Dir, building func(path string)) Indexed {
	var done Indexed
	s := r.session
	for _, f := range s.files.sampled(r.builder) {
		err := s.addLines(ctx, dir, f, func() { building(f.path) })
		switch {
		case err == nil:
			done.Files++
		case errors.Is(err, errNoIndex):
			continue
		default:
			done.Failed++
		}
		level.Debug(s.cfg.Logger).Log("msg", "index of symbols", "path", f.path, "built", f.indexBuilt, "err", err)
		if f.indexBuilt {
			done.Built++
		}
		r.builder.Renamed(f.allFrames())
	}
	return done
}

// errNoIndex says that a file has no index, and that there is nothing wrong with that.
var errNoIndex = errors.New("nothing to index")

// sampled returns the files that are open and have samples, most first.
func (f *files) sampled(b *pprofexport.Builder) []*file {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []*file
	all := b.Samples()
	for _, one := range f.byID {
		if one.handle == nil {
			continue
		}
		one.share = 0
		for _, frame := range one.allFrames() {
			one.share = float64(b.SamplesIn(frame.Mapping)) / float64(max(1, all))
			out = append(out, one)
			break
		}
	}
	slices.SortFunc(out, func(x, y *file) int {
		return cmp.Or(cmp.Compare(y.share, x.share), cmp.Compare(x.path, y.path))
	})
	return out
}

func (f *file) allFrames() []*pprofexport.Frame {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]*pprofexport.Frame, 0, len(f.frames))
	for _, frame := range f.frames {
		out = append(out, frame)
	}
	return out
}

// addLines names the frames of a file by its index.
func (s *Session) addLines(ctx context.Context, dir *index.Dir, f *file, building func()) error {
	key, trusted, err := f.indexKey()
	if err != nil {
		return err
	}
	x, err := dir.Open(key)
	var failed *index.FailedError
	switch {
	case errors.Is(err, index.ErrNotBuilt):
		if x, err = s.buildIndex(ctx, dir, f, key, trusted, building); err != nil {
			return err
		}
	case errors.As(err, &failed):
		return errNoIndex
	case err != nil:
		return err
	}
	defer x.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	var lines []index.Line
	for addr, frame := range f.frames {
		if lines, err = x.Lookup(addr, lines[:0]); err != nil {
			return fmt.Errorf("look up %#x in index of %s: %w", uint64(addr), f.path, err)
		}
		if len(lines) > 0 {
			frame.Lines = s.symbols.IndexLines(f.binary, lines)
		}
	}
	return nil
}

// buildIndex builds the index of a file that has DWARF, and enough samples.
func (s *Session) buildIndex(ctx context.Context, dir *index.Dir, f *file, key string, trusted bool, building func()) (*index.Handle, error) {
	if f.share < minIndexShare || ctx.Err() != nil {
		return nil, errNoIndex
	}
	if _, err := gopclntab.Open(f.object); err == nil {
		return nil, errNoIndex // Go has its own table, with all that DWARF has
	}
	found := s.files.debug.Find(f.object, f.path, f.roots)
	defer found.Close()
	if found.Debug == nil {
		return nil, errNoIndex
	}
	if trusted && (found.Debug.Foreign || found.Alt != nil && found.Alt.Foreign || found.Symbols != nil && found.Symbols.Foreign) {
		return nil, errNoIndex // others would get names from whoever wrote it
	}
	p, err := dir.Begin(key)
	if err != nil {
		return nil, err
	}
	building()
	_, err = builder.Run(ctx, builder.Job{Object: f.handle, Found: found, Out: p.File()})
	var changed bool
	if err == nil {
		changed = found.Changed() || f.changed()
	}
	switch {
	case err == nil && !changed:
		if err := p.Commit(); err != nil {
			return nil, err
		}
		f.indexBuilt = true
		return dir.Open(key)
	case err == nil:
		err = fmt.Errorf("%s was written to meanwhile", f.path)
		return nil, errors.Join(err, p.Abort(""))
	case ctx.Err() != nil, errors.Is(err, builder.ErrStart):
		return nil, errors.Join(err, p.Abort(""))
	}
	return nil, errors.Join(err, p.Abort(err.Error()))
}

// indexKey returns what the index of a file is kept under. Anyone can claim any build
// ID, so it stands for the file only if root of this host wrote that; trusted says so.
// Else the key is made of what is not to be had for another file.
func (f *file) indexKey() (key string, trusted bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.handle.Fd()), &st); err != nil {
		return "", false, fmt.Errorf("stat %s: %w", f.path, err)
	}
	if st.Uid == 0 && st.Mode&0o022 == 0 && f.buildID != "" && len(f.roots) == 1 && f.roots[0] == "/" {
		return f.buildID, true, nil
	}
	sum := sha256.Sum256(fmt.Append(nil, st.Dev, st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano(), f.buildID))
	return fmt.Sprintf("%x", sum[:24]), false, nil
}

// changed reports whether a file was written to since it was opened.
func (f *file) changed() bool {
	var st unix.Stat_t
	return unix.Fstat(int(f.handle.Fd()), &st) != nil ||
		f.identity != identity{st.Dev, st.Ino, st.Size, st.Mtim.Nano()}
}
