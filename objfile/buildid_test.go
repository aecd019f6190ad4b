// SPDX-License-Identifier: Apache-2.0

package objfile

import (
	"bytes"
	"debug/elf"
	"strings"
	"testing"
)

func TestBuildID(t *testing.T) {
	goID := "0123456789abcdefghij/0123456789abcdefghij/0123456789abcdefghij/0123456789abcdefghij"
	gnu, goNote := noteBytes("GNU", 3, "\x01\x02\xff"), noteBytes("Go", 4, goID)
	abi := noteBytes("GNU", 1, strings.Repeat("\x00", 16))
	join := func(notes ...[]byte) []byte { return bytes.Join(notes, nil) }
	for _, test := range []struct {
		name  string
		notes []byte
		want  BuildID // zero: a hash
	}{
		{"GNU", gnu, BuildID{BuildIDGNU, "0102ff"}},
		{"GNU after others", join(abi, goNote, gnu), BuildID{BuildIDGNU, "0102ff"}},
		{"first of two", join(gnu, noteBytes("GNU", 3, "other")), BuildID{BuildIDGNU, "0102ff"}},
		{"lld's 8 bytes", noteBytes("GNU", 3, "8 bytes!"), BuildID{BuildIDGNU, "3820627974657321"}},
		{"Go", join(abi, goNote), BuildID{BuildIDGo, goID}},
		{"Go made equal for all builds", noteBytes("Go", 4, "redacted"), BuildID{}},
		{"empty", noteBytes("GNU", 3, ""), BuildID{}},
		{"65 bytes", noteBytes("GNU", 3, strings.Repeat("x", 65)), BuildID{}},
		{"64 bytes", noteBytes("GNU", 3, strings.Repeat("\x11", 64)), BuildID{BuildIDGNU, strings.Repeat("11", 64)}},
		{"none", nil, BuildID{}},
		{"other owner", noteBytes("Xen", 3, "abc"), BuildID{}},
		{"note longer than its segment", join(gnu[:len(gnu)-4]), BuildID{}},
	} {
		o := open(t, elfImage{machine: elf.EM_X86_64, notes: test.notes}.bytes())
		if test.want.IsZero() && (o.BuildID.Kind != BuildIDHash || len(o.BuildID.ID) != 40) || !test.want.IsZero() && o.BuildID != test.want {
			t.Errorf("%s: %+v, want %+v", test.name, o.BuildID, test.want)
		}
	}
}

func TestBuildIDInSectionOnly(t *testing.T) {
	o := open(t, elfImage{sections: []imageSection{{name: ".note.gnu.build-id", typ: elf.SHT_NOTE, data: noteBytes("GNU", 3, "abcd")}}}.bytes())
	if want := (BuildID{BuildIDGNU, "61626364"}); o.BuildID != want {
		t.Errorf("%+v, want %+v", o.BuildID, want)
	}
}

func TestBuildIDHashTellsFilesApart(t *testing.T) {
	seen := make(map[BuildID]string)
	for name, fill := range map[string]string{"a": "a", "b": "b", "longer": "aa"} {
		data := elfImage{sections: []imageSection{{name: name[:1], data: []byte(strings.Repeat(fill, 10000))}}}.bytes()
		if name == "b" {
			data[5000] ^= 0 // the same file but for bytes at its end
			data[len(data)-1] ^= 1
		}
		id := open(t, data).BuildID
		if other, ok := seen[id]; ok {
			t.Errorf("%s and %s have the same build ID", name, other)
		}
		seen[id] = name
	}
	data := elfImage{}.bytes()
	if a, b := open(t, data).BuildID, open(t, bytes.Clone(data)).BuildID; a != b {
		t.Errorf("same bytes, build IDs %v and %v", a, b)
	}
}

// Notes of a segment aligned to 8 pad to 8; the property note of x86 is such.
func TestNotesPadding(t *testing.T) {
	raw := []byte("\x03\x00\x00\x00\x01\x00\x00\x00\x05\x00\x00\x00GN\x00" + "\x00" + "d" + "\x00\x00\x00\x00\x00\x00\x00" +
		"\x03\x00\x00\x00\x01\x00\x00\x00\x06\x00\x00\x00GN\x00" + "\x00" + "e")
	var got []string
	notes(raw, 8, func(n note) bool {
		got = append(got, string(n.name)+string(n.desc))
		return true
	})
	if want := "GNd GNe"; strings.Join(got, " ") != want {
		t.Errorf("notes = %q, want %q", got, want)
	}
}
