// SPDX-License-Identifier: Apache-2.0

package layers

import (
	"os"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func TestModule(t *testing.T) {
	found, files, err := Check(os.DirFS("../.."), Lowflame())
	if err != nil {
		t.Fatal(err)
	}
	if files < 10 {
		t.Errorf("read %d files: this is not the module's root", files)
	}
	for _, v := range found {
		t.Error(v)
	}
}

func TestCheck(t *testing.T) {
	const module = "github.com/lowflame/lowflame"
	tests := []struct {
		name string
		file string
		src  string
		want []string
	}{
		{"down", "agent/a.go", `import _ "` + module + `/bpf/unwinder"`, nil},
		{"up", "stack/a.go", `import _ "` + module + `/objfile"`, []string{
			"stack/a.go:2: stack may not import objfile"}},
		{"sideways", "unwind/a.go", `import _ "` + module + `/process"`, []string{
			"unwind/a.go:2: unwind may not import process"}},
		{"below in the same tree", "pprofexport/file/a.go", `import _ "` + module + `/pprofexport"`, nil},
		{"a test may look sideways", "unwind/a_test.go", `import _ "` + module + `/process"`, nil},
		{"a test may not wire", "unwind/a_test.go", `import _ "` + module + `/agent"`, []string{
			"unwind/a_test.go:2: unwind may not import agent"}},
		{"new package", "utils/a.go", ``, []string{
			"utils/a.go:1: package utils is in no layer: give it one in internal/layers/rules.go"}},
		{"module at home", "bpf/unwinder/a.go", `import _ "github.com/cilium/ebpf/link"`, nil},
		{"module away", "agent/a.go", `import _ "github.com/cilium/ebpf/link"`, []string{
			"agent/a.go:2: agent may not import github.com/cilium/ebpf: its home is bpf/unwinder"}},
		{"module of a similar name", "bpf/unwinder/a.go", `import _ "github.com/cilium/ebpf-go"`, []string{
			"bpf/unwinder/a.go:2: github.com/cilium/ebpf-go has no home: name one in internal/layers/rules.go"}},
		{"module for tests", "stack/a.go", `import _ "github.com/google/go-cmp/cmp"`, []string{
			"stack/a.go:2: github.com/google/go-cmp is for tests only"}},
		{"module in a test", "stack/a_test.go", `import _ "github.com/google/pprof/profile"`, nil},
		{"os/exec", "process/a.go", `import _ "os/exec"`, []string{
			"process/a.go:2: process may not import os/exec"}},
		{"os/exec in a command", "cmd/lowflame/a.go", `import _ "os/exec"`, nil},
		{"math/rand", "agent/a.go", `import _ "math/rand/v2"`, []string{
			"agent/a.go:2: agent may not import math/rand/v2"}},
		{"cgo", "symbolize/a.go", `import "C"`, []string{"symbolize/a.go:2: symbolize may not import C"}},
		{"debug/dwarf", "symbolize/dwarf/a.go", `import _ "debug/dwarf"`, []string{
			"symbolize/dwarf/a.go:2: symbolize/dwarf may not import debug/dwarf"}},
		{"debug/dwarf as an oracle", "symbolize/dwarf/a_test.go", `import _ "debug/dwarf"`, nil},
		{"elf constants", "objfile/a.go", "import \"debug/elf\"\nvar _ = elf.EM_X86_64", nil},
		{"elf parser", "objfile/a.go", "import e \"debug/elf\"\nvar _, _ = e.Open(\"x\")", []string{
			"objfile/a.go:3: elf.Open in objfile: debug/elf is not hardened; use package objfile"}},
		{"goroutine", "process/a.go", "func f() {\n\tgo f()\n}", []string{
			"process/a.go:3: go statement in process: only agent, cmd/... start goroutines"}},
		{"goroutine of a group", "process/a.go", "func f() {\n\tvar g sync.WaitGroup\n\tg.Go(f)\n}", []string{
			"process/a.go:4: call of Go in process: only agent, cmd/... start goroutines"}},
		{"goroutine in the agent", "agent/a.go", "func f() {\n\tgo f()\n}", nil},
		{"goroutine in a test", "process/a_test.go", "func f() {\n\tgo f()\n}", nil},
		{"nested module", "tools/a.go", `import _ "os/exec"`, nil},
		{"testdata", "objfile/testdata/a.go", `import _ "plugin"`, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tree := fstest.MapFS{
				tt.file:        {Data: []byte("package p\n" + tt.src + "\n")},
				"tools/go.mod": {Data: []byte("module tools\n")},
			}
			found, _, err := Check(tree, Lowflame())
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, v := range found {
				got = append(got, v.String())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("violations (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCheckSyntaxError(t *testing.T) {
	tree := fstest.MapFS{"stack/a.go": {Data: []byte("package stack\nfunc {")}}
	if _, _, err := Check(tree, Lowflame()); err == nil {
		t.Error("no error for a file that does not parse")
	}
}
