// SPDX-License-Identifier: Apache-2.0

package debugfile

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseLink(t *testing.T) {
	tests := []struct {
		name, data string
		want       link
		ok         bool
	}{
		{"padded", "a.debug\x00\x01\x02\x03\x04", link{"a.debug", 0x04030201}, true},
		{"padding of three", "a.dbg12\x00\x01\x02\x03\x04", link{"a.dbg12", 0x04030201}, true},
		{"padding of one", "abc.dbg123\x00\x00\x01\x02\x03\x04", link{"abc.dbg123", 0x04030201}, true},
		{"no checksum", "a.debug\x00\x01\x02\x03", link{}, false},
		{"no end", "a.debug", link{}, false},
		{"no name", "\x00\x00\x00\x00\x01\x02\x03\x04", link{}, false},
		{"nothing", "", link{}, false},
	}
	for _, tt := range tests {
		if got, err := parseLink([]byte(tt.data)); got != tt.want && tt.ok || (err == nil) != tt.ok {
			t.Errorf("%s: %+v, %v", tt.name, got, err)
		}
	}
}

func TestParseAltLink(t *testing.T) {
	id := strings.Repeat("\xab", 20)
	want := altLink{"/usr/lib/debug/.dwz/x", strings.Repeat("ab", 20)}
	if got, err := parseAltLink([]byte(want.path + "\x00" + id)); got != want || err != nil {
		t.Errorf("link is %+v, %v", got, err)
	}
	if got, err := parseSup([]byte("\x05\x00\x00" + want.path + "\x00\x14" + id)); got != want || err != nil {
		t.Errorf(".debug_sup is %+v, %v", got, err)
	}
	for name, data := range map[string]string{
		"no build ID":   "path\x00",
		"short ID":      "path\x00a",
		"long ID":       "path\x00" + strings.Repeat("a", 65),
		"no path":       "\x00" + id,
		"no end":        "path",
		"line feed":     "pa\nth\x00" + id,
		"gigantic path": strings.Repeat("a", unix.PathMax) + "\x00" + id,
	} {
		if got, err := parseAltLink([]byte(data)); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
	for name, data := range map[string]string{
		"supplementary itself": "\x05\x00\x01" + want.path + "\x00\x14" + id,
		"future version":       "\x06\x00\x00" + want.path + "\x00\x14" + id,
		"ID cut short":         "\x05\x00\x00" + want.path + "\x00\x14" + id[1:],
		"endless ID":           "\x05\x00\x00" + want.path + "\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01" + id,
	} {
		if got, err := parseSup([]byte(data)); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func FuzzLinks(f *testing.F) {
	f.Add([]byte("a.debug\x00\x01\x02\x03\x04"))
	f.Add([]byte("/usr/lib/debug/.dwz/x\x00" + strings.Repeat("\xab", 20)))
	f.Add([]byte("\x05\x00\x00/x\x00\x14" + strings.Repeat("\xab", 20)))
	f.Fuzz(func(t *testing.T, data []byte) {
		if l, err := parseLink(data); err == nil && checkName(l.name) != nil {
			t.Errorf("%q names %q", data, l.name)
		}
		for _, parse := range []func([]byte) (altLink, error){parseAltLink, parseSup} {
			a, err := parse(data)
			if err == nil && (checkName(a.path) != nil || len(a.buildID) < 2*minBuildID || len(a.buildID) > 2*maxBuildID) {
				t.Errorf("%q gives %+v", data, a)
			}
		}
	})
}
