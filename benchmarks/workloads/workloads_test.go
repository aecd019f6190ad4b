// SPDX-License-Identifier: Apache-2.0

package workloads

import (
	"os/exec"
	"strings"
	"testing"
)

// TestReports builds and runs every program for a moment and checks that its
// truth is one: shares that account for nearly all CPU time it used.
func TestReports(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs every workload")
	}
	tools := Native()
	for _, tool := range []string{tools.CC, tools.CXX, tools.Musl, tools.Rustc, tools.Go} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("no compiler: %v", err)
		}
	}
	src, err := Extract(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	for _, w := range All(tools) {
		t.Run(w.Name, func(t *testing.T) {
			p, err := w.BuildIn(t.Context(), tools, src, out)
			if err != nil {
				t.Fatal(err)
			}
			r, sum := reportOf(t, p, 0.3)
			if sum < 0.9 || sum > 1.001 {
				// On a busy machine, starting takes a larger part of a short run.
				t.Logf("shares add up to %.4f of %.1f ms CPU: once more, and longer", sum, float64(r.CPUNS)/1e6)
				r, sum = reportOf(t, p, 2)
			}
			if sum < 0.9 || sum > 1.001 {
				t.Errorf("shares add up to %.4f of %.1f ms CPU, want nearly 1", sum, float64(r.CPUNS)/1e6)
			}
			hottest := r.Hottest()
			if text := hottest.Chain.String(); !strings.Contains(text, hottest.Function) {
				t.Errorf("chain of %s is %s", hottest.Function, text)
			}
		})
	}
}

// reportOf runs p and returns what it reports, and the sum of all shares of it.
func reportOf(t *testing.T, p Program, seconds float64) (r *Report, sum float64) {
	t.Helper()
	r, err := p.Run(t.Context(), seconds)
	if err != nil {
		t.Fatal(err)
	}
	for _, truth := range r.Truth {
		sum += truth.Share
	}
	return r, sum
}

func TestNamesDiffer(t *testing.T) {
	seen := make(map[string]bool)
	for _, w := range All(Native()) {
		if seen[w.Name] || w.Name == "" || w.About == "" {
			t.Errorf("workload %q: name not unique, or without a word about it", w.Name)
		}
		seen[w.Name] = true
	}
}

func TestParseReport(t *testing.T) {
	good := `{"pid":7,"cpu_ns":10,"truth":[{"function":"a","share":0.2,"chain":["a"]},{"function":"b","share":0.8,"chain":["b"]}]}`
	r, err := ParseReport([]byte("noise\n" + good + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	if r.PID != 7 || r.Hottest().Function != "b" {
		t.Errorf("got pid %d, hottest %q; want 7, b", r.PID, r.Hottest().Function)
	}
	for _, bad := range []string{"", "noise", good + "\nnoise", `{"pid":0}`, `{"pid":1,"cpu_ns":1}`, "{", strings.Replace(good, `["a"]`, "[]", 1)} {
		if _, err := ParseReport([]byte(bad)); err == nil {
			t.Errorf("ParseReport(%q) succeeded", bad)
		}
	}
}
