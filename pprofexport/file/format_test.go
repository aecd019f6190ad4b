// SPDX-License-Identifier: Apache-2.0

package file

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/pprof/profile"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

var update = flag.Bool("update", false, "rewrite golden files")

func TestParseFormat(t *testing.T) {
	tests := []struct {
		name, path string
		want       Format
	}{
		{"", "a.pb.gz", Pprof}, {"", "dir.html/a.PPROF", Pprof}, {"", "-", Pprof},
		{"", "a.folded", Folded}, {"", "a.txt", Folded}, {"", "a.collapsed", Folded},
		{"", "a.json", Speedscope}, {"", "a.speedscope.json", Speedscope}, {"", "a.html", FlamegraphHTML},
		{"folded", "a.html", Folded}, {"flamegraph-html", "-", FlamegraphHTML}, {"pprof", "profile", Pprof},
		{"", "profile", ""}, {"", "a.gz", ""}, {"", "a.svg", ""}, {"svg", "a.html", ""}, {"", "", ""},
	}
	for _, tt := range tests {
		got, err := ParseFormat(tt.name, tt.path)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("ParseFormat(%q, %q) = %q, %v; want %q", tt.name, tt.path, got, err, tt.want)
		}
		if err == nil {
			continue
		}
		for _, f := range []Format{Pprof, Folded, Speedscope, FlamegraphHTML} {
			if !strings.Contains(err.Error(), string(f)) {
				t.Errorf("error does not name the choice %s: %v", f, err)
			}
		}
	}
}

func encode(t testing.TB, p *profile.Profile, o Options) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Encode(&b, p, o); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestFolded(t *testing.T) {
	golden := filepath.Join("testdata", "scene.folded")
	got := encode(t, scene(t), Options{Format: Folded})
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("folded (-want +got):\n%s", d)
	}
}

func TestFoldedRoots(t *testing.T) {
	tests := []struct {
		root Root
		want string
	}{
		{RootNone, "\nmain;spin 50\n"},
		{RootProcess, "\napp;main;spin 50\n"},
		{RootThread, "\napp;worker;main;spin 50\n"},
	}
	for _, tt := range tests {
		got := "\n" + string(encode(t, scene(t), Options{Format: Folded, Root: tt.root}))
		if !strings.Contains(got, tt.want) {
			t.Errorf("root %d: no line %q in:%s", tt.root, tt.want, got)
		}
		for _, line := range strings.Split(strings.TrimSpace(got), "\n") {
			if !regexp.MustCompile(`^[^\x00-\x1f]+ [1-9][0-9]*$`).MatchString(line) {
				t.Errorf("not a folded line: %q", line)
			}
		}
	}
}

func TestSpeedscope(t *testing.T) {
	schema, err := jsonschema.NewCompiler().Compile(filepath.Join("testdata", "speedscope.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	empty := build(t, testBuilder())
	for name, p := range map[string]*profile.Profile{"scene": scene(t), "forest": forest(t, 2000), "empty": empty, "zero": {}} {
		data := encode(t, p, Options{Format: Speedscope, Title: "a title"})
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(doc); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := schema.Validate(map[string]any{"profiles": []any{}}); err == nil {
			t.Error("the schema accepts anything")
		}
	}

	var f speedscopeFile
	if err := json.Unmarshal(encode(t, scene(t), Options{Format: Speedscope}), &f); err != nil {
		t.Fatal(err)
	}
	p := f.Profiles[0]
	if p.Unit != "nanoseconds" || p.EndValue != 100*10e6 || len(p.Samples) != len(p.Weights) || f.Exporter != "lowflame v0-test" {
		t.Errorf("unit %s, end %d, %d samples, %d weights, exporter %s", p.Unit, p.EndValue, len(p.Samples), len(p.Weights), f.Exporter)
	}
	var names []string
	for _, i := range p.Samples[1] {
		names = append(names, f.Shared.Frames[i].Name)
	}
	if d := cmp.Diff([]string{"app", "main", "work", "inner"}, names); d != "" {
		t.Errorf("second stack, outermost first (-want +got):\n%s", d)
	}
	if fr := f.Shared.Frames[p.Samples[1][2]]; fr.File != "/src/work.c" || fr.Line != 7 {
		t.Errorf("frame %+v", fr)
	}
}

// TestGoToolPprof reads what is written with the tool most people will use.
func TestGoToolPprof(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cpu.pb.gz")
	if err := Write(path, scene(t), Options{Format: Pprof}); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		args []string
		want []string // regular expressions
	}{
		{[]string{"-top"}, []string{`Type: cpu`, `File: app`, `Build ID: ccdd`, `500ms 50\.00% 50\.00% +540ms 54\.00% +spin`, `inner \(inline\)`}},
		{[]string{"-top", "-sample_index=samples"}, []string{`Type: samples`, `\b50 50\.00%.* spin`}},
		{[]string{"-raw"}, []string{`\[kernel\.kallsyms\]`, `ccdd \[FN\]\[FL\]\[LN\]\[IN\]`, `libc\.so\.6 aabb`, `\[truncated: NO_RULE\]`, `PeriodType: cpu nanoseconds`, `Period: 10000000`, `inner .*\n +work `}},
		{[]string{"-peek", "spin"}, []string{`main`, `spin`}},
		{[]string{"-comments"}, []string{`quality: 10\.0 s · 100 samples · 93\.0 % complete stacks`}},
		{[]string{"-tags"}, []string{`comm: Total`, `stop: Total`, `NO_RULE`, `pid: Total`}},
		{[]string{"-top", "-tagfocus=comm=^app$"}, []string{`840ms, 84\.00% of`}},
		{[]string{"-top", "-tagfocus=pid=8"}, []string{`150ms, 15\.00% of`}},
		{[]string{"-top", "-tagfocus=pid=8:9"}, []string{`150ms, 15\.00% of`}},
		{[]string{"-top", "-tagroot=comm"}, []string{`other app`}},
	}
	for _, tt := range tests {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			cmd := exec.Command("go", append(append([]string{"tool", "pprof", "-symbolize=none"}, tt.args...), path)...)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, want := range tt.want {
				if !regexp.MustCompile(want).Match(out) {
					t.Errorf("no match of %q in:\n%s", want, out)
				}
			}
		})
	}
}
