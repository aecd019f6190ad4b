// SPDX-License-Identifier: Apache-2.0

package elfsym

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/lowflame/lowflame/stack"
)

// TestPLT compares the stubs with those objdump labels.
func TestPLT(t *testing.T) {
	builds := map[string][]string{
		"lazy":       {"-O1", "-Wl,-z,lazy", "-fcf-protection=none"},
		"IBT":        {"-O1", "-Wl,-z,lazy", "-fcf-protection=full", "-Wl,-z,ibtplt"},
		"bind now":   {"-O1", "-Wl,-z,now", "-fcf-protection=full"},
		"library":    {"-O1", "-shared", "-fPIC"},
		"with names": {"-O1", "-no-pie", "-rdynamic"},
		"stripped":   {"-O1", "-s"},
	}
	label := regexp.MustCompile(`(?m)^([0-9a-f]{16}) <(.+)@plt>:$`)
	for name, args := range builds {
		t.Run(name, func(t *testing.T) {
			path := compile(t, "funcs.c", "prog", args...)
			checkPLT(t, path, label.FindAllStringSubmatch(run(t, "objdump", "-d", path), -1))
		})
	}
	t.Run("libjvm", func(t *testing.T) {
		path := libjvm(t)
		if _, err := os.Stat(path); err != nil {
			t.Skip(err)
		}
		out := run(t, "objdump", "-d", "-j", ".plt", "-j", ".plt.got", path)
		checkPLT(t, path, label.FindAllStringSubmatch(out, -1))
	})
	t.Run("aarch64", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "prog")
		run(t, "aarch64-linux-gnu-gcc", "-O1", "-o", path, "testdata/funcs.c")
		checkPLT(t, path, label.FindAllStringSubmatch(run(t, "aarch64-linux-gnu-objdump", "-d", path), -1))
	})
}

func checkPLT(t *testing.T, path string, labels [][]string) {
	if len(labels) == 0 {
		t.Fatal("objdump shows no stubs")
	}
	o, table := build(t, path)
	for _, l := range labels {
		addr, _ := strconv.ParseUint(l[1], 16, 64)
		if strings.HasPrefix(l[2], "*ABS*") {
			continue
		}
		for _, at := range []uint64{addr, addr + 7} {
			got := nameAt(t, o, table, stack.LinkAddr(at))
			if want, _, _ := strings.Cut(l[2], "@"); got != want+"@plt" {
				t.Errorf("stub at %#x is %q, want %q", at, got, want+"@plt")
			}
		}
	}
	t.Logf("%d stubs", len(labels))
}

func TestStaticIFUNCStubs(t *testing.T) {
	path := compile(t, "funcs.c", "static", "-O1", "-static")
	o, table := build(t, path)
	plt, ok := o.Section(".plt")
	if !ok {
		t.Skip("this libc has no stubs in static programs")
	}
	named := map[string]bool{}
	for a := plt.Addr; a < plt.Addr+stack.LinkAddr(plt.Size); a += 8 {
		named[nameAt(t, o, table, a)] = true
	}
	if !named["strlen@plt"] && !named["memcpy@plt"] {
		t.Errorf("stubs are %v", named)
	}
}

// TestIFUNCCall looks at the stubs that main calls, whatever linker made them.
func TestIFUNCCall(t *testing.T) {
	x86, arm := []string{"gcc", "objdump"}, []string{"aarch64-linux-gnu-gcc", "aarch64-linux-gnu-objdump"}
	tests := []struct {
		name  string
		tools []string
		args  []string
	}{
		{"PIE", x86, nil},
		{"fixed", x86, []string{"-no-pie"}},
		{"IBT", x86, []string{"-fcf-protection=full", "-Wl,-z,ibtplt"}},
		{"bind now", x86, []string{"-Wl,-z,now"}},
		{"static", x86, []string{"-static"}},
		{"static PIE", x86, []string{"-static-pie"}},
		{"gold", x86, []string{"-fuse-ld=gold"}},
		{"aarch64", arm, nil},
		{"aarch64 static", arm, []string{"-static"}},
		{"aarch64 BTI", arm, []string{"-no-pie", "-mbranch-protection=bti", "-Wl,-z,force-bti"}},
		{"aarch64 signed", arm, []string{"-Wl,-z,pac-plt"}},
	}
	call := regexp.MustCompile(`\s(?:call|bl)\s+([0-9a-f]+) <`)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "prog")
			run(t, tt.tools[0], append([]string{"-O1", "-o", path, "testdata/ifunc.c"}, tt.args...)...)
			o, table := build(t, path)
			_, code, ok := strings.Cut(run(t, tt.tools[1], "-d", path), "<main>:")
			if !ok {
				t.Fatal("no main")
			}
			m := call.FindStringSubmatch(code)
			if m == nil {
				t.Fatal("main calls nothing")
			}
			addr, _ := strconv.ParseUint(m[1], 16, 64)
			last := uint64(7) // of the shortest stubs
			if tt.name == "aarch64 signed" || tt.name == "aarch64 BTI" {
				last = 23
			}
			for _, at := range []uint64{addr, addr + 5, addr + last} {
				if got := nameAt(t, o, table, stack.LinkAddr(at)); got != "chosen@plt" {
					t.Errorf("the stub that main calls, %#x, is %q", at, got)
				}
			}
		})
	}
}
