// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/stack"
)

// Vmlinux is the kernel's file with debug information.
type Vmlinux struct {
	Path   string
	Object *objfile.Object
	// Stext is the link-time address of _stext. The running kernel has moved by the
	// difference to where kallsyms has it (KASLR).
	Stext stack.LinkAddr

	file *os.File
}

// ErrNoVmlinux is wrapped by errors about a kernel without a file.
var ErrNoVmlinux = errors.New("no vmlinux of the running kernel")

// maxNotes bounds /sys/kernel/notes, which has some 500 bytes.
const maxNotes = 64 << 10

// OpenVmlinux looks below root, "/" but for tests, where distributions install
// vmlinux for a release (uname -r) and returns the one with the build ID of the
// running kernel. The error, which wraps ErrNoVmlinux if there is none, says what was
// found instead. The caller closes it.
func OpenVmlinux(root, release string) (*Vmlinux, error) {
	if release == "" || strings.ContainsAny(release, "/\x00") {
		return nil, fmt.Errorf("kernel release %q: %w", release, ErrNoVmlinux)
	}
	id, err := runningBuildID(filepath.Join(root, "sys/kernel/notes"))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoVmlinux, err)
	}
	errs := []error{ErrNoVmlinux}
	for _, path := range []string{
		"usr/lib/debug/boot/vmlinux-" + release,
		"usr/lib/debug/lib/modules/" + release + "/vmlinux",
		"boot/vmlinux-" + release,
		"lib/modules/" + release + "/build/vmlinux",
	} {
		v, err := openVmlinux(filepath.Join(root, path), id)
		if err == nil {
			return v, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return nil, errors.Join(errs...)
}

func openVmlinux(path, id string) (*Vmlinux, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	v := &Vmlinux{Path: path, file: f}
	if err := v.check(id); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return v, nil
}

func (v *Vmlinux) check(id string) error {
	info, err := v.file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	if v.Object, err = objfile.Open(v.file, info.Size()); err != nil {
		return err
	}
	if got := v.Object.BuildID.String(); got != id {
		return fmt.Errorf("build ID %s, but the running kernel has %s", got, id)
	}
	v.Stext, err = findStext(v.Object)
	return err
}

// Close closes the file.
func (v *Vmlinux) Close() error { return v.file.Close() }

func findStext(o *objfile.Object) (addr stack.LinkAddr, err error) {
	syms, err := o.Symbols(objfile.SymTab)
	if err != nil {
		return 0, err
	}
	found := false
	names := syms.Names()
	err = syms.All(func(_ int, sym objfile.Symbol) bool {
		if sym.Section == 0 || sym.Size != 0 { // _stext is a label
			return true
		}
		if name, err := names.Bytes(sym.Name); err == nil && string(name) == "_stext" {
			addr, found = sym.Value, true
		}
		return !found
	})
	if err == nil && !found {
		err = errors.New("no symbol _stext")
	}
	return addr, err
}

// runningBuildID reads the build ID of the running kernel, in hex.
func runningBuildID(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxNotes))
	if err != nil {
		return "", err
	}
	if id := buildIDNote(b); id != "" {
		return id, nil
	}
	return "", fmt.Errorf("%s has no build ID", path)
}

// buildIDNote finds NT_GNU_BUILD_ID among notes with padding to 4 bytes (gABI, "Note
// Section"); "" if there is none.
func buildIDNote(b []byte) string {
	const gnuBuildID, header = 3, 12
	for len(b) >= header {
		name, desc := uint64(binary.NativeEndian.Uint32(b)), uint64(binary.NativeEndian.Uint32(b[4:]))
		typ := binary.NativeEndian.Uint32(b[8:])
		b = b[header:]
		begin := (name + 3) &^ 3
		if begin+desc > uint64(len(b)) {
			return ""
		}
		if typ == gnuBuildID && string(b[:name]) == "GNU\x00" {
			return hex.EncodeToString(b[begin : begin+desc])
		}
		b = b[min((begin+desc+3)&^3, uint64(len(b))):]
	}
	return ""
}

// LinkAddr returns the address in vmlinux of an address in the running kernel's own
// text, given the link-time address of _stext; ok is false for every other address.
// Lookup has been called before.
func (s *Symbols) LinkAddr(addr stack.Addr, stext stack.LinkAddr) (link stack.LinkAddr, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.static == nil {
		return 0, false
	}
	begin, limit := s.static.core[0], s.static.core[1]
	if begin == 0 || addr < begin || addr >= limit {
		return 0, false
	}
	return stext + stack.LinkAddr(addr-begin), true
}
