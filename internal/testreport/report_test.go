// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestRun runs real modules through the real go command: the events are its
// to define.
func TestRun(t *testing.T) {
	const head = "package x\nimport \"testing\"\n"
	tests := []struct {
		name, src string
		ok        bool
		want      []string
	}{
		{
			"pass", head + "func TestA(t *testing.T) { t.Run(\"sub\", func(t *testing.T) {}) }", true,
			[]string{"\n1 passed, 0 failed, 0 skipped\n"},
		},
		{
			"skip", head + "func TestA(t *testing.T) {}\nfunc TestB(t *testing.T) { t.Skip(\"needs a moon\") }", true,
			[]string{"skipped:\n  x TestB: needs a moon\n", "\n1 passed, 0 failed, 1 skipped\n"},
		},
		{
			"fail", head + "func TestA(t *testing.T) { t.Run(\"sub\", func(t *testing.T) { t.Error(\"boom\") }) }", false,
			[]string{"boom\n", "failed:\n  x TestA/sub\n", "\n0 passed, 1 failed, 0 skipped\n"},
		},
		{
			"build", head + "func TestA(t *testing.T) { undefined() }", false,
			[]string{"undefined: undefined", "failed:\n  x\n", "\n0 passed, 1 failed, 0 skipped\n"},
		},
		{
			"panic", head + "func TestA(t *testing.T) {}\nfunc TestB(t *testing.T) { panic(\"boom\") }", false,
			[]string{"boom", "failed:\n  x TestB\n", "\n1 passed, 1 failed, 0 skipped\n"},
		},
		{
			"exit", head + "import \"os\"\nfunc TestA(t *testing.T) { println(\"bye\"); os.Exit(3) }", false,
			[]string{"bye", "1 failed"},
		},
		{"nothing", head + "func Test(t *testing.T) {}", true, []string{"1 passed"}},
		{"no tests", "package x", false, []string{"0 passed, 0 failed, 0 skipped"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "go.mod"), "module x\n\ngo 1.26\n")
			write(t, filepath.Join(dir, "x_test.go"), tt.src)
			cmd := exec.CommandContext(t.Context(), "go", "test", "-json", "./...")
			cmd.Dir = dir
			events, err := cmd.Output()
			if len(events) == 0 {
				t.Fatalf("go test -json printed nothing: %v", err)
			}
			var out strings.Builder
			ok, err := run(strings.NewReader(string(events)), &out)
			if err != nil {
				t.Fatal(err)
			}
			if ok != tt.ok {
				t.Errorf("ok = %t, want %t", ok, tt.ok)
			}
			for _, want := range tt.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("output lacks %q:\n%s", want, out.String())
				}
			}
		})
	}
}

// TestRunTruncated is a run killed half way: what has not ended has not passed.
func TestRunTruncated(t *testing.T) {
	events := `{"Action":"start","Package":"x"}
{"Action":"run","Package":"x","Test":"TestA"}
{"Action":"pass","Package":"x","Test":"TestA"}
{"Action":"run","Package":"x","Test":"TestB"}
{"Action":"output","Package":"x","Test":"TestB","Output":"hanging\n"}
`
	var out strings.Builder
	ok, err := run(strings.NewReader(events), &out)
	if err != nil {
		t.Fatal(err)
	}
	if ok || !strings.Contains(out.String(), "UNFINISHED: x TestB\n    hanging") {
		t.Errorf("ok = %t:\n%s", ok, out.String())
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
