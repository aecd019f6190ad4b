// SPDX-License-Identifier: Apache-2.0

package pprofexport

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/google/pprof/profile"

	"github.com/lowflame/lowflame/stack"
)

// comments returns the comments of a profile, "key: value" each. They are few
// because go tool pprof prints them all above every report:
//
//	quality: the quality line
//	lowflame: version
//	host: release of the kernel and architecture
//	command: command line
//	event: cpu-clock at 199 Hz
//	fires: expected=13 fired=12 filtered=2 samples=7 dropped=3 unaccounted=0
//	stops: END=6 TOO_DEEP=1
//	drops: NEW_STACK=0 RING_FULL=3
//	frames: all=13 named=7
//	cost: cpu_ns=30000000 memory_bytes=41943040
//	gaps: restarted=2 cpus=1 unsampled_ns=2500000000 lowest_hz=50
//
// stops has the reasons that occurred, drops all that were counted. fired is
// missing, and unaccounted 0, when Quality.Fired is 0; expected is missing when it
// is not known. gaps is there if there were any, lowest_hz if a rate was lower.
func comments(i *Info, q *Quality) []string {
	var c []string
	add := func(key string, values ...string) {
		if v := strings.TrimSpace(strings.Join(values, " ")); v != "" {
			c = append(c, Clean(key+": "+v))
		}
	}
	add("quality", q.String())
	add("lowflame", i.Version)
	add("host", i.Kernel, i.Arch)
	add("command", i.Command...)
	add("event", i.Event)
	var fired, stops, drops []string
	if q.Expected > 0 {
		fired = append(fired, fmt.Sprintf("expected=%d", q.Expected))
	}
	if q.Fired > 0 {
		fired = append(fired, fmt.Sprintf("fired=%d", q.Fired))
	}
	add("fires", append(fired, fmt.Sprintf("filtered=%d samples=%d dropped=%d unaccounted=%d",
		q.Filtered, q.Samples(), q.Dropped(), q.Unaccounted()))...)
	for s, n := range q.Stops {
		if n > 0 {
			stops = append(stops, fmt.Sprintf("%s=%d", stack.Stop(s), n))
		}
	}
	add("stops", stops...)
	for _, reason := range slices.Sorted(maps.Keys(q.Drops)) {
		drops = append(drops, fmt.Sprintf("%s=%d", labelKey(reason), q.Drops[reason]))
	}
	add("drops", drops...)
	add("frames", fmt.Sprintf("all=%d named=%d", q.Frames, q.Named))
	add("cost", fmt.Sprintf("cpu_ns=%d memory_bytes=%d", q.CPU.Nanoseconds(), q.MemoryBytes))
	add("gaps", q.Gaps.words()...)
	return c
}

func (g *Gaps) words() []string {
	var w []string
	if g.Restarted > 0 || g.Unsampled > 0 {
		w = append(w, fmt.Sprintf("restarted=%d cpus=%d unsampled_ns=%d", g.Restarted, g.CPUs, g.Unsampled.Nanoseconds()))
	}
	if g.LowestHz > 0 {
		w = append(w, fmt.Sprintf("lowest_hz=%d", g.LowestHz))
	}
	return w
}

// Comment returns the value of the first comment "key: value" in p, or "".
func Comment(p *profile.Profile, key string) string {
	for _, c := range p.Comments {
		if value, ok := strings.CutPrefix(c, key+": "); ok {
			return value
		}
	}
	return ""
}

// Counts returns the numbers of the comment "key: name=number …" in p: fires,
// stops, drops, frames, cost or gaps. Words that are not of that form are skipped.
func Counts(p *profile.Profile, key string) map[string]int64 {
	counts := make(map[string]int64)
	for _, word := range strings.Fields(Comment(p, key)) {
		name, number, _ := strings.Cut(word, "=")
		if n, err := strconv.ParseInt(number, 10, 64); err == nil {
			counts[name] = n
		}
	}
	return counts
}
