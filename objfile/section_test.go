// SPDX-License-Identifier: Apache-2.0

package objfile

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

func TestCompressedSections(t *testing.T) {
	plain := compile(t, "gcc", "-g", "-O1")
	want := open(t, plain)
	dir := t.TempDir()
	in := filepath.Join(dir, "plain")
	if err := os.WriteFile(in, plain, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, how := range []string{"zlib", "zstd", "zlib-gnu"} {
		out := filepath.Join(dir, how)
		if msg, err := exec.Command("objcopy", "--compress-debug-sections="+how, in, out).CombinedOutput(); err != nil {
			t.Fatalf("objcopy: %v\n%s", err, msg)
		}
		data, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		o, compressed := open(t, data), 0
		for _, name := range []string{"info", "abbrev", "line", "str", "line_str", "aranges"} {
			s, ok := o.Section(".zdebug_" + name)
			if !ok {
				if s, ok = o.Section(".debug_" + name); !ok {
					t.Fatalf("%s: no section for %s", how, name)
				}
			}
			ws, _ := want.Section(".debug_" + name)
			if s.Size != ws.Size {
				compressed++
				var b bytes.Buffer
				size, _, _ := o.Compressed(s)
				n, err := o.Inflate(&b, s, 1<<20)
				if wantData, _ := want.Data(ws, 1<<20); err != nil || size != ws.Size || n != int64(b.Len()) || !bytes.Equal(b.Bytes(), wantData) {
					t.Errorf("%s: %s: inflated %d bytes, %v; want %d", how, s.Name, n, err, len(wantData))
				}
			}
			got, err := o.Data(s, 1<<20)
			if wantData, _ := want.Data(ws, 1<<20); err != nil || !bytes.Equal(got, wantData) {
				t.Errorf("%s: %s: %d bytes, %v; want %d", how, s.Name, len(got), err, len(wantData))
			}
			if _, err := o.Data(s, int64(ws.Size)-1); !errors.Is(err, ErrTooLarge) {
				t.Errorf("%s: %s within one byte less: %v, want ErrTooLarge", how, s.Name, err)
			}
		}
		if compressed == 0 {
			t.Errorf("%s: no section was compressed", how)
		}
	}
}

// compressedSection returns an ELF file with one section that claims size bytes.
func compressedSection(kind elf.CompressionType, size uint64, packed []byte) []byte {
	chdr := make([]byte, 24)
	binary.LittleEndian.PutUint32(chdr, uint32(kind))
	binary.LittleEndian.PutUint64(chdr[8:], size)
	return elfImage{machine: elf.EM_X86_64, sections: []imageSection{
		{name: ".debug_info", typ: elf.SHT_PROGBITS, flags: elf.SHF_COMPRESSED, data: append(chdr, packed...)},
	}}.bytes()
}

func deflate(t testing.TB, data []byte) []byte {
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestCompressedSectionsThatLie(t *testing.T) {
	text := bytes.Repeat([]byte("the same words again and again. "), 1000)
	packed := deflate(t, text)
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	zpacked := enc.EncodeAll(text, nil)
	badSum := bytes.Clone(packed)
	badSum[len(badSum)-1] ^= 1
	noise := append([]byte{0x78, 0x9c}, bytes.Repeat([]byte{0xa5}, 2<<20)...)
	size := uint64(len(text))
	var format *FormatError
	for _, test := range []struct {
		name string
		data []byte
		is   error // nil: *FormatError
	}{
		{"claims 2 GiB of 2 MiB", compressedSection(elf.COMPRESS_ZLIB, 2<<30, noise), ErrTooLarge},
		{"claims 2^64-1", compressedSection(elf.COMPRESS_ZSTD, 1<<64-1, zpacked), ErrTooLarge},
		{"claims less than there is", compressedSection(elf.COMPRESS_ZLIB, size-1, packed), nil},
		{"claims more than there is", compressedSection(elf.COMPRESS_ZLIB, size+1, packed), nil},
		{"zstd claims more", compressedSection(elf.COMPRESS_ZSTD, size+1, zpacked), nil},
		{"zstd claims less", compressedSection(elf.COMPRESS_ZSTD, size-1, zpacked), nil},
		{"truncated", compressedSection(elf.COMPRESS_ZLIB, size, packed[:len(packed)/2]), nil},
		{"zstd truncated", compressedSection(elf.COMPRESS_ZSTD, size, zpacked[:len(zpacked)/2]), nil},
		{"wrong checksum", compressedSection(elf.COMPRESS_ZLIB, size, badSum), nil},
		{"not zlib", compressedSection(elf.COMPRESS_ZLIB, 100, []byte("hello")), nil},
		{"not zstd", compressedSection(elf.COMPRESS_ZSTD, 100, []byte("hello")), nil},
		{"empty", compressedSection(elf.COMPRESS_ZSTD, 100, nil), nil},
		{"unknown method", compressedSection(77, 100, packed), nil},
		{"no room for the header", elfImage{sections: []imageSection{
			{name: ".debug_info", typ: elf.SHT_PROGBITS, flags: elf.SHF_COMPRESSED, data: []byte{1, 0, 0}}}}.bytes(), nil},
	} {
		o := open(t, test.data)
		s, _ := o.Section(".debug_info")
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := o.Data(s, 4<<30)
		runtime.ReadMemStats(&after)
		if test.is != nil && !errors.Is(err, test.is) || test.is == nil && !errors.As(err, &format) {
			t.Errorf("%s: %v, want %v or a *FormatError", test.name, err, test.is)
		}
		if _, err := o.Inflate(io.Discard, s, 4<<30); test.is != nil && !errors.Is(err, test.is) || test.is == nil && !errors.As(err, &format) {
			t.Errorf("inflate: %s: %v, want %v or a *FormatError", test.name, err, test.is)
		}
		if grew := after.TotalAlloc - before.TotalAlloc; grew > 8<<20 {
			t.Errorf("%s: %d bytes allocated", test.name, grew)
		}
	}
	good := open(t, compressedSection(elf.COMPRESS_ZSTD, size, zpacked))
	if got, err := good.Data(good.Sections[0], 1<<20); err != nil || !bytes.Equal(got, text) {
		t.Errorf("honest zstd section: %d bytes, %v", len(got), err)
	}
}

func TestDataOfSectionsWithout(t *testing.T) {
	o := open(t, (elfImage{}).bytes())
	var format *FormatError
	if _, err := o.Data(Section{Type: elf.SHT_NOBITS, Size: 1 << 60}, 1<<62); !errors.Is(err, ErrNotFound) {
		t.Errorf("SHT_NOBITS: %v, want ErrNotFound", err)
	}
	if _, err := o.Data(Section{Off: 8, Size: 1 << 60}, 1<<62); !errors.As(err, &format) {
		t.Errorf("outside the file: %v, want a *FormatError", err)
	}
	if _, err := o.Data(Section{Off: 1<<64 - 8, Size: 16}, 1<<62); !errors.As(err, &format) {
		t.Errorf("offset + size overflows: %v, want a *FormatError", err)
	}
	if _, err := o.Data(Section{Off: 0, Size: 64}, 63); !errors.Is(err, ErrTooLarge) {
		t.Errorf("over the limit: %v, want ErrTooLarge", err)
	}
}
