// SPDX-License-Identifier: Apache-2.0

package symbolize

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// ellipsis stands for the end of a name that was cut.
const ellipsis = "…"

// clean returns s as UTF-8 that is safe to show: names come from files of
// strangers and go to terminals, protobuf and HTML. Bytes that are not UTF-8,
// control characters and marks that turn the direction of writing become U+FFFD.
func clean(s string) string {
	if isPlain(s) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r) {
			return utf8.RuneError
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

func isPlain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// clip returns s if it has at most n bytes, and else as much of its start as,
// with an ellipsis, fits into n bytes without splitting a character.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	n -= len(ellipsis)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + ellipsis
}
