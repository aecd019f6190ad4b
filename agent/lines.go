// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/go-kit/log/level"

	"github.com/lowflame/lowflame/pprofexport"
	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/symbolize/index"
)

// IndexProgress is how far Recording.Symbolize is.
type IndexProgress struct {
	Done, All int
	Path      string // of the file that is being indexed
}

// IndexResult says what came of Recording.Symbolize.
type IndexResult struct {
	Indexed int // files whose lines and inlined calls are known
	None    int // files without debugging information, or with too few samples to read it
	Failed  int // files whose index could not be built
	Skipped int // files left when time was up
}

// pendingFile is a file with frames that an index may know more of.
type pendingFile struct {
	file    *file
	samples int64
	frames  map[stack.LinkAddr]*pprofexport.Frame
}

// minIndexShare is the share of samples with a frame in a file from which making an
// index of it is worth it.
const minIndexShare = 0.005

// Symbolize gives frames the lines and inlined calls that debugging information knows,
// of the files with most samples first, until ctx is done; what is left keeps its
// names. Call it between Run and Result.
func (r *Recording) Symbolize(ctx context.Context, x *Indexes, progress func(IndexProgress)) IndexResult {
	var result IndexResult
	var changed []*pprofexport.Frame
	files := r.session.files.withoutLines(r.builder.FileSamples())
	for i, p := range files {
		if ctx.Err() != nil {
			result.Skipped = len(files) - i
			break
		}
		progress(IndexProgress{Done: i, All: len(files), Path: p.file.path})
		h, err := x.Get(ctx, Target{Object: p.file.object, Handle: p.file.handle, Path: p.file.path, Roots: p.file.roots,
			Cached: float64(p.samples) < minIndexShare*float64(r.samples)})
		var failed *index.FailedError
		switch {
		case err == nil:
			result.Indexed++
			changed = append(changed, r.session.nameFrom(h, p)...)
			err = h.Close()
		case errors.Is(err, ErrNoDWARF), errors.Is(err, index.ErrNotBuilt):
			result.None++
		case ctx.Err() != nil:
			result.Skipped++
		default:
			result.Failed++
		}
		if err != nil && !errors.As(err, &failed) {
			level.Debug(r.session.cfg.Logger).Log("msg", "no index", "path", p.file.path, "build_id", p.file.buildID, "err", err)
		}
	}
	r.builder.Relabel(changed)
	return result
}

// withoutLines returns the open files that have samples in code without a known file,
// those with most samples first.
func (f *files) withoutLines(samples map[pprofexport.FileKey]int64) []pendingFile {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []pendingFile
	for _, one := range f.byID {
		p := pendingFile{file: one, frames: make(map[stack.LinkAddr]*pprofexport.Frame)}
		one.mu.Lock()
		for addr, frame := range one.frames {
			if len(frame.Lines) == 0 || frame.Lines[0].File == "" {
				p.frames[addr] = frame
				p.samples = max(p.samples, samples[pprofexport.FileKey{
					File: pprofexport.Clean(frame.Mapping.File), BuildID: pprofexport.Clean(frame.Mapping.BuildID),
				}])
			}
		}
		one.mu.Unlock()
		if one.handle != nil && p.samples > 0 {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b pendingFile) int {
		return cmp.Or(cmp.Compare(b.samples, a.samples), cmp.Compare(a.file.path, b.file.path))
	})
	return out
}

// nameFrom names the frames of a file from its index and returns those that changed.
func (s *Session) nameFrom(h *index.Handle, p pendingFile) []*pprofexport.Frame {
	binary := *p.file.binary
	binary.Index = h
	var changed []*pprofexport.Frame
	for addr, frame := range p.frames {
		if lines := s.symbols.User(&binary, addr); len(lines) > 0 {
			frame.Lines = lines
			changed = append(changed, frame)
		}
	}
	return changed
}
