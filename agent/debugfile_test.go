// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-kit/log"

	"github.com/lowflame/lowflame/internal/testutil"
	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/process"
	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/symbolize"
	"github.com/lowflame/lowflame/symbolize/debugfile"
)

// TestAddDebug names a function of a stripped program by its debug file in the root
// of a container, and by what is compressed in the program.
func TestAddDebug(t *testing.T) {
	root := t.TempDir()
	const script = `cd "$1"; mkdir -p opt usr/lib/debug/.build-id/01
gcc -O1 -xc -Wl,--build-id=0x0123456789 -o whole -
objcopy --only-keep-debug whole usr/lib/debug/.build-id/01/23456789.debug
strip -o opt/stripped whole
objcopy -S --keep-symbol=hidden usr/lib/debug/.build-id/01/23456789.debug mini
xz mini; objcopy --add-section .gnu_debugdata=mini.xz opt/stripped opt/mini; rm mini.xz`
	cmd := exec.CommandContext(t.Context(), "sh", "-ec", script, "sh", root)
	cmd.Stdin = strings.NewReader("static __attribute__((noinline)) int hidden(int x) { return x * x; }\n" +
		"int main(int n, char **v) { (void)v; return hidden(n); }\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	whole := testutil.OpenObject(t, filepath.Join(root, "whole"))
	addr := addressOf(t, whole, "hidden")
	f := newFiles(nil, process.NewTable("/proc"), log.NewNopLogger())
	for _, tt := range []struct {
		program string
		roots   []string
		source  debugfile.Source
	}{
		{"/opt/stripped", []string{root, "/"}, debugfile.SourceBuildID},
		{"/opt/mini", []string{t.TempDir(), "/"}, debugfile.SourceMini},
	} {
		object := testutil.OpenObject(t, root+tt.program)
		loaded := &file{object: object, path: tt.program, binary: &symbolize.Binary{ID: tt.program, Object: object}}
		f.byID[identity{ino: uint64(len(f.byID))}] = loaded
		f.addDebug(loaded, tt.roots)
		if loaded.debug == nil || loaded.debug.Source != tt.source {
			t.Errorf("%s: found %+v", tt.program, loaded.debug)
			continue
		}
		lines := symbolize.New(symbolize.Config{}).User(loaded.binary, addr)
		if len(lines) != 1 || lines[0].Name != "hidden" {
			t.Errorf("%s: %+v, want hidden", tt.program, lines)
		}
	}
	if f.debugs != 2 {
		t.Errorf("%d debug files counted, want 2", f.debugs)
	}
	if err := f.close(); err != nil {
		t.Error(err)
	}
	loaded := &file{object: whole, path: "/whole", binary: &symbolize.Binary{ID: "whole", Object: whole}}
	if f.addDebug(loaded, []string{root}); loaded.debug != nil || loaded.binary.Debug != nil {
		t.Errorf("of a program with symbols: %+v", loaded.debug)
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
