// SPDX-License-Identifier: Apache-2.0

package pprofexport

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxText is the longest string in a profile, in bytes. Demangled C++ names
// reach 20 kB; nothing reads them to the end.
const maxText = 4 << 10

// Clean returns s as it may stand in a profile: valid UTF-8 (proto3 strings
// must be), no control, line-breaking or text-direction characters, each
// replaced with U+FFFD, and at most 4 KiB, cut at a rune with "…" appended.
//
// Names come from files and processes that may be hostile, and end in
// terminals and web pages. Builder passes every string it stores through here.
func Clean(s string) string {
	if len(s) <= maxText && plain(s) {
		return s
	}
	s = cut(s)
	s = strings.ToValidUTF8(s, "\ufffd")
	s = strings.Map(func(r rune) rune {
		if unprintable(r) {
			return utf8.RuneError
		}
		return r
	}, s)
	return cut(s) // again: U+FFFD is longer than the byte it stands for
}

func plain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// unprintable holds the controls, the line and paragraph separators, and the
// marks that change the direction of the text after them (Unicode UAX #9).
func unprintable(r rune) bool {
	return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' ||
		r >= '\u202a' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069' ||
		r == '\u200e' || r == '\u200f' || r == '\u061c'
}

func cut(s string) string {
	if len(s) <= maxText {
		return s
	}
	end := maxText - len("…")
	for i := 0; i < utf8.UTFMax && end > 0 && !utf8.RuneStart(s[end]); i++ {
		end--
	}
	return s[:end] + "…"
}
