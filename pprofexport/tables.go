// SPDX-License-Identifier: Apache-2.0

package pprofexport

import (
	"encoding/binary"
	"path"
	"slices"
	"strings"

	"github.com/google/pprof/profile"

	"github.com/lowflame/lowflame/symbolize"
)

// locationKey tells locations apart. Lines are part of it because one address
// can mean two things in a profile: code in two processes' anonymous memory, or
// one JIT function after another.
type locationKey struct {
	mapping *profile.Mapping
	addr    uint64
	lines   string // function ID and line number of each line
}

type profileFunction struct {
	name, systemName, file string
	startLine              int64
}

// mappingUse is what a builder knows of a mapping beyond the mapping itself.
type mappingUse struct {
	samples int64
	main    bool
}

func (b *Builder) location(f *Frame) *profile.Location {
	if l := b.frames[f]; l != nil {
		return l
	}
	l := b.newLocation(b.mapping(f.Mapping), f.Addr, f.Lines)
	b.frames[f] = l
	return l
}

func (b *Builder) newLocation(m *profile.Mapping, addr uint64, lines []symbolize.Line) *profile.Location {
	out := b.functions.lines(lines)
	var key []byte
	for _, l := range out {
		key = binary.AppendUvarint(key, l.Function.ID)
		key = binary.AppendVarint(key, l.Line)
	}
	k := locationKey{mapping: m, addr: addr, lines: string(key)}
	l := b.locations[k]
	if l == nil {
		l = &profile.Location{ID: uint64(len(b.p.Location) + 1), Mapping: m, Address: addr, Line: out}
		b.locations[k] = l
		b.p.Location = append(b.p.Location, l)
	}
	return l
}

// functions holds the functions of a profile.
type functions struct {
	p     *profile.Profile
	byKey map[profileFunction]*profile.Function
	last  uint64 // ID given
}

// lines returns the lines that have a name.
func (t *functions) lines(in []symbolize.Line) []profile.Line {
	var out []profile.Line
	for i := range in {
		if f := t.function(&in[i]); f != nil {
			out = append(out, profile.Line{Function: f, Line: max(in[i].Line, 0)})
		}
	}
	return out
}

// function returns the function of l, nil if l has no name.
func (t *functions) function(l *symbolize.Line) *profile.Function {
	k, ok := functionKey(l)
	if !ok {
		return nil
	}
	f := t.byKey[k]
	if f == nil {
		t.last++
		f = &profile.Function{ID: t.last, Name: k.name, SystemName: k.systemName, Filename: k.file, StartLine: k.startLine}
		t.byKey[k] = f
		t.p.Function = append(t.p.Function, f)
	}
	return f
}

// functionKey returns what tells the function of l apart; false if it has no name.
func functionKey(l *symbolize.Line) (profileFunction, bool) {
	k := profileFunction{Clean(l.Name), Clean(l.SystemName), Clean(l.File), max(l.StartLine, 0)}
	if k.name == "" {
		k.name = k.systemName
	}
	if k.systemName == "" {
		k.systemName = k.name
	}
	return k, k.name != ""
}

// mapping returns the profile's mapping for m, nil for nil.
func (b *Builder) mapping(m *Mapping) *profile.Mapping {
	if m == nil {
		return nil
	}
	if pm := b.byPointer[m]; pm != nil {
		return pm
	}
	k := *m
	k.File, k.BuildID, k.Main = Clean(m.File), Clean(m.BuildID), false
	pm := b.mappings[k]
	if pm == nil {
		pm = &profile.Mapping{
			ID:      uint64(len(b.p.Mapping) + 1),
			Start:   k.Begin,
			Limit:   k.End,
			Offset:  k.Off,
			File:    k.File,
			BuildID: k.BuildID,
		}
		b.mappings[k] = pm
		b.use[pm] = &mappingUse{}
		b.p.Mapping = append(b.p.Mapping, pm)
	}
	b.use[pm].main = b.use[pm].main || m.Main
	b.byPointer[m] = pm
	return pm
}

// ownFrame returns a location that is no code: addr tells such locations
// apart in a mapping of their own, below any address code can have.
func (b *Builder) ownFrame(addr uint64, name string) *profile.Location {
	own := Mapping{End: 0x1000, File: OwnFile}
	m := b.mappings[own]
	if m == nil {
		m = b.mapping(&own)
	}
	return b.newLocation(m, addr, []symbolize.Line{{Name: name}})
}

// setFlags sets what each mapping claims to know. pprof looks for better
// symbols where functions, file names or line numbers are missing
// (internal/symbolizer), so HasFunctions holds when any location has a name,
// the other two only when every named line has one. An unnamed location was
// looked up and has none.
func setFlags(p *profile.Profile) {
	noFile := make(map[*profile.Mapping]bool)
	noLine := make(map[*profile.Mapping]bool)
	for _, l := range p.Location {
		m := l.Mapping
		if m == nil || len(l.Line) == 0 {
			continue
		}
		m.HasFunctions = true
		m.HasInlineFrames = m.HasInlineFrames || len(l.Line) > 1
		for _, line := range l.Line {
			noFile[m] = noFile[m] || line.Function.Filename == ""
			noLine[m] = noLine[m] || line.Line == 0
		}
	}
	for _, m := range p.Mapping {
		m.HasFilenames = m.HasFunctions && !noFile[m]
		m.HasLineNumbers = m.HasFunctions && !noLine[m]
	}
}

// mainFirst puts the mapping of the main program first, where pprof looks for
// it: of the programs that processes run, the one with most samples; if none is
// known, of the files that are not shared libraries. profile.proto: "mapping[0]
// will be the main binary". Frames of our own come last.
func (b *Builder) mainFirst() {
	var first *profile.Mapping
	var bestRank int
	var bestSamples int64
	for _, m := range b.p.Mapping {
		rank := 0
		switch u := b.use[m]; {
		case u.main:
			rank = 2
		case isProgram(m.File):
			rank = 1
		}
		if n := b.use[m].samples; rank > bestRank || rank == bestRank && rank > 0 && n > bestSamples {
			first, bestRank, bestSamples = m, rank, n
		}
	}
	place := func(m *profile.Mapping) int {
		switch {
		case m == first:
			return 0
		case m.File == OwnFile:
			return 2
		}
		return 1
	}
	slices.SortStableFunc(b.p.Mapping, func(x, y *profile.Mapping) int { return place(x) - place(y) })
	for i, m := range b.p.Mapping {
		m.ID = uint64(i + 1)
	}
}

// isProgram tells files that may be programs from libraries and from mappings
// that are no files.
func isProgram(file string) bool {
	base := path.Base(file)
	return strings.HasPrefix(file, "/") && file != AnonFile &&
		!strings.HasSuffix(base, ".so") && !strings.Contains(base, ".so.") &&
		!strings.HasPrefix(base, "[") && !strings.HasPrefix(file, "/memfd:")
}
