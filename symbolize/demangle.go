// SPDX-License-Identifier: Apache-2.0

package symbolize

import (
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

// DemangleName returns the name to show for a symbol. The result is clean.
func DemangleName(mode Demangle, symbol string) string {
	symbol, stub := strings.CutSuffix(symbol, "@plt")
	symbol, _, _ = strings.Cut(symbol, "@") // a version: name@@GLIBC_2.14
	base := stripClone(symbol)
	name, limit := base, MaxName
	if len(base) <= maxMangled && isMangled(base) {
		switch mode {
		case Simplified:
			name = simplify(base)
		case Full:
			limit = maxFull
			name = demangle.Filter(base, demangle.MaxLength(12))
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
