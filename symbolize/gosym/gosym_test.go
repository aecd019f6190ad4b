// SPDX-License-Identifier: Apache-2.0

package gosym

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/lowflame/lowflame/internal/testutil"
	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/objfile/gopclntab"
)

func open(t *testing.T, path string) *objfile.Object {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		t.Skip(err)
	}
	return testutil.OpenObject(t, path)
}

func TestLines(t *testing.T) {
	o := open(t, "/proc/self/exe")
	c := New(0)
	for i := range 3 {
		lines, err := c.Lines("self", o, o.Entry)
		if err != nil || len(lines) != 1 || !strings.HasPrefix(lines[0].Func, "_rt0_") {
			t.Errorf("the entry point is %v, %v", lines, err)
		}
		if lines, err := c.Lines("self", o, 1); lines != nil || err != nil {
			t.Errorf("outside of all code: %v, %v", lines, err)
		}
		c.Trim()
		if n, opens := c.Stats(); n != 1 || opens != 1 {
			t.Errorf("round %d: %d tables, opened %d times", i, n, opens)
		}
	}
}

func TestNoGoProgram(t *testing.T) {
	o := open(t, "/usr/bin/true")
	c := New(0)
	for range 3 {
		if lines, err := c.Lines("true", o, o.Entry); lines != nil || !errors.Is(err, gopclntab.ErrNoTable) {
			t.Errorf("Lines = %v, %v; want ErrNoTable", lines, err)
		}
	}
	if _, opens := c.Stats(); opens != 1 {
		t.Errorf("looked for a table %d times", opens)
	}
}

func TestBounded(t *testing.T) {
	o := open(t, filepath.Join(runtime.GOROOT(), "bin/gofmt")) //nolint:staticcheck // tests run where they are built
	c := New(2)
	for i := range 5 {
		if _, err := c.Lines(fmt.Sprint(i), o, o.Entry); err != nil {
			t.Fatal(err)
		}
	}
	if n, _ := c.Stats(); n != 2 {
		t.Errorf("%d tables kept, want 2", n)
	}
}
