// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"testing"

	"github.com/lowflame/lowflame/objfile"
)

// TestBuildFirst compares the table of a large file that is made first with the
// complete one: it may lack rules, but has no others.
func TestBuildFirst(t *testing.T) {
	for _, tt := range []struct {
		path    string
		partial bool
	}{
		{"/usr/bin/node", true}, // V8's builtins have no call frame information
		{"/usr/lib/x86_64-linux-gnu/libc.so.6", false},
	} {
		t.Run(tt.path, func(t *testing.T) {
			o, file, err := objfile.OpenFile(library(t, tt.path))
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			first, err := BuildFirst(o)
			if err != nil {
				t.Fatal(err)
			}
			all, err := Build(o)
			if err != nil {
				t.Fatal(err)
			}
			if first.Partial != tt.partial || all.Partial {
				t.Fatalf("partial: the first table %v, the other %v", first.Partial, all.Partial)
			}
			more := 0
			for row := range all.Rows() {
				r, _ := first.Lookup(row.Begin)
				switch {
				case r.Kind() == KindNone && row.Rule.Kind() != KindNone:
					more++
				case r.Kind() == KindWide && row.Rule.Kind() == KindWide: // numbers differ
				case r != row.Rule:
					t.Errorf("%#x: first %v, then %v", row.Begin, r, row.Rule)
				}
			}
			if more > 0 != tt.partial {
				t.Errorf("the second table has %d rows more", more)
			}
		})
	}
}
