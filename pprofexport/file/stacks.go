// SPDX-License-Identifier: Apache-2.0

package file

import (
	"path"
	"strings"

	"github.com/google/pprof/profile"

	"github.com/lowflame/lowflame/pprofexport"
)

// kind is what sort of code a frame is. The order is that of kindNames and of
// KINDS in assets/flame.js.
type kind uint8

const (
	kindUser kind = iota
	kindInlined
	kindKernel
	kindJIT
	kindUnnamed // user code without a name
	kindProcess // no code: the name of a process or thread
	kindMarker  // no code: a frame the profiler made up
)

// frameKey is what makes two frames the same function.
type frameKey struct {
	name, file, binary string
	kind               kind
}

// frame is a function as it is shown, with the lines it was seen at.
type frame struct {
	frameKey
	startLine        int64 // 0 if unknown
	minLine, maxLine int64 // 0 if unknown
}

// stacks turns the samples of a profile into lists of functions.
type stacks struct {
	root      Root
	value     int // index of the value that frames are weighed by
	count     int // index of the number of samples, -1 if there is none
	frames    []frame
	byKey     map[frameKey]int
	locations map[*profile.Location][]int
}

// newStacks returns stacks for p. They are weighed by its default sample type
// or, as pprof does, by the last one.
func newStacks(p *profile.Profile, root Root) *stacks {
	s := &stacks{
		root:      root,
		value:     len(p.SampleType) - 1,
		count:     -1,
		byKey:     make(map[frameKey]int),
		locations: make(map[*profile.Location][]int),
	}
	for i, t := range p.SampleType {
		if t.Type == p.DefaultSampleType {
			s.value = i
		}
		if t.Type == "samples" && t.Unit == "count" {
			s.count = i
		}
	}
	return s
}

// weight returns the value and the count of a sample. A value that is not
// positive, as in the difference of two profiles, cannot be drawn and is 0.
func (s *stacks) weight(sample *profile.Sample) (value, count int64) {
	if s.value < 0 || sample.Value[s.value] <= 0 {
		return 0, 0
	}
	if s.count >= 0 {
		count = max(0, sample.Value[s.count])
	}
	return sample.Value[s.value], count
}

// of appends to dst the indexes into s.frames of a sample's stack, outermost
// first, inlined functions as frames of their own.
func (s *stacks) of(dst []int, sample *profile.Sample) []int {
	if s.root != RootNone {
		dst = s.label(dst, sample, "comm")
	}
	if s.root == RootThread {
		dst = s.label(dst, sample, "thread")
	}
	for i := len(sample.Location) - 1; i >= 0; i-- {
		dst = append(dst, s.location(sample.Location[i])...)
	}
	return dst
}

func (s *stacks) label(dst []int, sample *profile.Sample, key string) []int {
	if v := sample.Label[key]; len(v) > 0 {
		dst = append(dst, s.frame(frameKey{name: pprofexport.Clean(v[0]), kind: kindProcess}, 0, 0))
	}
	return dst
}

func (s *stacks) location(l *profile.Location) []int {
	if f, ok := s.locations[l]; ok {
		return f
	}
	k := frameKey{kind: kindOf(l.Mapping)}
	if l.Mapping != nil && k.kind != kindMarker {
		k.binary = pprofexport.Clean(l.Mapping.File)
	}
	outer := k.kind
	var out []int
	for i := len(l.Line) - 1; i >= 0; i-- {
		f := l.Line[i].Function
		k.name, k.file = pprofexport.Clean(f.Name), pprofexport.Clean(f.Filename)
		if k.kind = outer; outer == kindUser && i < len(l.Line)-1 {
			k.kind = kindInlined
		}
		out = append(out, s.frame(k, l.Line[i].Line, f.StartLine))
	}
	if out == nil {
		k.name = addressName(l)
		if k.kind == kindUser {
			k.kind = kindUnnamed
		}
		out = []int{s.frame(k, 0, 0)}
	}
	s.locations[l] = out
	return out
}

// frame returns the index of the frame k, seen at line.
func (s *stacks) frame(k frameKey, line, start int64) int {
	i, ok := s.byKey[k]
	if !ok {
		i = len(s.frames)
		s.byKey[k] = i
		s.frames = append(s.frames, frame{frameKey: k})
	}
	f := &s.frames[i]
	if line > 0 {
		f.maxLine = max(f.maxLine, line)
		if f.minLine == 0 || line < f.minLine {
			f.minLine = line
		}
	}
	if f.startLine == 0 {
		f.startLine = start
	}
	return i
}

// addressName names code that has no function: after its file, in brackets, as
// go tool pprof does. One name for each address would hide how much of the time a
// program without symbols takes.
func addressName(l *profile.Location) string {
	m := l.Mapping
	if m == nil || m.File == "" {
		return "[unknown]"
	}
	name := shortName(m.File)
	if strings.HasPrefix(name, "[") {
		return name
	}
	return "[" + name + "]"
}

// shortName is the last part of a path; what is no path stays.
func shortName(file string) string {
	if file == pprofexport.AnonFile {
		return "[anon]"
	}
	return pprofexport.Clean(path.Base(file))
}

// kindOf tells code by the name of its mapping, as perf and Builder write it.
func kindOf(m *profile.Mapping) kind {
	if m == nil {
		return kindUser
	}
	switch f := m.File; {
	case f == pprofexport.OwnFile:
		return kindMarker
	case f == pprofexport.AnonFile, strings.HasPrefix(f, "[anon"),
		strings.HasPrefix(f, "/memfd:"), strings.HasPrefix(f, "/dev/zero"):
		return kindJIT
	case f == "[vdso]", f == "[vsyscall]", f == "[stack]", f == "[heap]", f == "[uprobes]":
		return kindUser
	case strings.HasPrefix(f, "["):
		return kindKernel
	}
	return kindUser
}
