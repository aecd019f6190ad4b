// SPDX-License-Identifier: Apache-2.0

package workloads

import (
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Frame is one function of a stack.
type Frame struct {
	Function string // as shown to a person; "" if it has no name
	Binary   string // path of the file, or a name in brackets
	Kernel   bool
}

// Chain is a pattern for a whole stack, root first.
type Chain struct {
	items  []item
	kernel bool // at least one kernel frame is on top
	text   []string
}

// item matches one frame, or any number of them.
type item struct {
	name, binary string // "" matches all
	gap          bool   // any number of frames, in binary
}

// maxRepeat bounds a count in a chain.
const maxRepeat = 10000

var repeated = regexp.MustCompile(`^(.*)\*([0-9]+)$`)

// ParseChain parses the words of a chain, root first:
//
//	name       one frame of that function
//	?          one frame, whatever its name
//	...        any number of frames, also none; ...@file: in that file
//	word@file  a frame in the file of that base name, which may have a longer
//	           version; [anon] for memory that is no file
//	word*N     N times that; (a b)*N: N times a and then b
//	[kernel]   last: kernel frames, at least one
//
// A chain is a whole stack: one that does not begin (end) with "..." begins at
// the root (ends at the leaf). Kernel frames are not compared unless it ends with
// [kernel].
func ParseChain(words []string) (Chain, error) {
	c := Chain{text: words}
	for i, word := range words {
		if word == "[kernel]" {
			if i != len(words)-1 {
				return Chain{}, fmt.Errorf("parse chain %q: [kernel] is not last", words)
			}
			c.kernel = true
			continue
		}
		n := 1
		if m := repeated.FindStringSubmatch(word); m != nil {
			var err error
			if n, err = strconv.Atoi(m[2]); err != nil || n < 1 || n > maxRepeat {
				return Chain{}, fmt.Errorf("parse chain %q: %q repeats too often or never", words, word)
			}
			word = m[1]
		}
		parts := []string{word}
		if inner, ok := strings.CutPrefix(word, "("); ok {
			parts = strings.Fields(strings.TrimSuffix(inner, ")"))
		}
		for range n {
			for _, part := range parts {
				c.items = append(c.items, parseItem(part))
			}
		}
	}
	if len(c.items) == 0 {
		return Chain{}, fmt.Errorf("parse chain %q: it is empty", words)
	}
	return c, nil
}

func parseItem(word string) item {
	name, binary, _ := strings.Cut(word, "@")
	if name == "?" || name == "..." {
		return item{gap: name == "...", binary: binary}
	}
	return item{name: name, binary: binary}
}

// UnmarshalJSON parses an array of words.
func (c *Chain) UnmarshalJSON(data []byte) error {
	var words []string
	if err := json.Unmarshal(data, &words); err != nil {
		return err
	}
	parsed, err := ParseChain(words)
	if err != nil {
		return err
	}
	*c = parsed
	return nil
}

// String returns the words of the chain.
func (c Chain) String() string { return strings.Join(c.text, " → ") }

// Match reports whether stack, root first, is one of the stacks c describes.
func (c Chain) Match(stack []Frame) bool {
	user, ok := c.user(stack)
	return ok && match(c.items, user)
}

// MatchTail reports whether stack, root first, is what is left of one of those
// stacks when frames at the root are missing.
func (c Chain) MatchTail(stack []Frame) bool {
	user, ok := c.user(stack)
	for i := range c.items {
		if ok && len(user) > 0 && match(c.items[i:], user) {
			return true
		}
	}
	return false
}

// MatchRoot reports whether f may be the root of such a stack. Nothing is if the
// chain begins with a gap.
func (c Chain) MatchRoot(f Frame) bool {
	return !c.items[0].gap && c.items[0].matches(f)
}

// user returns the frames to compare; false if those of the kernel do not fit.
func (c Chain) user(stack []Frame) ([]Frame, bool) {
	user := make([]Frame, 0, len(stack))
	for _, f := range stack {
		if !f.Kernel {
			user = append(user, f)
		}
	}
	return user, !c.kernel || len(user) < len(stack)
}

// match tries each length of a gap. Chains have few.
func match(items []item, stack []Frame) bool {
	for len(items) > 0 && !items[0].gap {
		if len(stack) == 0 || !items[0].matches(stack[0]) {
			return false
		}
		items, stack = items[1:], stack[1:]
	}
	if len(items) == 0 {
		return len(stack) == 0
	}
	for ; ; stack = stack[1:] {
		if match(items[1:], stack) {
			return true
		}
		if len(stack) == 0 || !items[0].matches(stack[0]) {
			return false
		}
	}
}

// Callers is what chains say of who calls whom.
type Callers struct {
	of    map[string][]item // by function: what may be below it
	any   map[string]bool   // functions that anything may be below
	roots map[string]bool   // functions that nothing may be below
}

// NewCallers collects the callers of the named functions of a program, but for
// those with the prefix that library is: of them a program knows too little.
func NewCallers(chains []Chain, library string) *Callers {
	c := &Callers{of: map[string][]item{}, any: map[string]bool{}, roots: map[string]bool{}}
	for _, chain := range chains {
		for i, it := range chain.items {
			switch {
			case it.gap || it.name == "" || strings.HasPrefix(it.name, library):
			case i == 0:
				c.roots[it.name] = true
			case chain.items[i-1].gap:
				c.any[it.name] = true
			case !slices.Contains(c.of[it.name], chain.items[i-1]):
				c.of[it.name] = append(c.of[it.name], chain.items[i-1])
			}
		}
	}
	return c
}

// Contradict returns the first frame of stack, root first, that has below it what
// no chain has there; whole says that nothing is missing at the root.
func (c *Callers) Contradict(stack []Frame, whole bool) (Frame, bool) {
	for i, f := range stack {
		name := PlainName(f.Function)
		callers, known := c.of[name]
		switch {
		case f.Kernel || c.any[name] || !known && !c.roots[name]:
		case i == 0 && (!whole || c.roots[name]):
		case i > 0 && slices.ContainsFunc(callers, func(it item) bool { return it.matches(stack[i-1]) }):
		default:
			return f, true
		}
	}
	return Frame{}, false
}

func (i item) matches(f Frame) bool {
	return (i.name == "" || i.name == PlainName(f.Function)) && (i.binary == "" || sameFile(i.binary, binaryName(f.Binary)))
}

// sameFile lets libx.so.6 be libx.so.6.0.30, which it is a link to.
func sameFile(want, name string) bool {
	return name == want || strings.HasPrefix(name, want+".")
}

var rustHash = regexp.MustCompile(`::h[0-9a-f]{16}$`)

// PlainName returns a function's name without what demanglers and linkers add to
// it: parameters, Rust's hash, the ABI of Go assembly, symbol versions.
func PlainName(name string) string {
	if i := strings.IndexByte(name, '('); i > 0 && !strings.HasPrefix(name[i:], "(*") {
		name = name[:i]
	}
	if i := strings.IndexByte(name, '@'); i > 0 && name[i:] != "@plt" {
		name = name[:i]
	}
	return rustHash.ReplaceAllString(strings.TrimSuffix(name, ".abi0"), "")
}

var perfMap = regexp.MustCompile(`^/tmp/perf-[0-9]+\.map$`)

// binaryName returns what chains call the file of a mapping. Tools name anonymous
// memory in different ways.
func binaryName(file string) string {
	if file == "" || file == "//anon" || file == "[anon]" || perfMap.MatchString(file) {
		return "[anon]"
	}
	return path.Base(file)
}
