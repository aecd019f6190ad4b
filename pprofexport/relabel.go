// SPDX-License-Identifier: Apache-2.0

package pprofexport

import "github.com/google/pprof/profile"

// Relabel takes note that the lines of frames have changed since they were added.
func (b *Builder) Relabel(changed []*Frame) {
	for _, f := range changed {
		l := b.frames[f]
		if l == nil {
			continue
		}
		l.Line = l.Line[:0]
		for i := range f.Lines {
			if fn := b.function(&f.Lines[i]); fn != nil {
				l.Line = append(l.Line, profile.Line{Function: fn, Line: max(f.Lines[i].Line, 0)})
			}
		}
	}
	b.dropFunctions()
	b.recount()
}

// dropFunctions leaves out the functions that no location has any more.
func (b *Builder) dropFunctions() {
	used := make(map[*profile.Function]bool, len(b.p.Function))
	for _, l := range b.p.Location {
		for _, line := range l.Line {
			used[line.Function] = true
		}
	}
	for k, f := range b.functions {
		if !used[f] {
			delete(b.functions, k)
		}
	}
	kept := b.p.Function[:0]
	for _, f := range b.p.Function {
		if used[f] {
			kept = append(kept, f)
			f.ID = uint64(len(kept))
		}
	}
	b.p.Function = kept
	// What tells locations apart has the old IDs: none is to be found by them.
	clear(b.locations)
}

// recount counts the frames that have a name.
func (b *Builder) recount() {
	b.quality.Named = 0
	for _, s := range b.p.Sample {
		for _, l := range s.Location {
			if len(l.Line) > 0 && (l.Mapping == nil || l.Mapping.File != OwnFile) {
				b.quality.Named += uint64(s.Value[0])
			}
		}
	}
}

// Samples returns how many samples there are so far.
func (b *Builder) Samples() int64 {
	var n int64
	for _, s := range b.p.Sample {
		n = addSat(n, s.Value[0])
	}
	return n
}

// FileSamples returns how many samples have a frame in each mapped file.
func (b *Builder) FileSamples() map[FileKey]int64 {
	counts := make(map[FileKey]int64)
	var seen []FileKey
	for _, s := range b.p.Sample {
		seen = seen[:0]
	frames:
		for _, l := range s.Location {
			if l.Mapping == nil {
				continue
			}
			k := FileKey{l.Mapping.File, l.Mapping.BuildID}
			for _, other := range seen {
				if k == other {
					continue frames
				}
			}
			seen = append(seen, k)
			counts[k] = addSat(counts[k], s.Value[0])
		}
	}
	return counts
}

// FileKey is what a profile knows a file by.
type FileKey struct{ File, BuildID string }
