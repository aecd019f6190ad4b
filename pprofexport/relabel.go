// SPDX-License-Identifier: Apache-2.0

package pprofexport

import (
	"maps"
	"slices"

	"github.com/google/pprof/profile"
)

// Relabel takes note that the lines of frames have changed since they were added.
func (b *Builder) Relabel(changed []*Frame) {
	for _, f := range changed {
		if l := b.frames[f]; l != nil {
			l.Line = b.functions.lines(f.Lines)
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
	maps.DeleteFunc(b.functions.byKey, func(_ profileFunction, f *profile.Function) bool { return !used[f] })
	b.p.Function = slices.DeleteFunc(b.p.Function, func(f *profile.Function) bool { return !used[f] })
	for i, f := range b.p.Function {
		f.ID = uint64(i + 1)
	}
	b.functions.last = uint64(len(b.p.Function))
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

// FileSamples returns how many samples have a frame in each mapped file.
func (b *Builder) FileSamples() map[FileKey]int64 {
	counts := make(map[FileKey]int64)
	var seen []FileKey
	for _, s := range b.p.Sample {
		seen = seen[:0]
		for _, l := range s.Location {
			if l.Mapping == nil {
				continue
			}
			if k := (FileKey{l.Mapping.File, l.Mapping.BuildID}); !slices.Contains(seen, k) {
				seen = append(seen, k)
				counts[k] = addSat(counts[k], s.Value[0])
			}
		}
	}
	return counts
}

// FileKey is what a profile knows a file by.
type FileKey struct{ File, BuildID string }
