// SPDX-License-Identifier: Apache-2.0

// Package pprofexport turns symbolized samples into a profile.Profile that
// every pprof tool reads: mappings with build IDs, inlined functions, labels,
// and comments that say how good the profile is.
package pprofexport

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/google/pprof/profile"

	"github.com/lowflame/lowflame/stack"
)

// Info is what is known of a profile before its first sample.
type Info struct {
	Start  time.Time
	Period time.Duration // CPU time a sample stands for, at least 1 ns
	// Version of lowflame, release of the kernel (uname -r), architecture of
	// the host, and the command line, for comments. Empty ones are left out.
	Version, Kernel, Arch string
	Command               []string
	// Event says what was counted to take samples and how often, for comments.
	Event string
	// NoTruncatedRoot leaves out the root frame "[truncated: REASON]" that
	// incomplete stacks get. Without it such a stack looks as if its outermost
	// known function were where the thread began.
	NoTruncatedRoot bool
}

// Builder makes one profile. It is not safe for concurrent use.
type Builder struct {
	info      Info
	p         *profile.Profile
	quality   Quality
	mappings  map[Mapping]*profile.Mapping
	byPointer map[*Mapping]*profile.Mapping
	functions functions
	locations map[locationKey]*profile.Location
	frames    map[*Frame]*profile.Location
	samples   map[string]*profile.Sample
	use       map[*profile.Mapping]*mappingUse
	key       []byte
}

// NewBuilder returns a builder of an empty profile.
func NewBuilder(i Info) *Builder {
	i.Period = max(i.Period, 1)
	cpu := profile.ValueType{Type: "cpu", Unit: "nanoseconds"}
	period := cpu
	p := &profile.Profile{
		SampleType:        []*profile.ValueType{{Type: "samples", Unit: "count"}, &cpu},
		DefaultSampleType: "cpu",
		PeriodType:        &period,
		Period:            i.Period.Nanoseconds(),
		TimeNanos:         i.Start.UnixNano(),
	}
	return &Builder{
		info:      i,
		p:         p,
		mappings:  make(map[Mapping]*profile.Mapping),
		byPointer: make(map[*Mapping]*profile.Mapping),
		functions: functions{p: p, byKey: make(map[profileFunction]*profile.Function)},
		locations: make(map[locationKey]*profile.Location),
		frames:    make(map[*Frame]*profile.Location),
		samples:   make(map[string]*profile.Sample),
		use:       make(map[*profile.Mapping]*mappingUse),
	}
}

// Add adds s to the profile. Samples with the same frames and labels become
// one. A count that is not positive adds nothing.
func (b *Builder) Add(s Sample) {
	if s.Count <= 0 {
		return
	}
	if s.Stop >= stack.NumStops {
		s.Stop = stack.StopNone
	}
	locations := make([]*profile.Location, 0, len(s.Frames)+1)
	for _, f := range s.Frames {
		if f == nil {
			continue
		}
		l := b.location(f)
		locations = append(locations, l)
		b.count(l, s.Count)
	}
	if l := b.marker(&s, len(locations)); l != nil {
		locations = append(locations, l)
	}
	b.quality.Stops[s.Stop] += uint64(s.Count)

	labels := labelsOf(&s)
	b.key = b.key[:0]
	for _, l := range locations {
		b.key = binary.AppendUvarint(b.key, l.ID)
	}
	b.key = labels.appendKey(append(b.key, 0)) // location IDs start at 1
	sample := b.samples[string(b.key)]
	if sample == nil {
		sample = &profile.Sample{Location: locations, Value: make([]int64, 2)}
		labels.set(sample)
		b.samples[string(b.key)] = sample
		b.p.Sample = append(b.p.Sample, sample)
	}
	sample.Value[0] = addSat(sample.Value[0], s.Count)
	sample.Value[1] = mulSat(sample.Value[0], b.p.Period)
}

// count notes n samples of l.
func (b *Builder) count(l *profile.Location, n int64) {
	b.quality.Frames += uint64(n)
	if len(l.Line) > 0 {
		b.quality.Named += uint64(n)
	}
	if l.Mapping != nil {
		u := b.use[l.Mapping]
		u.samples = addSat(u.samples, n)
	}
}

// marker returns the root frame for s if it is to have one: because its stack
// is incomplete, or because it has none of its n frames left to show.
func (b *Builder) marker(s *Sample, n int) *profile.Location {
	switch {
	case !s.Stop.Complete() && !b.info.NoTruncatedRoot:
		return b.ownFrame(1+uint64(s.Stop), "[truncated: "+s.Stop.String()+"]")
	case n == 0:
		return b.ownFrame(0x800, "[no stack]")
	}
	return nil
}

// Quality returns run, which the caller measured, completed with what the
// builder has counted so far.
func (b *Builder) Quality(run Quality) Quality {
	run.Stops, run.Frames, run.Named = b.quality.Stops, b.quality.Frames, b.quality.Named
	return run
}

// Profile returns the profile of all samples added, with run completed by
// [Builder.Quality] in its comments. The builder must not be used afterwards.
// An error means a bug in Builder: the profile is not valid.
func (b *Builder) Profile(run Quality) (*profile.Profile, error) {
	q := b.Quality(run)
	b.p.DurationNanos = q.Duration.Nanoseconds()
	b.p.Comments = comments(&b.info, &q)
	setFlags(b.p)
	b.mainFirst()
	if err := b.p.CheckValid(); err != nil {
		return nil, fmt.Errorf("check profile: %w", err)
	}
	return b.p, nil
}

func addSat(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// mulSat multiplies two positive numbers.
func mulSat(a, b int64) int64 {
	if a > math.MaxInt64/b {
		return math.MaxInt64
	}
	return a * b
}
