// SPDX-License-Identifier: Apache-2.0

package accuracy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/lowflame/lowflame/benchmarks/workloads"
)

const testPeriod = 2 * time.Millisecond

// testReport is the truth of a process that used 2 s, 70 % of it in hot.
func testReport(t *testing.T) *workloads.Report {
	t.Helper()
	const text = `{"pid":42,"cpu_ns":2000000000,
		"truth":[{"function":"hot","share":0.7,"chain":["_start","main","f*2","hot"]},
			{"function":"copy","under":true,"share":0.3,"chain":["_start","main","copy","..."]}],
		"present":[["_start","main","copy","read","[kernel]"]]}`
	r, err := workloads.ParseReport([]byte(strings.Join(strings.Fields(text), "")))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// testProfile makes a profile of process 42 from "count: root … leaf" lines.
// Words that begin with "k:" are kernel functions.
func testProfile(lines ...string) *profile.Profile {
	p := &profile.Profile{
		SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}},
		PeriodType: &profile.ValueType{Type: "cpu", Unit: "nanoseconds"},
		Period:     int64(testPeriod), TimeNanos: 1, DurationNanos: 2e9,
		Mapping: []*profile.Mapping{
			{ID: 1, Start: 0x1000, Limit: 0x9000, File: "/bin/x"},
			{ID: 2, Start: 1 << 63, Limit: 1<<64 - 1, File: "[kernel.kallsyms]"},
			{ID: 3, Start: 0, Limit: 0x1000, File: "[lowflame]"},
		},
	}
	for _, line := range lines {
		words := strings.Fields(line)
		var count int64
		fmt.Sscan(words[0], &count)
		s := &profile.Sample{
			Value:    []int64{count, count * p.Period},
			NumLabel: map[string][]int64{"pid": {42}},
			Label:    map[string][]string{"comm": {"x"}, "thread": {"worker-0"}},
		}
		for _, word := range slices.Backward(words[1:]) {
			s.Location = append(s.Location, testLocation(p, word))
		}
		p.Sample = append(p.Sample, s)
	}
	return p
}

// testLocation adds a location for "function" or, with inlining, "outer>inner".
func testLocation(p *profile.Profile, word string) *profile.Location {
	l := &profile.Location{ID: uint64(len(p.Location) + 1), Mapping: p.Mapping[0], Address: 0x1000 + uint64(len(p.Location))}
	if kernel, ok := strings.CutPrefix(word, "k:"); ok {
		word, l.Mapping, l.Address = kernel, p.Mapping[1], 1<<63+l.Address
	}
	if reason, ok := strings.CutPrefix(word, "truncated:"); ok {
		word, l.Mapping, l.Address = "[truncated: "+reason+"]", p.Mapping[2], 7
	}
	for _, name := range slices.Backward(strings.Split(word, ">")) {
		f := &profile.Function{ID: uint64(len(p.Function) + 1), Name: name}
		p.Function = append(p.Function, f)
		l.Line = append(l.Line, profile.Line{Function: f})
	}
	p.Location = append(p.Location, l)
	return l
}

func TestCheck(t *testing.T) {
	const (
		hot  = "_start main f f hot"
		read = "_start main copy read k:entry k:read"
	)
	tests := []struct {
		name  string
		lines []string
		want  string // begins the only problem, "" for none
	}{
		{"right", []string{"700 " + hot, "300 " + read}, ""},
		{"inlined frames count", []string{"700 _start main>f f hot", "300 " + read}, ""},
		{"within three points", []string{"672 " + hot, "328 " + read}, ""},
		{"interrupted in the kernel", []string{"690 " + hot, "10 " + hot + " k:irq", "300 " + read}, ""},
		{"0.4 % truncated", []string{"696 " + hot, "4 truncated:NO_RULE f hot", "300 " + read}, ""},
		{"0.6 % truncated", []string{"694 " + hot, "6 truncated:NO_RULE f hot", "300 " + read}, "99.40 % of 1000 user stacks complete"},
		{"a level lost in 2 % of hot", []string{"686 " + hot, "14 _start main f hot", "300 " + read}, "14 stacks are wrong"},
		{"root lost without a word", []string{"680 " + hot, "20 f f hot", "300 " + read}, "20 stacks are wrong"},
		{"one caller missing below another leaf", []string{"700 " + hot, "299 " + read, "1 _start f clock"}, "1 stacks are wrong"},
		{"a root that is none", []string{"700 " + hot, "299 " + read, "1 strange clock"}, "1 stacks are wrong"},
		{"right as far as it goes", []string{"699 " + hot, "1 truncated:NO_RULE f f hot", "300 " + read}, ""},
		{"cut off and wrong", []string{"699 " + hot, "1 truncated:NO_RULE copy f hot", "300 " + read}, "1 stacks are wrong"},
		{"no kernel frames", []string{"700 " + hot, "300 _start main copy read"}, "0.00 % of the samples have the stack"},
		{"a quarter of the samples lost", []string{"525 " + hot, "225 " + read}, "750 samples of 2ms are 1.500 s, the process used 2.000 s"},
		{"another process", nil, "no samples of process 42"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rec := FromProfile(testProfile(tt.lines...), 42)
			r := Check(rec, testReport(t))
			switch {
			case tt.want == "" && len(r.Problems) > 0:
				t.Errorf("problems %q, want none", r.Problems)
			case tt.want != "" && (len(r.Problems) == 0 || !strings.HasPrefix(r.Problems[0], tt.want)):
				t.Errorf("problems %q, want the first to begin with %q", r.Problems, tt.want)
			}
		})
	}
}

func TestCheckShareOff(t *testing.T) {
	r := Check(FromProfile(testProfile("660 _start main f f hot", "340 _start main copy read k:read"), 42), testReport(t))
	if len(r.Problems) != 2 || !strings.HasPrefix(r.Problems[0], "hot has 66.00 % of the samples, the truth is 70.00 %") ||
		!strings.HasPrefix(r.Problems[1], "copy has 34.00 %") {
		t.Errorf("problems %q, want one for hot and one for copy", r.Problems)
	}
}

func TestCheckOtherProcess(t *testing.T) {
	p := testProfile("700 _start main f f hot")
	if rec := FromProfile(p, 41); len(rec.Samples) != 0 {
		t.Errorf("%d samples of process 41, want none", len(rec.Samples))
	}
}

func TestCheckProfile(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(*profile.Profile)
		want  string
	}{
		{"right", func(*profile.Profile) {}, ""},
		{"value without period", func(p *profile.Profile) { p.Sample[0].Value[1]++ }, "a sample has the values"},
		{"thread name is no UTF-8", func(p *profile.Profile) { p.Sample[0].Label["thread"] = []string{"a) R 1\n\xff"} }, "value of label thread"},
		{"address outside mapping", func(p *profile.Profile) { p.Location[0].Address = 0x9000 }, "address 0x9000 is not in its mapping"},
		{"location without ID", func(p *profile.Profile) { p.Location[0].ID = 0 }, "profile is not valid"},
		{"one value", func(p *profile.Profile) {
			p.SampleType = p.SampleType[:1]
			p.Sample[0].Value = p.Sample[0].Value[:1]
		}, "sample types are"},
		{"no time", func(p *profile.Profile) { p.TimeNanos = 0 }, "period"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := testProfile("700 _start main f f hot k:irq")
			tt.spoil(p)
			problems := CheckProfile(p)
			switch {
			case tt.want == "" && len(problems) > 0:
				t.Errorf("problems %q, want none", problems)
			case tt.want != "" && (len(problems) != 1 || !strings.HasPrefix(problems[0], tt.want)):
				t.Errorf("problems %q, want one that begins with %q", problems, tt.want)
			}
		})
	}
}

func TestCheckBuildID(t *testing.T) {
	const self = "/proc/self/exe"
	want, err := gnuBuildID(self)
	if err != nil {
		t.Fatal(err)
	}
	if want == "" {
		t.Skip("the test binary has no GNU build ID")
	}
	p := testProfile("700 main hot")
	p.Mapping[0].File, p.Mapping[0].BuildID = self, want
	if problems := CheckProfile(p); len(problems) > 0 {
		t.Errorf("problems %q, want none", problems)
	}
	p.Mapping[0].BuildID = want[2:]
	if problems := CheckProfile(p); len(problems) != 1 || !strings.Contains(problems[0], "has build ID") {
		t.Errorf("problems %q, want one about the build ID", problems)
	}
}

func TestAccounting(t *testing.T) {
	tests := []struct {
		name, comments, want string
	}{
		{"exact", "fires: fired=1100 filtered=90 samples=1000 dropped=10;drops: FULL=4 RATE=6", ""},
		{"one fire unaccounted", "fires: fired=1101 filtered=90 samples=1000 dropped=10;drops: FULL=10", "timers fired 1101 times"},
		{"profile holds less", "fires: fired=1001 filtered=0 samples=1001 dropped=0", "the profile has 1000 samples and says 1001"},
		{"drop without a reason", "fires: fired=1001 filtered=0 samples=1000 dropped=1;drops: FULL=0", "1 dropped, 0 by reason"},
		{"fires not counted", "fires: filtered=0 samples=1000 dropped=0", "timers fired 0 times"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := testProfile("1000 main hot")
			p.Comments = strings.Split(tt.comments, ";")
			problems := ReadAccounting(p).Check(p)
			switch {
			case tt.want == "" && len(problems) > 0:
				t.Errorf("problems %q, want none", problems)
			case tt.want != "" && (len(problems) != 1 || !strings.HasPrefix(problems[0], tt.want)):
				t.Errorf("problems %q, want one that begins with %q", problems, tt.want)
			}
		})
	}
}

func TestCheckThreads(t *testing.T) {
	rec := FromProfile(testProfile("980 main hot", "20 main hot"), 42)
	rec.Samples[1].Thread = "main"
	if problems := CheckThreads(rec, []string{"worker-0"}); len(problems) > 0 {
		t.Errorf("problems %q, want none", problems)
	}
	if problems := CheckThreads(rec, []string{"worker-0", "worker-1"}); len(problems) != 1 {
		t.Errorf("problems %q, want one about worker-1", problems)
	}
	rec.Samples[0].Thread = "?"
	if problems := CheckThreads(rec, []string{"worker-0"}); len(problems) != 2 {
		t.Errorf("problems %q, want two", problems)
	}
}
