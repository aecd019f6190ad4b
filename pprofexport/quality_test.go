// SPDX-License-Identifier: Apache-2.0

package pprofexport

import (
	"math"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/lowflame/lowflame/stack"
)

func TestQualityLine(t *testing.T) {
	stops := func(end, noRule uint64) (s [stack.NumStops]uint64) {
		s[stack.StopEnd], s[stack.StopNoRule] = end, noRule
		return s
	}
	tests := []struct {
		name string
		q    Quality
		want string
	}{
		{"as designed",
			Quality{Duration: 10 * time.Second, Stops: stops(2015, 16), Frames: 1000, Named: 968, CPU: 40 * time.Millisecond, MemoryBytes: 48 << 20},
			"10.0 s · 2031 samples · 99.2 % complete stacks · 0 lost · 96.8 % symbolized · lowflame used 0.4 % of one CPU, 48 MiB"},
		{"one stack in 2500 is missing: not 100.0 %",
			Quality{Duration: time.Second, Stops: stops(2499, 1), Frames: 100000, Named: 99999, CPU: 1, MemoryBytes: 1},
			"1.0 s · 2500 samples · 99.9 % complete stacks · 0 lost · 99.9 % symbolized · lowflame used 0.1 % of one CPU, 1 MiB"},
		{"all complete",
			Quality{Duration: time.Second, Stops: stops(3, 0), Frames: 3, Named: 3, CPU: time.Second, MemoryBytes: 1<<20 + 1},
			"1.0 s · 3 samples · 100.0 % complete stacks · 0 lost · 100.0 % symbolized · lowflame used 100.0 % of one CPU, 2 MiB"},
		{"drops and fires nobody saw are lost",
			Quality{Duration: time.Second, Stops: stops(3, 0), Fired: 10, Filtered: 1, Drops: map[string]uint64{"a": 2, "b": 1}},
			"1.0 s · 3 samples · 100.0 % complete stacks · 6 lost"},
		{"a timer had stopped",
			Quality{Duration: time.Second, Stops: stops(3, 0), Gaps: Gaps{Restarted: 1, CPUs: 1, Unsampled: 2401 * time.Millisecond}},
			"1.0 s · 3 samples · 100.0 % complete stacks · 0 lost · up to 2.5 s of a CPU not sampled"},
		{"nothing", Quality{}, "0.0 s · 0 samples · 0 lost"},
		{"big numbers",
			Quality{Stops: stops(math.MaxUint64-1, 1), Frames: math.MaxUint64, Named: math.MaxUint64 / 2},
			"0.0 s · 18446744073709551615 samples · 99.9 % complete stacks · 0 lost · 49.9 % symbolized"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.q.String(); got != tt.want {
				t.Errorf("\n got %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestComments(t *testing.T) {
	s := newScene()
	info := testInfo()
	info.Command = []string{"lowflame", "record", "a\nquality: forged"}
	info.Event = "cpu-clock at 199 Hz"
	b := NewBuilder(info)
	b.Add(Sample{Frames: []*Frame{s.main, s.unnamed}, Count: 6, Stop: stack.StopEnd})
	b.Add(Sample{Frames: []*Frame{s.main}, Count: 1, Stop: stack.StopTooDeep})
	p := finish(t, b, Quality{
		Duration: time.Second, Expected: 13, Fired: 12, Filtered: 2, CPU: 5, MemoryBytes: 9,
		Drops: map[string]uint64{"RING_FULL": 3, "NEW_STACK": 0},
		Gaps:  Gaps{Restarted: 2, CPUs: 1, Unsampled: time.Second, LowestHz: 50},
	})
	want := map[string]string{
		"quality":  "1.0 s · 7 samples · 85.7 % complete stacks · 3 lost · up to 1.0 s of a CPU not sampled · 53.8 % symbolized · lowflame used 0.1 % of one CPU, 1 MiB",
		"lowflame": "v0-test",
		"host":     "6.18.0 amd64",
		"command":  "lowflame record a\ufffdquality: forged",
		"fires":    "expected=13 fired=12 filtered=2 samples=7 dropped=3 unaccounted=0",
		"stops":    "END=6 TOO_DEEP=1",
		"drops":    "NEW_STACK=0 RING_FULL=3",
		"frames":   "all=13 named=7",
		"cost":     "cpu_ns=5 memory_bytes=9",
		"event":    "cpu-clock at 199 Hz",
		"gaps":     "restarted=2 cpus=1 unsampled_ns=1000000000 lowest_hz=50",
		"none":     "",
	}
	for key, value := range want {
		if got := Comment(p, key); got != value {
			t.Errorf("%s is %q, want %q", key, got, value)
		}
	}
	checkBalance(t, p)
	whole := NewBuilder(info)
	whole.Add(Sample{Frames: []*Frame{s.main}, Count: 1, Stop: stack.StopEnd})
	if got := Comment(finish(t, whole, Quality{}), "gaps"); got != "" {
		t.Errorf("without gaps the comment is %q", got)
	}
}

// checkBalance fails unless fires = samples + filtered + drops, from the
// comments alone, as anyone can who has only the file.
func checkBalance(t testing.TB, p *profile.Profile) {
	t.Helper()
	fires := Counts(p, "fires")
	sum := fires["filtered"]
	for _, key := range []string{"stops", "drops"} {
		for _, n := range Counts(p, key) {
			sum += n
		}
	}
	if fires["fired"] == 0 || fires["fired"] != sum {
		t.Errorf("%d fired, %d accounted for", fires["fired"], sum)
	}
}
