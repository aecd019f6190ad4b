// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const sumSource = `
static inline __attribute__((always_inline)) unsigned step(unsigned n) { return n * 2654435761u + 1; }
__attribute__((noinline)) unsigned sum(unsigned n) { unsigned s = 0; while (n--) s ^= step(s); return s; }
int main(void) { return sum(400000000u) == 1; }
`

// TestSymbolizeLater records a program without names, takes it away and finds the
// names where it is then, in a worker.
func TestSymbolizeLater(t *testing.T) {
	dir := t.TempDir()
	source, program := filepath.Join(dir, "sum.c"), filepath.Join(dir, "sum")
	if err := os.WriteFile(source, []byte(sumSource), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "gcc", "-O1", "-g", "-o", program, source).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	bare, full := filepath.Join(dir, "bare.pb.gz"), filepath.Join(dir, "full.pb.gz")
	if out, err := lowflame(t, "record", "-q", "--symbols=none", "-o", bare, "--", program).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if text := raw(t, bare); strings.Contains(text, "sum.c") || strings.Contains(text, " step ") {
		t.Errorf("names without --symbols:\n%s", text)
	}
	if err := os.MkdirAll(filepath.Join(dir, "moved"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(program, filepath.Join(dir, "moved", "renamed")); err != nil {
		t.Fatal(err)
	}
	symbolize := func(args ...string) string {
		args = append([]string{"symbolize", "--symbol-cache", filepath.Join(dir, "cache"), "-o", full, bare}, args...)
		out, err := lowflame(t, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	if said := symbolize(); !strings.Contains(said, program+": nothing named: ") {
		t.Errorf("of a program that is gone: %q", said)
	}
	if said := symbolize("--debug-dir", filepath.Join(dir, "moved")); !strings.Contains(said, "with lines and inlined calls, from ") {
		t.Errorf("of one that was found: %q", said)
	}
	text := raw(t, full)
	for _, want := range []string{"step " + source + ":2", "sum " + source + ":3", "main " + source + ":4"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

// raw returns what pprof finds in a profile.
func raw(t *testing.T, path string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "tool", "pprof", "-raw", "-symbolize=none", path).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}
