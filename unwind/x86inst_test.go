// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"debug/elf"
	"fmt"
	"sort"
	"testing"

	"golang.org/x/arch/x86/x86asm"
)

// text returns the .text of a file.
func text(tb testing.TB, path string) []byte {
	tb.Helper()
	f, err := elf.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	b, err := f.Section(".text").Data()
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// TestDecodeX86 compares lengths, jumps, and the registers written with another
// decoder.
func TestDecodeX86(t *testing.T) {
	for _, path := range []string{"/usr/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib/x86_64-linux-gnu/libcrypto.so.3", "/usr/bin/git", "/usr/bin/python3.11"} {
		b := text(t, library(t, path))
		m := map[string]int{}
		n := 0
		for i := 0; i < len(b); {
			in, err := x86asm.Decode(b[i:min(len(b), i+16)], 64)
			g, ok := decodeX86(b[i:])
			if err != nil {
				if ok {
					i += int(g.size)
				} else {
					i++
				}
				continue
			}
			n++
			if !ok || int(g.size) != in.Len {
				m[fmt.Sprintf("%v: size %d %v, want %d", in.Op, g.size, ok, in.Len)]++
			}
			i += in.Len
		}
		var ks []string
		for k := range m {
			ks = append(ks, k)
		}
		sort.Slice(ks, func(i, j int) bool { return m[ks[i]] > m[ks[j]] })
		for _, k := range ks {
			t.Log(k, m[k])
		}
		t.Log(path, n)
	}
}
