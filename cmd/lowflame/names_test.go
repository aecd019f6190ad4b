// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const fib = `function fib(n) {
  if (n < 2)
    return n;
  return fib(n - 1) + fib(n - 2);
}
const end = Date.now() + 2500;
while (Date.now() < end) fib(24);
`

// TestRecordNodeDump records node while it writes a jitdump: its functions have names
// and lines.
func TestRecordNodeDump(t *testing.T) {
	needRoot(t)
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("needs node")
	}
	dir := t.TempDir()
	script, out := filepath.Join(dir, "fibonacci.js"), filepath.Join(dir, "out.pb.gz")
	if err := os.WriteFile(script, []byte(fib), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := lowflame(t, "record", "-q", "-o", out, "--", node, "--perf-prof", script)
	cmd.Dir = dir // node leaves its dump and a log there
	if stderr, code := finish(t, cmd); code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	var all, lines int64
	for _, s := range read(t, out).Sample {
		for _, l := range s.Location {
			if len(l.Line) == 0 || l.Line[0].Function.Name != "fib" {
				continue
			}
			all += s.Value[0]
			f := l.Line[0]
			switch {
			case f.Function.Filename != script || f.Function.StartLine != 1:
				t.Fatalf("fib is at %s:%d", f.Function.Filename, f.Function.StartLine)
			case f.Line >= 1 && f.Line <= 5:
				lines += s.Value[0]
			case f.Line != 0:
				t.Fatalf("line %d of fib", f.Line)
			}
			break
		}
	}
	t.Logf("%d samples in fib, %d with a line", all, lines)
	if all < 50 || lines*10 < all*9 {
		t.Errorf("%d samples in fib, %d with a line", all, lines)
	}
}

func TestRecordDemangleFlag(t *testing.T) {
	stderr, code := finish(t, lowflame(t, "record", "-a", "--demangle", "pretty"))
	if code != 2 || !strings.Contains(stderr, "--demangle") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

func TestKernelHint(t *testing.T) {
	if got := kernelHint(nil); got != "" {
		t.Errorf("%q", got)
	}
	if got := kernelHint(errors.New("hidden")); !strings.Contains(got, "hidden") || !strings.Contains(got, "doctor") {
		t.Errorf("%q", got)
	}
}
