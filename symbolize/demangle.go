// SPDX-License-Identifier: Apache-2.0

package symbolize

import (
	"fmt"
	"math/bits"
	"regexp"
	"strconv"
	"strings"

	"github.com/ianlancetaylor/demangle"
)

// Demangle says how much of a C++ or Rust name to show.
type Demangle uint8

// The forms of names. In each a suffix the compiler gave a clone of a function
// (.part.0, .isra.0, .constprop.0, .cold) is left out, so that its samples add up
// with those of the function, and a Rust name has no hash.
const (
	// Simplified leaves out parameters and what a function returns, and template
	// arguments where they make the name longer than MaxName.
	Simplified Demangle = iota
	// Full is the whole declaration, up to 4 KiB.
	Full
	// Mangled is the name as in the file.
	Mangled
)

const (
	// MaxName is how many bytes of a name are shown, but for Full.
	MaxName = 256
	// maxFull is the same for Full.
	maxFull = 4 << 10
	// maxMangled is the longest name that is demangled: the longest in libLLVM
	// has 537 bytes, and the time it takes can grow with the square.
	maxMangled = 8 << 10
	// maxSystem is how many bytes of a mangled name are kept.
	maxSystem = 16 << 10
)

// ParseDemangle returns the form called simplified, full or none.
func ParseDemangle(s string) (Demangle, error) {
	switch s {
	case "simplified":
		return Simplified, nil
	case "full":
		return Full, nil
	case "none":
		return Mangled, nil
	}
	return 0, fmt.Errorf("form of names %q: simplified, full or none", s)
}

// DemangleName returns the name to show for a symbol. The result is clean.
func DemangleName(mode Demangle, symbol string) string {
	symbol, stub := strings.CutSuffix(symbol, "@plt")
	symbol, _, _ = strings.Cut(symbol, "@") // a version: name@@GLIBC_2.14
	base := stripClone(symbol)
	name, limit := base, MaxName
	if len(base) <= maxMangled && isMangled(base) {
		base = keepUnderscores(base)
		switch mode {
		case Simplified:
			if short := simplify(base); short != base {
				name = short
			}
		case Full:
			limit = maxFull
			if long, err := demangle.ToString(base, demangle.MaxLength(12)); err == nil {
				name = long
			}
		}
	}
	if stub {
		return clip(clean(name), limit-len("@plt")) + "@plt"
	}
	return clip(clean(name), limit)
}

func isMangled(s string) bool {
	return strings.HasPrefix(s, "_Z") || strings.HasPrefix(s, "_R") || strings.HasPrefix(s, "___Z")
}

// simplify demangles without parameters. The end of a C++ name tells more than its
// template arguments, so it drops those before the end is cut.
func simplify(symbol string) string {
	const twice = 9 // 2^9 is enough to see that it is too long
	name, err := demangle.ToString(symbol, demangle.NoParams, demangle.MaxLength(twice))
	if err != nil {
		return symbol
	}
	if len(name) <= MaxName {
		return name
	}
	short, err := demangle.ToString(symbol, demangle.NoParams, demangle.NoTemplateParams, demangle.MaxLength(twice))
	if err != nil || short == "" {
		return name
	}
	return short
}

// rustLegacy is a name as rustc gives it by default: identifiers behind their length,
// and a hash.
var rustLegacy = regexp.MustCompile(`^_ZN((?:[0-9]+[^0-9].*)?)17h([0-9a-f]{16})E$`)

// keepUnderscores doubles the underscore that an identifier of a Rust name begins
// with, because the library takes it for a separator: without that,
// __rust_begin_short_backtrace loses one.
func keepUnderscores(symbol string) string {
	m := rustLegacy.FindStringSubmatch(symbol)
	if m == nil || !strings.Contains(m[1], "_") || !looksRandom(m[2]) {
		return symbol
	}
	var b strings.Builder
	b.WriteString("_ZN")
	for rest := m[1]; rest != ""; {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		n, err := strconv.Atoi(rest[:digits])
		if err != nil || n > len(rest)-digits {
			return symbol
		}
		id := rest[digits : digits+n]
		rest = rest[digits+n:]
		if strings.HasPrefix(id, "_") && !strings.HasPrefix(id, "_$") {
			id = "_" + id
		}
		b.WriteString(strconv.Itoa(len(id)))
		b.WriteString(id)
	}
	b.WriteString("17h" + m[2] + "E")
	return b.String()
}

// looksRandom tells a hash from an identifier of C++ that looks like one, by the rule
// of Rust's own demangler: it has five digits that differ.
func looksRandom(hash string) bool {
	var seen uint16
	for i := range len(hash) {
		seen |= 1 << strings.IndexByte("0123456789abcdef", hash[i])
	}
	return bits.OnesCount16(seen) >= 5
}

// stripClone removes the suffixes compilers give to clones and promoted statics of
// a function: GCC's .part.0 and the like, LLVM's .llvm.123 and .__uniq.123.
func stripClone(s string) string {
	for {
		dot := strings.LastIndexByte(s, '.')
		if dot <= 0 {
			return s
		}
		tag, rest := s[dot+1:], s[:dot]
		if isNumber(tag) {
			prev := strings.LastIndexByte(rest, '.')
			if prev <= 0 || !isCloneTag(rest[prev+1:]) {
				return s
			}
			s = rest[:prev]
			continue
		}
		if !isCloneTag(tag) {
			return s
		}
		s = rest
	}
}

func isCloneTag(s string) bool {
	switch s {
	case "part", "isra", "constprop", "cold", "lto_priv", "localalias", "clone", "llvm", "__uniq":
		return true
	}
	return false
}

func isNumber(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
