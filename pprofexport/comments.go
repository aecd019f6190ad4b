// SPDX-License-Identifier: Apache-2.0

package pprofexport

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/pprof/profile"

	"github.com/lowflame/lowflame/stack"
)

// comments returns the comments of a profile, "key: value" each:
//
//	quality      the quality line
//	lowflame     version
//	kernel, arch of the host
//	command      command line
//	fired, filtered, samples, lost, unaccounted    counts, see Quality
//	frames, frames_named                           counts, see Quality
//	stop.NAME    samples whose walk ended for that reason, if any
//	drop.REASON  samples dropped for that reason, also when 0
//	cpu_ns, memory_bytes                           cost
func comments(i *Info, q *Quality) []string {
	var c []string
	add := func(key string, value any) {
		c = append(c, Clean(fmt.Sprintf("%s: %v", key, value)))
	}
	text := func(key, value string) {
		if value != "" {
			add(key, value)
		}
	}
	add("quality", q)
	text("lowflame", i.Version)
	text("kernel", i.Kernel)
	text("arch", i.Arch)
	text("command", strings.Join(i.Command, " "))
	if q.Fired > 0 {
		add("fired", q.Fired)
	}
	add("filtered", q.Filtered)
	add("samples", q.Samples())
	add("lost", q.Lost())
	add("unaccounted", q.Unaccounted())
	add("frames", q.Frames)
	add("frames_named", q.Named)
	for s, n := range q.Stops {
		if n > 0 {
			add("stop."+stack.Stop(s).String(), n)
		}
	}
	for _, reason := range slices.Sorted(maps.Keys(q.Drops)) {
		add("drop."+labelKey(reason), q.Drops[reason])
	}
	add("cpu_ns", q.CPU.Nanoseconds())
	add("memory_bytes", q.MemoryBytes)
	return c
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
