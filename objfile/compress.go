// SPDX-License-Identifier: Apache-2.0

package objfile

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

const (
	// A debug section shrinks 3 to 10 times; the slack is for tiny ones.
	maxRatio = 128
	slack    = 1 << 20
	// maxWindow is what a zstd frame may make us keep. Linkers use level 3 to 5,
	// whose window is 2 to 4 MiB.
	maxWindow = 32 << 20
)

// compression is a compressed section: its compressed bytes and what its header
// says of them.
type compression struct {
	kind elf.CompressionType
	size uint64 // decompressed, as claimed
	r    *io.SectionReader
}

// readCompression reads the compression header of s, if it has one.
func readCompression(s Section, r *io.SectionReader) (z compression, ok bool, err error) {
	if s.Flags&elf.SHF_COMPRESSED != 0 {
		var h [24]byte // Elf64_Chdr
		if _, err := r.ReadAt(h[:], 0); err != nil {
			return z, false, headerError(s, err)
		}
		z.kind = elf.CompressionType(binary.LittleEndian.Uint32(h[:]))
		z.size = binary.LittleEndian.Uint64(h[8:])
		z.r = io.NewSectionReader(r, 24, r.Size()-24)
		return z, true, nil
	}
	if !strings.HasPrefix(s.Name, ".zdebug_") {
		return z, false, nil
	}
	var h [12]byte // "ZLIB", then the size in big-endian order
	if _, err := r.ReadAt(h[:], 0); err != nil {
		return z, false, headerError(s, err)
	}
	if string(h[:4]) != "ZLIB" {
		return z, false, nil // ld leaves sections alone that do not shrink
	}
	z.kind = elf.COMPRESS_ZLIB
	z.size = binary.BigEndian.Uint64(h[4:])
	z.r = io.NewSectionReader(r, 12, r.Size()-12)
	return z, true, nil
}

func headerError(s Section, err error) error {
	if errors.Is(err, io.EOF) {
		return &FormatError{s.Off, fmt.Sprintf("section %.64q ends in its compression header", s.Name)}
	}
	return fmt.Errorf("read compression header of section %.64q: %w", s.Name, err)
}

func (z compression) inflate(limit int64) ([]byte, error) {
	in := uint64(z.r.Size())
	if limit < 0 || z.size > uint64(limit) || z.size > slack+maxRatio*in {
		return nil, fmt.Errorf("%d bytes from %d: %w", z.size, in, ErrTooLarge)
	}
	r, err := z.open()
	if err != nil {
		return nil, z.error(err)
	}
	defer r.Close()
	// Most sections get their memory at once. One that claims more than is usual
	// gets it as its bytes arrive.
	data := make([]byte, 0, min(z.size, slack/16+8*in))
	for uint64(len(data)) < z.size {
		if len(data) == cap(data) {
			bigger := make([]byte, len(data), min(z.size, 2*uint64(len(data))))
			copy(bigger, data)
			data = bigger
		}
		n, err := io.ReadFull(r, data[len(data):cap(data)])
		data = data[:len(data)+n]
		if err != nil {
			return nil, z.error(err)
		}
	}
	// The checksum is at the end.
	var more [1]byte
	if n, err := io.ReadFull(r, more[:]); n != 0 || !errors.Is(err, io.EOF) {
		if n != 0 {
			err = errors.New("more bytes than claimed")
		}
		return nil, z.error(err)
	}
	return data, nil
}

func (z compression) open() (io.ReadCloser, error) {
	switch z.kind {
	case elf.COMPRESS_ZLIB:
		return zlib.NewReader(z.r)
	case elf.COMPRESS_ZSTD:
		// Concurrency 1 decodes in the caller's goroutine.
		d, err := zstd.NewReader(z.r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(maxWindow))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	}
	return nil, fmt.Errorf("unknown compression %v", z.kind)
}

func (z compression) error(err error) error {
	_, off, _ := z.r.Outer()
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &FormatError{uint64(off), "compressed data ends early"}
	}
	return &FormatError{uint64(off), "compressed data: " + err.Error()}
}
