// SPDX-License-Identifier: Apache-2.0

package objfile

import (
	"debug/elf"
	"fmt"
	"io"
	"strings"

	"github.com/lowflame/lowflame/stack"
)

// Section is a section header. Nothing in it has been checked against the file.
type Section struct {
	Name    string
	Type    elf.SectionType
	Flags   elf.SectionFlag
	Addr    stack.LinkAddr
	Off     uint64 // file offset
	Size    uint64 // in the file, that is, compressed if it is compressed
	Link    uint32
	Info    uint32
	EntSize uint64
}

func cutName(names string, off uint32) string {
	if uint64(off) >= uint64(len(names)) {
		return ""
	}
	name, _, _ := strings.Cut(names[off:], "\x00")
	return name
}

// Section returns the first section with the name.
func (o *Object) Section(name string) (Section, bool) {
	for i := range o.Sections {
		if o.Sections[i].Name == name {
			return o.Sections[i], true
		}
	}
	return Section{}, false
}

// section returns the section with an index as section headers link to.
func (o *Object) section(index uint32) (Section, bool) {
	if index == 0 || uint64(index) > uint64(len(o.Sections)) {
		return Section{}, false
	}
	return o.Sections[index-1], true
}

// Raw returns a reader of the bytes of s as they are in the file, compressed or
// not. It wraps ErrNotFound if s has none (SHT_NOBITS).
func (o *Object) Raw(s Section) (*io.SectionReader, error) {
	if s.Type == elf.SHT_NOBITS {
		return nil, fmt.Errorf("bytes of section %.64q: %w", s.Name, ErrNotFound)
	}
	if !o.has(s.Off, s.Size) {
		return nil, &FormatError{s.Off, fmt.Sprintf("section %.64q lies outside the file", s.Name)}
	}
	return io.NewSectionReader(o.r, int64(s.Off), int64(s.Size)), nil
}

// Data returns the bytes of s, decompressed if it is compressed (SHF_COMPRESSED
// with zlib or zstd, and the older .zdebug_ sections). The slice is the caller's.
//
// The error wraps ErrTooLarge if that would be more than limit bytes, or more than
// 1 MiB + 128 times the compressed size, which no real debug section reaches;
// ErrNotFound if the section has no bytes in the file; a *FormatError; or an error
// of the reader. What is allocated grows with what was really decompressed.
//
// See gABI, "Section Compression".
func (o *Object) Data(s Section, limit int64) ([]byte, error) {
	r, err := o.Raw(s)
	if err != nil {
		return nil, err
	}
	z, compressed, err := readCompression(s, r)
	if err != nil {
		return nil, err
	}
	if compressed {
		data, err := z.inflate(limit)
		if err != nil {
			return nil, fmt.Errorf("decompress section %.64q: %w", s.Name, err)
		}
		return data, nil
	}
	if int64(s.Size) > limit {
		return nil, fmt.Errorf("section %.64q of %d bytes: %w", s.Name, s.Size, ErrTooLarge)
	}
	data := make([]byte, s.Size)
	if err := o.read(data, s.Off); err != nil {
		return nil, fmt.Errorf("read section %.64q: %w", s.Name, err)
	}
	return data, nil
}
