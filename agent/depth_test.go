// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/lowflame/lowflame/bpf/unwinder"
)

const deepSource = `
volatile unsigned long sink;
__attribute__((noinline)) void deep_leaf(void) { for (;;) sink++; }
__attribute__((noinline)) int deeper(int n) { if (n) sink += deeper(n - 1); else deep_leaf(); return sink + n; }
int main(void) { return deeper(3000); }`

// TestTooDeep holds that a stack deeper than is walked keeps its innermost frames,
// all there is room for, and says so at its root.
func TestTooDeep(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("sampling needs root")
	}
	pid := start(t, t.TempDir(), "deep", deepSource, "-fno-optimize-sibling-calls")
	burned(t, pid, 100*time.Millisecond) // all its frames are there
	p := recordDuring(t, Config{Frequency: 199, Window: 200 * time.Millisecond, PIDs: []uint32{pid}, NoKernel: true}, func(context.Context) {
		burned(t, pid, cpuTime(t, pid)+300*time.Millisecond)
	})
	if len(p.Sample) == 0 {
		t.Fatal("no samples")
	}
	for _, s := range p.Sample {
		names := make([]string, 0, len(s.Location))
		for _, l := range s.Location {
			names = append(names, nameOf(l))
		}
		if n := len(names); n != unwinder.MaxUserFrames+1 || names[n-1] != "[truncated: TOO_DEEP]" || names[0] != "deep_leaf" || names[n-2] != "deeper" {
			t.Fatalf("%d frames from %s to %s, %s: want %d from deep_leaf to deeper and [truncated: TOO_DEEP]",
				n, names[0], names[max(n-2, 0)], names[n-1], unwinder.MaxUserFrames)
		}
	}
}

func nameOf(l *profile.Location) string {
	if len(l.Line) == 0 {
		return ""
	}
	return l.Line[0].Function.Name
}
