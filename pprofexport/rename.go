// SPDX-License-Identifier: Apache-2.0

package pprofexport

import (
	"slices"

	"github.com/google/pprof/profile"
)

// Samples is how many samples there are so far.
func (b *Builder) Samples() int64 {
	var n int64
	for _, s := range b.p.Sample {
		n = addSat(n, s.Value[0])
	}
	return n
}

// SamplesIn is how many frames of samples lie in a mapping.
func (b *Builder) SamplesIn(m *Mapping) int64 {
	if m == nil {
		return 0
	}
	return b.use[b.mapping(m)].samples
}

// Renamed takes over what the Lines of frames are by now. Call it after the last Add.
func (b *Builder) Renamed(frames []*Frame) {
	if b.info.NoNames {
		return
	}
	for _, f := range frames {
		if l := b.frames[f]; l != nil {
			l.Line = b.lines(f.Lines)
		}
	}
	b.quality.Named = 0
	for _, s := range b.p.Sample {
		for _, l := range s.Location {
			if len(l.Line) > 0 && l.Mapping != b.own {
				b.quality.Named += uint64(s.Value[0])
			}
		}
	}
}

// dropUnused drops the functions of names that frames no longer have.
func (b *Builder) dropUnused() {
	used := make(map[*profile.Function]bool)
	for _, l := range b.p.Location {
		for _, line := range l.Line {
			used[line.Function] = true
		}
	}
	b.p.Function = slices.DeleteFunc(b.p.Function, func(f *profile.Function) bool { return !used[f] })
}
