// SPDX-License-Identifier: Apache-2.0

package jit

import (
	"fmt"
	"strings"
	"testing"
)

func BenchmarkRead(b *testing.B) {
	var s strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&s, "%x %x JS:*function%d file:///srv/app/node_modules/mod/lib/file.js:%d:13\n", 0x7f0000000000+i*256, 200, i, i)
	}
	text := s.String()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		var pm perfMap
		l := lines{maxEntries: 1 << 20, maxText: 64 << 20}
		if _, err := l.read(strings.NewReader(text)); err != nil {
			b.Fatal(err)
		}
		pm.merge(&l)
		if len(pm.entries) != 100_000 {
			b.Fatalf("%d entries", len(pm.entries))
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	var pm perfMap
	l := lines{maxEntries: 1 << 20, maxText: 64 << 20}
	for i := range 100_000 {
		l.add(fmt.Appendf(nil, "%x 80 function %d", 0x7f0000000000+i*256, i))
	}
	pm.merge(&l)
	for b.Loop() {
		l := lines{maxEntries: 1 << 20, maxText: 64 << 20}
		l.add([]byte("7f0000000040 20 fresh"))
		pm.merge(&l)
	}
	if name, ok := pm.find(0x7f0000000041); !ok || name.Name != "fresh" {
		b.Fatalf("find = %q, %v", name.Name, ok)
	}
}
