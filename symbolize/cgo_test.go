// SPDX-License-Identifier: Apache-2.0

package symbolize

import (
	"debug/elf"
	"os"
	"path/filepath"
	"testing"

	"github.com/lowflame/lowflame/stack"
)

const cgoSource = `package main

/*
#include <stdlib.h>
static int __attribute__((noinline)) c_part(int n) { return n + rand(); }
int c_entry(int n) { return c_part(n); }
int c_entry(int n);
*/
import "C"

//go:noinline
func goPart(n int) int { return int(C.c_entry(C.int(n))) }

func main() { println(goPart(1)) }
`

// TestCgo has Go code named by Go's table and C code by symbols, in a program that
// the system linker made and that can be loaded anywhere.
func TestCgo(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(cgoSource), 0o644); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "prog")
	t.Setenv("CGO_ENABLED", "1")
	run(t, "", "go", "build", "-buildmode=pie", "-ldflags=-linkmode=external", "-o", path, filepath.Join(dir, "main.go"))
	s, b := New(Config{}), open(t, path)
	found := 0
	for _, f := range functions(t, path) {
		lines := s.User(b, stack.LinkAddr(f.Value))
		switch f.Name {
		case "c_part", "c_entry":
			found++
			if len(lines) != 1 || lines[0].Name != f.Name || lines[0].File != "" {
				t.Errorf("C function %s is %+v", f.Name, lines)
			}
		case "main.goPart":
			found++
			if len(lines) != 1 || lines[0].Name != f.Name || filepath.Base(lines[0].File) != "main.go" || lines[0].StartLine != 12 {
				t.Errorf("Go function %s is %+v", f.Name, lines)
			}
		default:
			if elf.ST_BIND(f.Info) == elf.STB_GLOBAL && len(lines) == 0 {
				t.Errorf("%s at %#x has no name", f.Name, f.Value)
			}
		}
	}
	if found != 3 {
		t.Errorf("found %d of 3 functions", found)
	}
}
