// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lowflame/lowflame/internal/testutil"
	"github.com/lowflame/lowflame/stack"
)

func TestStubsX86(t *testing.T) {
	jump := []byte{0xff, 0x25, 1, 2, 3, 0}
	pad := []byte{0xf3, 0x0f, 0x1e, 0xfa}
	join := func(parts ...[]byte) (all []byte) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	rule := MakeRule(KindSP, FPSame, 1)
	for _, test := range []struct {
		name string
		code []byte
		ok   bool
	}{
		{"stubs", join(jump, []byte{0x66, 0x90}, jump, []byte{0x66, 0x90}), true},
		{"landing pads", join(pad, jump, []byte{0x0f, 0x1f, 0x40, 0}, pad, jump), true},
		{"lazy", join([]byte{0xff, 0x35, 0, 0, 0, 0}, jump), false}, // push slot(%rip)
		{"cut off", jump[:4], false},
		{"no jump", []byte{0x90, 0x90}, false},
		{"nothing", nil, false},
	} {
		var want []span
		if test.ok {
			want = []span{{0x1000, rule}, {0x1000 + uint64(len(test.code)), 0}}
		}
		if got := stubsX86(nil, 0x1000, test.code); !cmp.Equal(got, want, cmp.AllowUnexported(span{})) {
			t.Errorf("%s: %v, want %v", test.name, got, want)
		}
	}
}

// TestStubsOfStatic has the stubs of a static program, which it calls functions
// through that are chosen when it starts.
func TestStubsOfStatic(t *testing.T) {
	for arch, cc := range map[Arch]string{AMD64: "x86_64-linux-gnu-gcc", ARM64: "aarch64-linux-gnu-gcc"} {
		t.Run(arch.String(), func(t *testing.T) {
			if _, err := exec.LookPath(cc); err != nil {
				t.Skip(err)
			}
			dir := t.TempDir()
			src, bin := filepath.Join(dir, "a.c"), filepath.Join(dir, "a")
			const source = "static int one(void) { return 1; }\nstatic int (*choose(void))(void) { return one; }\n" +
				"int chosen(void) __attribute__((ifunc(\"choose\")));\nint main(void) { return chosen(); }\n"
			if err := os.WriteFile(src, []byte(source), 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.CommandContext(t.Context(), cc, "-O1", "-static", "-o", bin, src).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			o := testutil.OpenObject(t, bin)
			table, err := Build(o)
			if err != nil {
				t.Fatal(err)
			}
			plt, ok := o.Section(".plt")
			if !ok {
				plt, ok = o.Section(".iplt")
			}
			if !ok || plt.Flags&elf.SHF_EXECINSTR == 0 || plt.Size < 6 {
				t.Fatalf("no stubs: %+v", plt)
			}
			want := MakeRule(KindSP, FPSame, 1)
			if arch == ARM64 {
				want = MakeRule(KindSP, FPSame, 0)
			}
			found := 0
			for pc := uint64(plt.Addr); pc < uint64(plt.Addr)+plt.Size; pc++ {
				switch r, _ := table.Lookup(stack.LinkAddr(pc)); {
				case r == want:
					found++
				case arch == AMD64 || r.Kind() != KindNone: // on arm64 there may be a header
					t.Errorf("rule %v at %#x, want %v", r, pc, want)
				}
			}
			if found < 6 {
				t.Errorf("%d of %d bytes of stubs have a rule", found, plt.Size)
			}
		})
	}
}

func TestStubsARM64(t *testing.T) {
	stub := []byte{0x10, 0, 0, 0x90, 0x11, 2, 0x40, 0xf9, 0x10, 2, 0, 0x91, 0x20, 2, 0x1f, 0xd6}
	header := append([]byte{0xf0, 0x7b, 0xbf, 0xa9}, stub...) // stp x16, x30, [sp, #-16]!
	rule := MakeRule(KindSP, FPSame, 0)
	got := stubsARM64(nil, 0x1000, append(append([]byte{0x5f, 0x24, 3, 0xd5}, stub...), stub...)) // bti c
	if want := []span{{0x1004, rule}, {0x1024, 0}}; !cmp.Equal(got, want, cmp.AllowUnexported(span{})) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := stubsARM64(nil, 0x1000, header); len(got) != 0 {
		t.Errorf("the header for lazy binding has rules: %v", got)
	}
}
