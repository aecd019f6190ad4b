// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lowflame/lowflame/internal/testutil"
	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/symbolize"
)

// TestOpenDebug strips a program as distributions do and names its functions by what
// was stripped.
func TestOpenDebug(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	const source = "static __attribute__((noinline)) int hidden(int x) { return x * x; }\nint main(int n, char **v) { (void)v; return hidden(n); }\n"
	const id = "0123456789abcdef0123456789abcdef01234567"
	debug := filepath.Join(dir, id[:2], id[2:]+".debug")
	if err := os.Mkdir(filepath.Dir(debug), 0o755); err != nil {
		t.Fatal(err)
	}
	run := func(stdin string, command ...string) {
		cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
		cmd.Stdin = strings.NewReader(stdin)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", command, err, out)
		}
	}
	run(source, "gcc", "-O1", "-xc", "-Wl,--build-id=0x"+id, "-o", program, "-")
	whole := testutil.OpenObject(t, program)
	hidden := addressOf(t, whole, "hidden")
	if _, _, err := openDebug(dir, whole); !errors.Is(err, objfile.ErrNotFound) {
		t.Errorf("of a program with symbols: %v", err)
	}
	stripped := filepath.Join(dir, "stripped")
	run("", "objcopy", "--only-keep-debug", program, debug)
	run("", "strip", "-o", stripped, program)
	object := testutil.OpenObject(t, stripped)
	handle, symbols, err := openDebug(dir, object)
	if err != nil {
		t.Fatal(err)
	}
	defer handle.Close()
	s := symbolize.New(symbolize.Config{})
	if lines := s.User(&symbolize.Binary{ID: "bare", Object: object}, hidden); lines != nil {
		t.Errorf("without the debug file: %+v", lines)
	}
	lines := s.User(&symbolize.Binary{ID: "program", Object: object, Debug: symbols}, hidden)
	if len(lines) != 1 || lines[0].Name != "hidden" {
		t.Errorf("with the debug file: %+v, want hidden", lines)
	}

	run(source, "gcc", "-O1", "-xc", "-Wl,--build-id=0x"+strings.Repeat("77", 20), "-o", debug, "-")
	if _, _, err := openDebug(dir, object); err == nil {
		t.Error("a debug file of another program was taken")
	}
	if err := os.Remove(debug); err != nil {
		t.Fatal(err)
	}
	if _, _, err := openDebug(dir, object); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
}

func addressOf(t *testing.T, o *objfile.Object, name string) (addr stack.LinkAddr) {
	t.Helper()
	syms, err := o.Symbols(objfile.SymTab)
	if err != nil {
		t.Fatal(err)
	}
	err = syms.All(func(_ int, s objfile.Symbol) bool {
		if got, err := syms.Name(s.Name); err == nil && got == name {
			addr = s.Value
		}
		return true
	})
	if err != nil || addr == 0 {
		t.Fatalf("no symbol %s: %v", name, err)
	}
	return addr
}
