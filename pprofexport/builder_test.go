// SPDX-License-Identifier: Apache-2.0

package pprofexport

import (
	"bytes"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/pprof/profile"

	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/symbolize"
)

func testInfo() Info {
	return Info{
		Start:   time.Unix(1700000000, 0),
		Period:  5025125,
		Version: "v0-test",
		Kernel:  "6.18.0",
		Arch:    "amd64",
		Command: []string{"lowflame", "record", "-a"},
	}
}

// scene is a program with a library, an inlined function, a frame without a
// name, JIT code and kernel code.
type scene struct {
	app, libc, jit         *Mapping
	main, work, step, anon *Frame
	unnamed, sysRead       *Frame
}

func newScene() *scene {
	s := &scene{
		libc: &Mapping{Begin: 0x7f0000000000, End: 0x7f0000200000, Off: 0x28000, File: "/usr/lib/libc.so.6", BuildID: "aabb"},
		app:  &Mapping{Begin: 0x400000, End: 0x500000, Off: 0x1000, File: "/opt/app", BuildID: "ccdd", Main: true},
		jit:  AnonMapping(0x7e0000000000, 0x7e0000010000),
	}
	fn := func(name, file string, line, start int64) symbolize.Line {
		return symbolize.Line{Name: name, SystemName: "_Z" + name, File: file, Line: line, StartLine: start}
	}
	s.main = &Frame{Addr: 0x400100, Mapping: s.app, Lines: []symbolize.Line{fn("main", "/src/main.c", 10, 5)}}
	s.work = &Frame{Addr: 0x400200, Mapping: s.app, Lines: []symbolize.Line{
		fn("inner", "/src/inner.h", 3, 1), fn("work", "/src/main.c", 33, 30)}}
	s.step = &Frame{Addr: 0x400300, Mapping: s.app, Lines: []symbolize.Line{fn("work", "/src/main.c", 34, 30)}}
	s.unnamed = &Frame{Addr: 0x7f0000001234, Mapping: s.libc}
	s.anon = &Frame{Addr: 0x7e0000000100, Mapping: s.jit, Lines: []symbolize.Line{{Name: "Lfoo;.bar"}}}
	s.sysRead = &Frame{Addr: 0xffffffff81000010, Mapping: KernelMapping(""), Lines: []symbolize.Line{{Name: "ksys_read"}}}
	return s
}

// finish builds the profile, and fails unless it survives being written and
// read.
func finish(t testing.TB, b *Builder, run Quality) *profile.Profile {
	t.Helper()
	p, err := b.Profile(run)
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if err := p.Write(&buf); err != nil {
		t.Fatal(err)
	}
	back, err := profile.Parse(bytes.NewReader(buf.Bytes()))
	if err != nil {
		t.Fatalf("parse what was written: %v", err)
	}
	ignore := []cmp.Option{
		cmpopts.IgnoreUnexported(profile.Profile{}, profile.ValueType{}, profile.Sample{}, profile.Mapping{},
			profile.Location{}, profile.Line{}, profile.Function{}),
		cmpopts.IgnoreFields(profile.Mapping{}, "KernelRelocationSymbol"),
		cmpopts.EquateEmpty(),
	}
	if d := cmp.Diff(p, back, ignore...); d != "" {
		t.Fatalf("round trip (-built +read):\n%s", d)
	}
	return back
}

func TestProfile(t *testing.T) {
	s := newScene()
	b := NewBuilder(testInfo())
	b.Add(Sample{Frames: []*Frame{s.unnamed, s.work, s.main}, Labels: Labels{PID: 7, Comm: "app"}, Count: 2, Stop: stack.StopEnd})
	b.Add(Sample{Frames: []*Frame{s.sysRead, s.step, s.main}, Labels: Labels{PID: 7, TID: 8, Comm: "app", Thread: "w"}, Count: 1, Stop: stack.StopEnd})
	b.Add(Sample{Frames: []*Frame{s.anon, s.step}, Labels: Labels{PID: 7, Comm: "app"}, Count: 3, Stop: stack.StopNoRule})
	b.Add(Sample{Frames: []*Frame{s.unnamed, s.work, s.main}, Labels: Labels{PID: 7, Comm: "app"}, Count: 5, Stop: stack.StopEnd})
	p := finish(t, b, Quality{Duration: 2 * time.Second})

	if got, want := len(p.Sample), 3; got != want {
		t.Errorf("%d samples, want %d: equal ones must become one", got, want)
	}
	if d := cmp.Diff([]int64{7, 7 * 5025125}, p.Sample[0].Value); d != "" {
		t.Errorf("values of the first sample: %s", d)
	}
	if p.DefaultSampleType != "cpu" || p.Period != 5025125 || p.PeriodType.Type != "cpu" ||
		p.PeriodType.Unit != "nanoseconds" || p.TimeNanos != 1700000000e9 || p.DurationNanos != 2e9 {
		t.Errorf("header: %v %v %v %v %v", p.DefaultSampleType, p.Period, p.PeriodType, p.TimeNanos, p.DurationNanos)
	}
	type flags struct {
		File, BuildID                    string
		Functions, Files, Lines, Inlines bool
	}
	var got []flags
	for _, m := range p.Mapping {
		got = append(got, flags{m.File, m.BuildID, m.HasFunctions, m.HasFilenames, m.HasLineNumbers, m.HasInlineFrames})
	}
	want := []flags{
		{"/opt/app", "ccdd", true, true, true, true},
		{File: "/usr/lib/libc.so.6", BuildID: "aabb"},
		{File: KernelFile, Functions: true},
		{File: AnonFile, Functions: true},
		{File: OwnFile, Functions: true},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("mappings (-want +got):\n%s", d)
	}
	work := p.Sample[0].Location[1]
	if work.Line[0].Function.Name != "inner" || work.Line[1].Function.Name != "work" || work.Line[1].Line != 33 {
		t.Errorf("inlined function must come first: %v", work.Line)
	}
	if f := work.Line[1].Function; f != p.Sample[1].Location[1].Line[0].Function || f.SystemName != "_Zwork" || f.StartLine != 30 {
		t.Errorf("function work must be one: %+v", f)
	}
	if l := p.Sample[0].Location[0]; l.Address != 0x7f0000001234 || len(l.Line) != 0 {
		t.Errorf("unnamed frame: %+v", l)
	}
}

func TestLabels(t *testing.T) {
	s := newScene()
	b := NewBuilder(testInfo())
	b.Add(Sample{Frames: []*Frame{s.main}, Count: 1, Stop: stack.StopReadStack, Labels: Labels{
		PID: 7, TID: 9, Comm: "a\xff\nb", Thread: "t", ContainerID: "c0ffee", Cgroup: "/system.slice/x.service",
		More: []Label{{"k8s.pod", "p"}, {"1st", "x"}, {"comm", "forged"}, {"stop", "forged"}, {"empty", ""}, {"k8s-pod", "second"}},
	}})
	p := finish(t, b, Quality{})
	want := map[string][]string{
		"comm": {"a\ufffd\ufffdb"}, "thread": {"t"}, "container_id": {"c0ffee"}, "cgroup": {"/system.slice/x.service"},
		"stop": {"READ_STACK"}, "k8s_pod": {"p"}, "_1st": {"x"},
	}
	if d := cmp.Diff(want, p.Sample[0].Label); d != "" {
		t.Errorf("labels (-want +got):\n%s", d)
	}
	if d := cmp.Diff(map[string][]int64{"pid": {7}, "tid": {9}}, p.Sample[0].NumLabel); d != "" {
		t.Errorf("numeric labels (-want +got):\n%s", d)
	}
}

func TestTruncatedRoot(t *testing.T) {
	s := newScene()
	for _, off := range []bool{false, true} {
		i := testInfo()
		i.NoTruncatedRoot = off
		b := NewBuilder(i)
		b.Add(Sample{Frames: []*Frame{s.step}, Count: 1, Stop: stack.StopNoRule})
		b.Add(Sample{Frames: []*Frame{s.step}, Count: 1, Stop: stack.StopEnd})
		b.Add(Sample{Count: 1, Stop: stack.StopKthread})
		b.Add(Sample{Count: 1, Stop: stack.StopNoProc})
		p := finish(t, b, Quality{})
		var roots []string
		for _, s := range p.Sample {
			root := s.Location[len(s.Location)-1]
			roots = append(roots, root.Line[len(root.Line)-1].Function.Name)
		}
		want := []string{"[truncated: NO_RULE]", "work", "[no stack]", "[truncated: NO_PROC]"}
		if off {
			want = []string{"work", "work", "[no stack]", "[no stack]"}
		}
		if d := cmp.Diff(want, roots); d != "" {
			t.Errorf("NoTruncatedRoot=%v: roots (-want +got):\n%s", off, d)
		}
		if q := b.Quality(Quality{}); q.Frames != 2 || q.Named != 2 {
			t.Errorf("made-up frames were counted: %d frames, %d named", q.Frames, q.Named)
		}
	}
}

func TestMainFirst(t *testing.T) {
	lib := &Mapping{Begin: 1, End: 10, File: "/lib/libx.so.1"}
	one := &Mapping{Begin: 11, End: 20, File: "/bin/one"}
	two := &Mapping{Begin: 21, End: 30, File: "/bin/two"}
	mainTwo := *two
	mainTwo.Main = true
	tests := []struct {
		name string
		ms   []*Mapping
		want string
	}{
		{"the only program", []*Mapping{KernelMapping(""), lib, AnonMapping(5, 6), one}, "/bin/one"},
		{"the program seen most", []*Mapping{lib, one, two, two}, "/bin/two"},
		{"a process's program beats one seen more", []*Mapping{one, one, lib, &mainTwo}, "/bin/two"},
		{"known to be the program by a later process", []*Mapping{one, one, two, &mainTwo}, "/bin/two"},
		{"kernel only", []*Mapping{nil, KernelMapping("nf_tables")}, "[nf_tables]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := NewBuilder(testInfo())
			b.Add(Sample{Count: 100, Stop: stack.StopNoProc})
			for i, m := range tt.ms {
				b.Add(Sample{Frames: []*Frame{{Addr: uint64(i), Mapping: m}}, Count: 1, Stop: stack.StopEnd})
			}
			p := finish(t, b, Quality{})
			if p.Mapping[0].File != tt.want {
				t.Errorf("first mapping is %s, want %s", p.Mapping[0].File, tt.want)
			}
			if last := p.Mapping[len(p.Mapping)-1].File; last != OwnFile {
				t.Errorf("last mapping is %s", last)
			}
		})
	}
}

func TestSameAddressOtherCode(t *testing.T) {
	b := NewBuilder(testInfo())
	for _, name := range []string{"first", "second", "first", ""} {
		f := &Frame{Addr: 0x10, Mapping: AnonMapping(0, 0x100), Lines: []symbolize.Line{{Name: name}}}
		b.Add(Sample{Frames: []*Frame{f}, Count: 1, Stop: stack.StopEnd})
	}
	p := finish(t, b, Quality{})
	if len(p.Location) != 3 || len(p.Mapping) != 1 || len(p.Sample) != 3 {
		t.Errorf("%d locations, %d mappings, %d samples; want 3, 1, 3", len(p.Location), len(p.Mapping), len(p.Sample))
	}
}

func TestMergeKeepsKernelAddresses(t *testing.T) {
	var ps []*profile.Profile
	for _, addr := range []uint64{0xffffffff81000010, 0xffffffff82000010} {
		b := NewBuilder(testInfo())
		b.Add(Sample{Frames: []*Frame{{Addr: addr, Mapping: KernelMapping("")}}, Count: 1, Stop: stack.StopKthread})
		ps = append(ps, finish(t, b, Quality{}))
	}
	p, err := profile.Merge(ps)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Mapping) != 1 || p.Location[1].Address != 0xffffffff82000010 {
		t.Errorf("merged: %d mappings, second address %#x", len(p.Mapping), p.Location[1].Address)
	}
}

func TestCountsSaturate(t *testing.T) {
	s := newScene()
	b := NewBuilder(testInfo())
	for _, n := range []int64{math.MaxInt64, math.MaxInt64, -5, 0} {
		b.Add(Sample{Frames: []*Frame{s.main, nil}, Count: n, Stop: stack.StopEnd})
	}
	p := finish(t, b, Quality{})
	if d := cmp.Diff([]int64{math.MaxInt64, math.MaxInt64}, p.Sample[0].Value); d != "" {
		t.Error(d)
	}
}

func BenchmarkAdd(b *testing.B) {
	s := newScene()
	builder := NewBuilder(testInfo())
	frames := []*Frame{s.sysRead, s.unnamed, s.work, s.step, s.anon, s.work, s.step, s.work, s.step, s.main}
	var pid uint32
	for b.Loop() {
		pid++
		builder.Add(Sample{Frames: frames, Labels: Labels{PID: pid % 1000, Comm: "app"}, Count: 1, Stop: stack.StopEnd})
	}
	if n := len(builder.p.Sample); n > 1000 {
		b.Fatalf("%d samples", n)
	}
}
