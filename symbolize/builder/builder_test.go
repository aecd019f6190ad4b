// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/symbolize/debugfile"
	"github.com/lowflame/lowflame/symbolize/elfsym"
	"github.com/lowflame/lowflame/symbolize/index"
)

const confined = "LOWFLAME_TEST_CONFINED"

func TestMain(m *testing.M) {
	switch {
	case len(os.Args) == 2 && os.Args[1] == Worker:
		os.Exit(Main())
	case os.Getenv(confined) != "":
		os.Exit(tryConfined())
	}
	os.Exit(m.Run())
}

// tryConfined confines itself and prints what it can do nevertheless.
func tryConfined() int {
	status, err := os.Open("/proc/self/status")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if err := confine(256<<20, time.Minute); err != nil {
		fmt.Println(err)
		return 1
	}
	if f, err := os.Open("/etc/passwd"); err == nil {
		f.Close()
		fmt.Println("opens files")
	}
	if l, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		l.Close()
		fmt.Println("listens")
	}
	if c, err := net.Dial("udp", "127.0.0.1:9"); err == nil {
		c.Close()
		fmt.Println("sends")
	}
	if exec.Command("/bin/true").Run() == nil {
		fmt.Println("executes")
	}
	done := make(chan error)
	go func() { // on a thread made after
		_, err := os.Create("/tmp/lowflame-confined")
		done <- err
	}()
	if <-done == nil {
		fmt.Println("creates files in a new thread")
	}
	text := make([]byte, 8<<10)
	n, _ := status.ReadAt(text, 0)
	for line := range strings.Lines(string(text[:n])) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		switch {
		case (name == "CapEff" || name == "CapPrm") && strings.Trim(value, "0") != "":
			fmt.Println("has capabilities", value)
		case name == "NoNewPrivs" && value != "1", name == "Seccomp" && value != "2":
			fmt.Println("has", name, value)
		}
	}
	fmt.Println("tried")
	return 0
}

func TestConfine(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = []string{confined + "=1"}
	cmd.SysProcAttr = attributes(nobody()) // as Run does it
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "tried\n" {
		t.Errorf("%v\n%s", err, out)
	}
}

const source = `
static inline __attribute__((always_inline)) int twice(int x) { return x * x + 3; }
__attribute__((noinline)) int calls(int x) {
	return twice(x) ^ 5;
}
int main(int argc, char **argv) { return calls(argc); }
`

// program compiles source and returns it with what was found for it.
func program(t *testing.T) (*os.File, *objfile.Object, *debugfile.Found) {
	t.Helper()
	dir := t.TempDir()
	c, path := filepath.Join(dir, "p.c"), filepath.Join(dir, "p")
	if err := os.WriteFile(c, []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip(err)
	}
	if out, err := exec.CommandContext(t.Context(), "gcc", "-g", "-O2", "-o", path, c).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	o, file, err := objfile.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	found := debugfile.New(debugfile.Config{}).Find(o, path, []string{"/"})
	t.Cleanup(func() {
		found.Close()
		file.Close()
	})
	return file, o, found
}

func output(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "index"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestRun(t *testing.T) {
	file, o, found := program(t)
	out := output(t)
	r, err := Run(t.Context(), Job{Object: file, Found: found, Out: out})
	if err != nil || r.Units == 0 || r.BadUnits != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	st, err := out.Stat()
	if err != nil {
		t.Fatal(err)
	}
	x, err := index.Open(out, st.Size(), index.NewBlocks(1<<20))
	if err != nil {
		t.Fatal(err)
	}
	lines, err := x.Lookup(symbol(t, o, "calls"), nil)
	if err != nil {
		t.Fatal(err)
	}
	last := lines[len(lines)-1]
	if last.Name != "calls" || filepath.Base(last.File) != "p.c" || last.StartLine != 3 {
		t.Errorf("%+v", lines)
	}
}

// symbol returns the address of a function.
func symbol(t *testing.T, o *objfile.Object, name string) stack.LinkAddr {
	t.Helper()
	table, err := elfsym.Build(o)
	if err != nil {
		t.Fatal(err)
	}
	var at stack.LinkAddr
	err = table.All(o, func(f elfsym.Func, is []byte) error {
		if string(is) == name {
			at = f.Start
		}
		return nil
	})
	if err != nil || at == 0 {
		t.Fatalf("symbol %s: %#x, %v", name, uint64(at), err)
	}
	return at
}

func TestRunLimits(t *testing.T) {
	file, _, found := program(t)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		name   string
		ctx    context.Context
		limits Limits
		want   func(error) bool
	}{
		{"memory", t.Context(), Limits{MemoryBytes: 1 << 20}, isLimit},
		{"time", t.Context(), Limits{Time: 1}, isLimit},
		{"canceled", canceled, Limits{}, func(err error) bool { return errors.Is(err, context.Canceled) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Run(tt.ctx, Job{Object: file, Found: found, Out: output(t), Limits: tt.limits})
			if !tt.want(err) {
				t.Error(err)
			}
		})
	}
}

func isLimit(err error) bool {
	var limit *LimitError
	return errors.As(err, &limit)
}

func TestRunGarbage(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "garbage"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.WriteString(f, "\x7fELF"+strings.Repeat("garbage", 1000)); err != nil {
		t.Fatal(err)
	}
	_, err = Run(t.Context(), Job{Object: f, Found: &debugfile.Found{}, Out: output(t)})
	if err == nil || errors.Is(err, ErrStart) || !strings.Contains(err.Error(), "open object") {
		t.Errorf("got %v, want what is wrong with the file", err)
	}
}
