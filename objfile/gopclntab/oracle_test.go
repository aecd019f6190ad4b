// SPDX-License-Identifier: Apache-2.0

package gopclntab

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/lowflame/lowflame/internal/testutil"
	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/stack"
)

// build is one way to build the oracle.
type build struct {
	name string
	cgo  bool
	args []string
	// after is run on the program to make the file that is read, from the one
	// that answers. "OUT" stands for the file.
	after []string
	// bare takes the section headers away too.
	bare bool
	// arch is the machine, "" for this one.
	arch string
}

var builds = []build{
	{name: "plain"},
	{name: "without symbols", args: []string{"-ldflags=-s -w"}},
	{name: "stripped", after: []string{"strip", "-s", "OUT"}},
	{name: "stripped of section headers", after: []string{"strip", "-s", "OUT"}, bare: true},
	{name: "pie", args: []string{"-buildmode=pie"}, after: []string{"strip", "-s", "OUT"}},
	{name: "cgo", cgo: true, args: []string{"-ldflags=-linkmode=external"}},
	{name: "cgo stripped", cgo: true, args: []string{"-ldflags=-linkmode=external"}, after: []string{"strip", "-s", "OUT"}},
	{name: "cgo pie stripped", cgo: true, args: []string{"-buildmode=pie", "-ldflags=-linkmode=external"}, after: []string{"strip", "-s", "OUT"}},
	{name: "cgo pie bare", cgo: true, args: []string{"-buildmode=pie", "-ldflags=-linkmode=external"}, after: []string{"strip", "-s", "OUT"}, bare: true},
	{name: "cgo static pie", cgo: true, args: []string{"-buildmode=pie", "-ldflags=-linkmode=external -extldflags=-static-pie"}},
}

// compile returns the program and the file made of it.
func (b build) compile(t testing.TB, goTool string) (program, file string) {
	t.Helper()
	dir := t.TempDir()
	program, file = filepath.Join(dir, "oracle"), filepath.Join(dir, "file")
	cgo := "CGO_ENABLED=0"
	if b.cgo {
		cgo = "CGO_ENABLED=1"
	}
	cmd := exec.Command(goTool, append(append([]string{"build", "-o", program}, b.args...), ".")...)
	cmd.Dir = filepath.Join("testdata", "oracle")
	cmd.Env = append(os.Environ(), cgo, "GOFLAGS=", "GOENV=off", "GO111MODULE=off", "GOARCH="+cmp.Or(b.arch, runtime.GOARCH))
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, msg)
	}
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	if b.after != nil {
		tmp := filepath.Join(dir, "after")
		if err := os.WriteFile(tmp, data, 0o755); err != nil {
			t.Fatal(err)
		}
		args := strings.Split(strings.ReplaceAll(strings.Join(b.after, "\x00"), "OUT", tmp), "\x00")
		if msg, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, msg)
		}
		if data, err = os.ReadFile(tmp); err != nil {
			t.Fatal(err)
		}
	}
	if b.bare {
		clear(data[0x28:0x30]) // e_shoff
		clear(data[0x3c:0x40]) // e_shnum, e_shstrndx
	}
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return program, file
}

func openFile(t testing.TB, path string) (*objfile.Object, *Table) {
	t.Helper()
	o := testutil.OpenObject(t, path)
	table, err := Open(o)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return o, table
}

// answer is what testdata/oracle writes.
type answer struct {
	Off        uint64
	Skip, Loop bool
	Entry      uint64
	Lines      []Line
}

// askOracle runs the program with file offsets.
func askOracle(t *testing.T, program string, offs []uint64) []answer {
	t.Helper()
	var in, out bytes.Buffer
	for _, off := range offs {
		fmt.Fprintf(&in, "%x\n", off)
	}
	cmd := exec.Command(program)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = &in, &out, os.Stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("oracle: %v", err)
	}
	var answers []answer
	for s := bufio.NewScanner(&out); s.Scan(); {
		var a answer
		if err := json.Unmarshal(s.Bytes(), &a); err != nil {
			t.Fatal(err)
		}
		answers = append(answers, a)
	}
	if len(answers) != len(offs) {
		t.Fatalf("%d answers to %d questions", len(answers), len(offs))
	}
	return answers
}

// addresses returns n addresses in the code: one in 4 the entry of a function, the
// others anywhere.
func addresses(t testing.TB, table *Table, n int) []stack.LinkAddr {
	rnd := rand.New(rand.NewPCG(5, 6))
	start, end := table.Text()
	addrs := make([]stack.LinkAddr, n)
	for i := range addrs {
		addrs[i] = start + stack.LinkAddr(rnd.Uint64N(uint64(end-start)))
		if i%4 == 0 {
			f, err := table.Func(rnd.IntN(table.NumFuncs()))
			if err != nil {
				t.Fatal(err)
			}
			addrs[i] = f.Entry
		}
	}
	return addrs
}

func TestAgreesWithRuntime(t *testing.T) {
	for _, b := range builds {
		t.Run(b.name, func(t *testing.T) {
			if _, err := exec.LookPath("gcc"); err != nil && b.cgo {
				t.Skip("no C compiler for cgo")
			}
			program, file := b.compile(t, "go")
			compareWithOracle(t, program, file, false)
		})
	}
}

// otherReleases returns the go tools of other releases of Go: those that are named
// in the environment, or those that Debian's packages install.
func otherReleases() []string {
	tools := strings.Fields(os.Getenv("LOWFLAME_TEST_GO_TOOLS"))
	if len(tools) == 0 {
		tools, _ = filepath.Glob("/usr/lib/go-1.*/bin/go") // the pattern is good
	}
	return tools
}

// Other releases of Go have other formats of the table.
func TestAgreesWithOtherReleases(t *testing.T) {
	tools := otherReleases()
	if len(tools) == 0 {
		t.Skip("no other release in /usr/lib/go-1.*, none named in LOWFLAME_TEST_GO_TOOLS")
	}
	for _, tool := range tools {
		version, err := exec.Command(tool, "env", "GOVERSION").Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range builds {
			t.Run(strings.TrimSpace(string(version))+" "+b.name, func(t *testing.T) {
				if strings.Contains(b.name, "pie") && string(version) < "go1.18" {
					t.Skip("before Go 1.18 position-independent files had all entry points in relocations")
				}
				program, file := b.compile(t, tool)
				// Before, CallersFrames did not follow inlined calls.
				compareWithOracle(t, program, file, string(version) < "go1.23")
			})
		}
	}
}

// compareWithOracle compares 10,000 addresses. Of all functions at an address old
// oracles know the innermost, by the name that is printed, with "..." for type
// arguments, and of the outermost the entry point.
func compareWithOracle(t *testing.T, program, file string, old bool) {
	t.Helper()
	o, table := openFile(t, file)
	addrs := addresses(t, table, 10000)
	offs := make([]uint64, len(addrs))
	for i, addr := range addrs {
		off, ok := o.FileOff(addr)
		if !ok {
			t.Fatalf("code at %#x is not in the file", addr)
		}
		offs[i] = uint64(off)
	}
	var took time.Duration
	asked, inlined, wrong := 0, 0, 0
	first, _ := table.Text()
	for i, a := range askOracle(t, program, offs) {
		start := time.Now()
		got, err := table.Lines(addrs[i])
		took += time.Since(start)
		if len(got) == 0 || err != nil {
			t.Fatalf("Lines(%#x) = %v, %v", addrs[i], got, err)
		}
		if a.Skip || a.Loop {
			continue
		}
		asked++
		if len(got) > 1 {
			inlined++
		}
		f, _, err := table.FuncAt(addrs[i])
		if entry, ok := o.FileOff(f.Entry); err != nil || !ok || uint64(entry) != a.Entry {
			t.Errorf("FuncAt(%#x) = entry %#x, %v; want file offset %#x", addrs[i], f.Entry, err, a.Entry)
		}
		// The name of the first function is at offset 0, which the runtime takes for
		// no name (moduledata.funcName).
		if last := len(got) - 1; last == len(a.Lines)-1 && a.Lines[last].Func == "" && f.Entry == first {
			got[last].Func = ""
		}
		if old {
			got = got[:1]
			got[0].StartLine = a.Lines[0].StartLine
		}
		if diff := gocmp.Diff(normalize(a.Lines, old), normalize(got, old)); diff != "" {
			if wrong++; wrong <= 5 {
				t.Errorf("Lines(%#x) (-runtime +ours)\n%s", addrs[i], diff)
			}
		}
	}
	if wrong > 0 || asked < 9000 || inlined < 500 {
		t.Errorf("%d of %d addresses differ, %d with inlined calls", wrong, asked, inlined)
	}
	t.Logf("%d functions, %d addresses compared, %d with inlined calls, %v", table.NumFuncs(), asked, inlined, took)
}

// normalize makes lines look as those of the oracle do.
func normalize(lines []Line, printed bool) []Line {
	for i := range lines {
		l := &lines[i]
		l.Wrapper = false
		if l.File == "" {
			l.File = "?"
		}
		if printed {
			l.Func = shorten(l.Func)
		}
	}
	return lines
}

// shorten replaces type arguments with "...", as tables did before Go 1.21.
func shorten(name string) string {
	if from, to := strings.IndexByte(name, '['), strings.LastIndexByte(name, ']'); 0 <= from && from < to {
		return name[:from] + "[...]" + name[to+1:]
	}
	return name
}
