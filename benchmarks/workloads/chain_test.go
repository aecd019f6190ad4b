// SPDX-License-Identifier: Apache-2.0

package workloads

import (
	"strings"
	"testing"
)

// stack makes frames of "name" or "name@file"; names that begin with "k:" are in
// the kernel.
func stack(words string) []Frame {
	var frames []Frame
	for _, word := range strings.Fields(words) {
		name, file, _ := strings.Cut(word, "@")
		f := Frame{Function: name, Binary: "/bin/" + file}
		if kernel, ok := strings.CutPrefix(name, "k:"); ok {
			f = Frame{Function: kernel, Binary: "[kernel.kallsyms]", Kernel: true}
		}
		if name == "-" {
			f.Function = ""
		}
		frames = append(frames, f)
	}
	return frames
}

func TestChainMatch(t *testing.T) {
	tests := []struct {
		name, chain, stack string
		want               bool
	}{
		{"whole stack", "main f hot", "main f hot", true},
		{"a caller is missing", "main f hot", "main hot", false},
		{"a frame too many", "main f hot", "main f g hot", false},
		{"ends too early", "main f hot", "main f", false},
		{"goes on after the end", "main f hot", "main f hot memcpy", false},
		{"begins below the root", "main f hot", "_start main f hot", false},
		{"gap of no frame", "main ... hot", "main hot", true},
		{"gap of two frames", "main ... hot", "main a b hot", true},
		{"gap that takes a frame that looks like the next", "main ... f hot", "main f f hot", true},
		{"gap at the end", "main f ...", "main f a b", true},
		{"gap at the root", "... f hot", "x main f hot", true},
		{"gap does not stretch over the leaf", "main ... hot", "main hot b", false},
		{"two gaps", "a ... b ... c", "a x b y b z c", true},
		{"repeated", "main f*3 hot", "main f f f hot", true},
		{"one level lost", "main f*3 hot", "main f f hot", false},
		{"one level twice", "main f*3 hot", "main f f f f hot", false},
		{"any one frame", "main ? hot", "main - hot", true},
		{"any one frame is not none", "main ? hot", "main hot", false},
		{"in a file", "main ?@libc.so.6 hot@prog", "main x@libc.so.6 hot@prog", true},
		{"in another file", "main ?@libc.so.6 hot@prog", "main x@libm.so.6 hot@prog", false},
		{"in a file with a longer version", "f@libx.so.6", "f@libx.so.6.0.30", true},
		{"in a file of another version", "f@libx.so.6", "f@libx.so.60", false},
		{"kernel frames ignored", "main hot", "main hot k:irq k:timer", true},
		{"kernel wanted", "main read [kernel]", "main read k:entry k:vfs_read", true},
		{"kernel wanted, not there", "main read [kernel]", "main read", false},
		{"kernel frame is no user frame", "main ?", "main k:entry", false},
		{"empty stack", "main", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := ParseChain(strings.Fields(tt.chain))
			if err != nil {
				t.Fatal(err)
			}
			if got := c.Match(stack(tt.stack)); got != tt.want {
				t.Errorf("Match(%q, %q) = %v, want %v", tt.chain, tt.stack, got, tt.want)
			}
		})
	}
}

func TestChainPairs(t *testing.T) {
	c, err := ParseChain([]string{"main", "(even odd)*2", "hot"})
	if err != nil {
		t.Fatal(err)
	}
	if !c.Match(stack("main even odd even odd hot")) {
		t.Error("does not match two pairs")
	}
	for _, s := range []string{"main even odd hot", "main even even odd odd hot", "main even odd even hot"} {
		if c.Match(stack(s)) {
			t.Errorf("matches %q", s)
		}
	}
}

func TestParseChainErrors(t *testing.T) {
	for _, words := range [][]string{nil, {"[kernel]", "main"}, {"f*0"}, {"f*99999999999999999999"}, {"f*10001"}} {
		if _, err := ParseChain(words); err == nil {
			t.Errorf("ParseChain(%q) succeeded", words)
		}
	}
}

func TestPlainName(t *testing.T) {
	for name, want := range map[string]string{
		"hot": "hot",
		"work::Circle::burn(unsigned long, unsigned long) const": "work::Circle::burn",
		"work::hot::h254466e923be38a5":                           "work::hot",
		"runtime.asmcgocall.abi0":                                "runtime.asmcgocall",
		"sync.(*WaitGroup).Add":                                  "sync.(*WaitGroup).Add",
		"__libc_start_main@@GLIBC_2.34":                          "__libc_start_main",
		"lib_step@plt":                                           "lib_step@plt",
		"(anonymous namespace)::f":                               "(anonymous namespace)::f",
	} {
		if got := PlainName(name); got != want {
			t.Errorf("PlainName(%q) = %q, want %q", name, got, want)
		}
	}
}
