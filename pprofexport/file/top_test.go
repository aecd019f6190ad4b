// SPDX-License-Identifier: Apache-2.0

package file

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/pprof/profile"

	"github.com/lowflame/lowflame/pprofexport"
	"github.com/lowflame/lowflame/stack"
)

func TestTop(t *testing.T) {
	var b strings.Builder
	if err := Top(&b, scene(t), 4, 0); err != nil {
		t.Fatal(err)
	}
	want := `   flat   flat%      cum    cum%  name
500.0ms  50.00%  540.0ms  54.00%  spin
200.0ms  20.00%  300.0ms  30.00%  inner
100.0ms  10.00%  160.0ms  16.00%  ksys_read
 80.0ms   8.00%   80.0ms   8.00%  Lfoo;.bar
… and 6 more
`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("table (-want +got):\n%s", d)
	}
}

func TestTopWidth(t *testing.T) {
	var b strings.Builder
	if err := Top(&b, scene(t), 0, 50); err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(b.String(), "\n") {
		if utf8.RuneCountInString(line) > 50 {
			t.Errorf("wider than 50: %q", line)
		}
	}
	if !strings.Contains(b.String(), "…") || strings.Contains(b.String(), "[truncated") {
		t.Errorf("table:\n%s", b.String())
	}
}

func TestTopCountsRecursionOnce(t *testing.T) {
	app := &pprofexport.Mapping{End: 0x100, File: "/opt/app"}
	f := frameAt(app, 1, "fib")
	b := testBuilder()
	b.Add(pprofexport.Sample{Frames: []*pprofexport.Frame{f, f, f}, Count: 2, Stop: stack.StopEnd})
	rows, total := topRows(build(t, b))
	if total != 20e6 || len(rows) != 1 || rows[0].flat != 20e6 || rows[0].cum != 20e6 {
		t.Errorf("rows %v of %d", rows, total)
	}
}

func TestTopEmpty(t *testing.T) {
	var b strings.Builder
	if err := Top(&b, &profile.Profile{}, 5, 80); err != nil || b.String() != "flat  flat%  cum  cum%  name\n" {
		t.Errorf("%q, %v", b.String(), err)
	}
}
