// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"testing"
)

// elfSources reads the sections of a file with the standard library, so that
// the tests of this package do not stand on objfile.
func elfSources(tb testing.TB, path string) *sources {
	tb.Helper()
	f, err := elf.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	src := &sources{}
	if f.Machine == elf.EM_AARCH64 {
		src.arch = ARM64
	}
	data := func(name string) ([]byte, uint64) {
		s := f.Section(name)
		if s == nil || s.Type == elf.SHT_NOBITS {
			return nil, 0
		}
		b, err := s.Data()
		if err != nil {
			tb.Fatal(err)
		}
		return b, s.Addr
	}
	eh, addr := data(".eh_frame")
	hdr, hdrAddr := data(".eh_frame_hdr")
	if eh != nil {
		src.eh = &section{data: eh, addr: addr, hdr: hdr, hdrAddr: hdrAddr}
	}
	if debug, _ := data(".debug_frame"); debug != nil {
		src.debug = &section{data: debug}
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 {
			src.segs = append(src.segs, gap{p.Vaddr, p.Vaddr + p.Filesz})
		}
	}
	return src
}

// library returns the path of a file that has to be installed for the tests.
func library(tb testing.TB, patterns ...string) string {
	tb.Helper()
	for _, p := range patterns {
		if m, _ := filepath.Glob(p); len(m) > 0 {
			if path, err := filepath.EvalSymlinks(m[0]); err == nil {
				if _, err := os.Stat(path); err == nil {
					return path
				}
			}
		}
	}
	tb.Skipf("none of %q is installed", patterns)
	return ""
}

// build compiles a program of testdata/live.
func build(t *testing.T, out string, cmd ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), out)
	for i := range cmd {
		if cmd[i] == "OUT" {
			cmd[i] = path
		}
	}
	c := exec.Command(cmd[0], cmd[1:]...)
	c.Dir = filepath.Join("testdata", "live")
	if text, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, text)
	}
	return path
}

// tableOf makes the table of src alone, without what Build finds out about code.
func tableOf(tb testing.TB, src *sources) *Table {
	tb.Helper()
	f, err := src.first(gap{})
	if err != nil {
		tb.Fatal(err)
	}
	return f.table
}

// symbolsOf returns the functions of a file by address.
func symbolsOf(path string) []elf.Symbol {
	f, err := elf.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	syms, _ := f.Symbols()
	dyn, _ := f.DynamicSymbols()
	var out []elf.Symbol
	for _, s := range append(syms, dyn...) {
		if elf.ST_TYPE(s.Info) == elf.STT_FUNC && s.Value != 0 {
			out = append(out, s)
		}
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].Value < out[j].Value })
	return out
}
