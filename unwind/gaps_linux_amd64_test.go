// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"debug/elf"
	"testing"

	"github.com/lowflame/lowflame/stack"
)

// TestKnownCode: the entry point and the signal trampoline of musl have no CFI,
// and get their rules all the same.
func TestKnownCode(t *testing.T) {
	path := build(t, "deep", "musl-gcc", "-O2", "-static", "-o", "OUT", "deep.c")
	table := buildTable(t, path)
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if r, _ := table.Lookup(stack.LinkAddr(f.Entry)); r.Kind() != KindEnd {
		t.Errorf("entry point has kind %d, want end", r.Kind())
	}
	found := false
	for _, s := range symbolsOf(path) {
		if s.Name != "__restore_rt" && s.Name != "__restore" {
			continue
		}
		found = true
		for pc := s.Value - 1; pc < s.Value+9; pc++ {
			if r, _ := table.Lookup(stack.LinkAddr(pc)); r.Kind() != KindSignal {
				t.Errorf("%s%+d has kind %d, want signal", s.Name, int64(pc-s.Value), r.Kind())
			}
		}
	}
	if !found {
		t.Error("no trampoline in the symbol table")
	}
}
