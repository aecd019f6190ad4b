// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"debug/elf"
	"os"
	"path/filepath"
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

// tableOf makes the table of src alone, without what Build finds out about code.
func tableOf(tb testing.TB, src *sources) *Table {
	tb.Helper()
	f, err := src.first(gap{})
	if err != nil {
		tb.Fatal(err)
	}
	return f.table
}
