// SPDX-License-Identifier: Apache-2.0

package objfile

import (
	"bytes"
	"debug/elf"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestOpenRefuses(t *testing.T) {
	good := elfImage{machine: elf.EM_X86_64}.bytes()
	edit := func(f func(b []byte)) []byte {
		b := bytes.Clone(good)
		f(b)
		return b
	}
	var format *FormatError
	for _, test := range []struct {
		name string
		data []byte
		is   error
	}{
		{"empty file", nil, ErrNotELF},
		{"shell script", []byte("#!/bin/sh\n" + strings.Repeat("echo\n", 20)), ErrNotELF},
		{"truncated header", good[:63], ErrNotELF},
		{"32-bit", edit(func(b []byte) { b[elf.EI_CLASS] = byte(elf.ELFCLASS32) }), ErrUnsupported},
		{"big-endian", edit(func(b []byte) { b[elf.EI_DATA] = byte(elf.ELFDATA2MSB) }), ErrUnsupported},
		{"version 0", edit(func(b []byte) { b[elf.EI_VERSION] = 0 }), nil},
		{"program headers outside", edit(func(b []byte) { b[0x27] = 0x7f }), nil},
		{"program headers at the end", good[:headerSize+progSize], nil},
		{"program headers of 1 byte", edit(func(b []byte) { b[0x36] = 1 }), nil},
		{"too many program headers", edit(func(b []byte) { b[0x38], b[0x39] = 0xfe, 0xff }), nil},
	} {
		_, err := Open(bytes.NewReader(test.data), int64(len(test.data)))
		if test.is != nil && !errors.Is(err, test.is) || test.is == nil && !errors.As(err, &format) {
			t.Errorf("%s: %v, want %v or a *FormatError", test.name, err, test.is)
		}
	}
}

type panics struct{}

func (panics) ReadAt([]byte, int64) (int, error) { panic("out of order") }

func TestOpenRecovers(t *testing.T) {
	var format *FormatError
	if _, err := Open(panics{}, 1000); !errors.As(err, &format) {
		t.Errorf("reader that panics: %v, want a *FormatError", err)
	}
}

func TestOpenWithoutSectionHeaders(t *testing.T) {
	good := elfImage{machine: elf.EM_X86_64, notes: noteBytes("GNU", 3, "build id")}.bytes()
	for name, edit := range map[string]func(b []byte){
		"none":            func(b []byte) { clear(b[0x28:0x30]) },
		"outside":         func(b []byte) { b[0x2f] = 0x70 },
		"of 1 byte":       func(b []byte) { b[0x3a] = 1 },
		"too many":        func(b []byte) { b[0x3c], b[0x3d] = 0xff, 0xfe },
		"no name table":   func(b []byte) { b[0x3e] = 0 },
		"bad name table":  func(b []byte) { b[0x3e] = 99 },
		"name table huge": func(b []byte) { b[len(b)-sectionSize+38] = 1 }, // sh_size
	} {
		b := bytes.Clone(good)
		edit(b)
		o := open(t, b)
		if o.Sections != nil || o.SectionsErr == nil {
			t.Errorf("%s: %d sections, SectionsErr %v", name, len(o.Sections), o.SectionsErr)
		}
		if len(o.Segments) != 1 || o.BuildID.Kind != BuildIDGNU {
			t.Errorf("%s: segments %v, build ID %v", name, o.Segments, o.BuildID)
		}
	}
}

// More sections or segments than 16 bits count have their number in section 0.
func TestOpenExtendedCounts(t *testing.T) {
	b := elfImage{machine: elf.EM_X86_64, sections: []imageSection{{name: ".text"}}}.bytes()
	shoff := len(b) - 3*sectionSize
	b[0x38], b[0x39] = 0xff, 0xff // e_phnum = PN_XNUM
	b[shoff+44] = 2               // sh_info
	b[0x3c], b[0x3d] = 0, 0       // e_shnum
	b[shoff+32] = 3               // sh_size
	b[0x3e], b[0x3f] = 0xff, 0xff // e_shstrndx = SHN_XINDEX
	b[shoff+40] = 2               // sh_link
	o := open(t, b)
	if len(o.Segments) != 1 || len(o.Sections) != 2 || o.Sections[0].Name != ".text" {
		t.Errorf("segments %v, sections %v, %v", o.Segments, o.Sections, o.SectionsErr)
	}
}

// systemFiles are binaries of many makers that are on most machines.
func systemFiles(t *testing.T) []string {
	t.Helper()
	var files []string
	for _, pattern := range []string{"/usr/bin/[b-h]*", "/usr/lib/*-linux-gnu/lib[a-d]*.so.*", "/usr/local/go/bin/*"} {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, matches[:min(len(matches), 60)]...)
	}
	return files
}

func TestAgreesWithDebugELF(t *testing.T) {
	n := 0
	for _, path := range systemFiles(t) {
		want, err := elf.Open(path)
		if err != nil {
			continue
		}
		n++
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		compare(t, path, want, open(t, data))
		want.Close()
	}
	if n == 0 {
		t.Skip("no ELF files in /usr/bin")
	}
	t.Logf("%d files", n)
}

// compare holds o against what debug/elf says of the same file.
func compare(t *testing.T, path string, want *elf.File, o *Object) {
	t.Helper()
	if o.Machine != want.Machine || o.Type != want.Type || uint64(o.Entry) != want.Entry {
		t.Errorf("%s: %v %v entry %#x", path, o.Machine, o.Type, o.Entry)
	}
	var segments []Segment
	for _, p := range want.Progs {
		if p.Type == elf.PT_LOAD {
			segments = append(segments, Segment{
				Off: asOff(p.Off), Addr: asAddr(p.Vaddr), FileSize: p.Filesz, MemSize: p.Memsz, Align: p.Align,
				Exec: p.Flags&elf.PF_X != 0, Write: p.Flags&elf.PF_W != 0,
			})
		}
	}
	if diff := cmp.Diff(segments, o.Segments); diff != "" {
		t.Errorf("%s: segments (-debug/elf +ours)\n%s", path, diff)
	}
	if len(o.Sections) != len(want.Sections)-1 {
		t.Fatalf("%s: %d sections, want %d: %v", path, len(o.Sections), len(want.Sections)-1, o.SectionsErr)
	}
	for i, s := range o.Sections {
		w := want.Sections[i+1]
		if s.Name != w.Name || s.Type != w.Type || s.Flags != w.Flags || s.Off != w.Offset || s.Size != w.FileSize && w.Type != elf.SHT_NOBITS {
			t.Errorf("%s: section %d is %+v, want %+v", path, i, s, w.SectionHeader)
		}
		got, err := o.Data(s, 64<<20)
		if wantData, wantErr := w.Data(); w.Type != elf.SHT_NOBITS && (!bytes.Equal(got, wantData) || (err == nil) != (wantErr == nil)) {
			t.Errorf("%s: %s: %d bytes, %v; want %d, %v", path, s.Name, len(got), err, len(wantData), wantErr)
		}
	}
	if want.Machine == elf.EM_X86_64 || want.Machine == elf.EM_AARCH64 {
		wantSyms, _ := want.Symbols()
		compareSymbols(t, path, wantSyms, o, SymTab)
		wantSyms, _ = want.DynamicSymbols()
		compareSymbols(t, path, wantSyms, o, DynSym)
	}
}

func compareSymbols(t *testing.T, path string, want []elf.Symbol, o *Object, table SymTable) {
	t.Helper()
	syms, err := o.Symbols(table)
	if err != nil {
		if len(want) > 0 || !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v: %v, want %d symbols", path, table, err, len(want))
		}
		return
	}
	names, bad := syms.Names(), 0
	err = syms.All(func(i int, s Symbol) bool {
		if i == 0 {
			return true // debug/elf leaves the null symbol out
		}
		name, err := names.Bytes(s.Name)
		if err != nil || i > len(want) {
			bad++
			return true
		}
		w := want[i-1]
		if string(name) != w.Name || uint64(s.Value) != w.Value || s.Size != w.Size || s.Section != w.Section ||
			s.Type != elf.ST_TYPE(w.Info) || s.Bind != elf.ST_BIND(w.Info) {
			bad++
		}
		if one, err := syms.Name(s.Name); i%50 == 0 && (err != nil || one != w.Name) {
			bad++
		}
		return true
	})
	if err != nil || bad > 0 || syms.Len != len(want)+1 && len(want) > 0 {
		t.Errorf("%s: %v: %d of %d symbols differ, %d expected, %v", path, table, bad, syms.Len, len(want), err)
	}
}

// What the dynamic linker can find without section headers, so must we.
func TestStrippedOfSectionHeaders(t *testing.T) {
	for _, args := range [][]string{
		{"-rdynamic", "-Wl,--hash-style=gnu"}, {"-rdynamic", "-Wl,--hash-style=sysv"}, {"-shared", "-fPIC"},
		{"-no-pie", "-rdynamic", "-Wl,-z,noseparate-code"}, {"-fuse-ld=gold", "-rdynamic"},
	} {
		whole := compile(t, "gcc", append(args, "-O1")...)
		full, bare := open(t, whole), open(t, withoutSections(whole))
		if full.BuildID != bare.BuildID || full.BuildID.Kind != BuildIDGNU {
			t.Errorf("%v: build ID %v, without sections %v", args, full.BuildID, bare.BuildID)
		}
		if diff := cmp.Diff(definedNames(t, full, DynSym), definedNames(t, bare, DynSym)); diff != "" {
			t.Errorf("%v: .dynsym (-whole +bare)\n%s", args, diff)
		}
		data1, addr1, hdr1, hdrAddr1, err1 := full.EHFrame()
		data2, addr2, hdr2, hdrAddr2, err2 := bare.EHFrame()
		if err1 != nil || err2 != nil || addr1 != addr2 || hdrAddr1 != hdrAddr2 || !bytes.Equal(hdr1, hdr2) || !bytes.Equal(data1, data2) {
			t.Errorf("%v: EHFrame: %d bytes at %#x, hdr %d at %#x, %v; without sections %d at %#x, hdr %d at %#x, %v", args,
				len(data1), addr1, len(hdr1), hdrAddr1, err1, len(data2), addr2, len(hdr2), hdrAddr2, err2)
		}
		f, err := elf.NewFile(bytes.NewReader(whole))
		if err != nil {
			t.Fatal(err)
		}
		s := f.Section(".eh_frame")
		if want, err := s.Data(); err != nil || !bytes.Equal(data1, want) || uint64(addr1) != s.Addr {
			t.Errorf("%v: .eh_frame of %d bytes at %#x, want %d at %#x", args, len(data1), addr1, len(want), s.Addr)
		}
	}
}

func definedNames(t *testing.T, o *Object, table SymTable) []string {
	t.Helper()
	syms, err := o.Symbols(table)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	if err := syms.All(func(_ int, s Symbol) bool {
		if name, err := syms.Name(s.Name); err != nil {
			t.Error(err)
		} else if s.Section != elf.SHN_UNDEF {
			names = append(names, name)
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if len(names) < 2 {
		t.Fatalf("%v has %d symbols", table, len(names))
	}
	return names
}

func TestEHFrameWithoutHeader(t *testing.T) {
	o := open(t, compile(t, "gcc", "-static", "-Wl,--no-eh-frame-hdr"))
	data, addr, hdr, _, err := o.EHFrame()
	s, _ := o.Section(".eh_frame")
	if err != nil || hdr != nil || addr != s.Addr || uint64(len(data)) != s.Size {
		t.Errorf("EHFrame: %d bytes at %#x, hdr %d, %v; want %d at %#x", len(data), addr, len(hdr), err, s.Size, s.Addr)
	}
	debug := elfImage{sections: []imageSection{{name: ".eh_frame", typ: elf.SHT_NOBITS, data: make([]byte, 8)}}}
	if _, _, _, _, err := open(t, debug.bytes()).EHFrame(); !errors.Is(err, ErrNotFound) {
		t.Errorf("EHFrame of a file of debug information: %v, want ErrNotFound", err)
	}
	if _, _, _, _, err := open(t, (elfImage{}).bytes()).EHFrame(); !errors.Is(err, ErrNotFound) {
		t.Errorf("EHFrame of a file without: %v, want ErrNotFound", err)
	}
}
