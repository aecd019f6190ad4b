// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lowflame/lowflame/stack"
)

// fakeVmlinux makes a file with the build ID and layout of a kernel, and the notes
// that the running one would show.
func fakeVmlinux(t *testing.T, root, path, id string) {
	t.Helper()
	src := filepath.Join(t.TempDir(), "k.s")
	write(t, src, ".text\n.globl _stext\n_stext:\n.zero 16\n.globl work\n.type work, %function\nwork: .zero 16\n.size work, 16\n")
	out := filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "gcc", "-nostdlib", "-static", "-no-pie", "-Wl,-e,_stext,-Ttext=0xffffffff81000000,--build-id=0x"+id, "-o", out, src)
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if b, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, b)
	}
}

func TestVmlinux(t *testing.T) {
	root := t.TempDir()
	const id, other = "00112233445566778899aabbccddeeff00112233", "ff112233445566778899aabbccddeeff00112233"
	if _, err := OpenVmlinux(root, "6.1"); !errors.Is(err, ErrNoVmlinux) {
		t.Fatal(err)
	}
	fakeVmlinux(t, root, "usr/lib/debug/boot/vmlinux-6.1", other)
	fakeVmlinux(t, root, "lib/modules/6.1/build/vmlinux", id)
	if err := os.MkdirAll(filepath.Join(root, "sys/kernel"), 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "objcopy", "-O", "binary", "--only-section=.note.gnu.build-id",
		filepath.Join(root, "lib/modules/6.1/build/vmlinux"), filepath.Join(root, "sys/kernel/notes"))
	v, err := OpenVmlinux(root, "6.1")
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if !strings.HasSuffix(v.Path, "/build/vmlinux") || v.Stext != 0xffffffff81000000 {
		t.Errorf("%s, _stext at %#x", v.Path, v.Stext)
	}
	// The running kernel lies elsewhere.
	moved := strings.ReplaceAll(sample, "ffffffff81", "ffffffff9b")
	s, _ := files(t, moved, sampleModules)
	s.Lookup(0xffffffff9b000000)
	for addr, want := range map[stack.Addr]stack.LinkAddr{
		0xffffffff9b000010: 0xffffffff81000010, 0xffffffff9b0003ff: 0xffffffff810003ff,
		0xffffffff9b000400: 0, 0xffffffff9affffff: 0, 0xffffffffc0001000: 0,
	} {
		if got, ok := s.LinkAddr(addr, v.Stext); got != want || ok != (want != 0) {
			t.Errorf("LinkAddr(%#x) = %#x, %v; want %#x", addr, got, ok, want)
		}
	}
	if err := os.Remove(filepath.Join(root, "lib/modules/6.1/build/vmlinux")); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenVmlinux(root, "6.1"); !errors.Is(err, ErrNoVmlinux) || !strings.Contains(err.Error(), "build ID "+other) {
		t.Errorf("another kernel's: %v", err)
	}
	if _, err := OpenVmlinux(root, "../x"); !errors.Is(err, ErrNoVmlinux) {
		t.Error(err)
	}
}

func TestRunningBuildID(t *testing.T) {
	id, err := runningBuildID("/sys/kernel/notes")
	if err != nil {
		t.Fatal(err)
	}
	if len(id) < 16 {
		t.Errorf("build ID %q", id)
	}
}

func FuzzNotes(f *testing.F) {
	f.Add([]byte("\x04\x00\x00\x00\x04\x00\x00\x00\x03\x00\x00\x00GNU\x00abcd"))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\x03\x00\x00\x00GNU\x00abcd"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if id := buildIDNote(b); len(id) > 2*len(b) {
			t.Fatalf("%q", id)
		}
	})
}
