// SPDX-License-Identifier: Apache-2.0

package dwarf

import (
	"os"
	"testing"

	"github.com/lowflame/lowflame/objfile"
)

// BenchmarkUnits reads all units of the file that DWARF_FILE names, or else of the
// test itself.
func BenchmarkUnits(b *testing.B) {
	path := os.Getenv("DWARF_FILE")
	if path == "" {
		path = os.Args[0]
	}
	for range b.N {
		o, f, err := objfile.OpenFile(path)
		if err != nil {
			b.Fatal(err)
		}
		d, err := Open(o, Config{TempDir: b.TempDir()})
		if err != nil {
			b.Fatal(err)
		}
		var units, rows, scopes, ranges, unnamed, bytes int
		err = d.Units(func(u *Unit) error {
			units++
			rows += len(u.Lines)
			scopes += len(u.Scopes)
			bytes += len(d.unit.buf)
			for i := range u.Scopes {
				ranges += len(u.Scopes[i].Ranges)
				if u.Scopes[i].Name == "" {
					unnamed++
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
		b.Logf("%d units, %d rows, %d scopes, %d ranges, %d unnamed, %d bad (%v)", units, rows, scopes, ranges, unnamed, d.Bad(), d.BadErr())
		if units == 0 || rows == 0 {
			b.Fatal("nothing read")
		}
		b.SetBytes(int64(bytes))
		if err := d.Close(); err != nil {
			b.Error(err)
		}
		if err := f.Close(); err != nil {
			b.Error(err)
		}
	}
}
