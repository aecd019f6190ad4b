// SPDX-License-Identifier: Apache-2.0

package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Version is the version of the format; an index of another one is not read.
const Version = 1

const (
	magic = "lowflame"
	// headerSize is what the header takes at the start of the file.
	headerSize = 256
	// blockTarget is about how large blocks are, in bytes. Smaller ones cost
	// less to read, and more to store: each has dictionaries of its own.
	blockTarget  = 1 << 10
	stringTarget = 2 << 10
	// maxBlock bounds a block with its checksum. One may exceed its target by a
	// string, see maxString.
	maxBlock = 64 << 10
	// maxString is the longest name or path that is kept, in bytes.
	maxString = 32 << 10
	crcSize   = 4
)

// The sections of a file. Each is blocks, found by a directory of their first keys.
const (
	codeSection   = iota // parts by address
	nameSection          // names by number
	fileSection          // paths by number
	symbolSection        // symbols by address; then maxSymbols-1 more
	maxSymbols    = 4    // tables of symbols, the first that covers an address wins
	sectionCount  = symbolSection + maxSymbols
)

// ErrFormat is wrapped by all errors that say that an index is not one, is of
// another version, or is damaged.
var ErrFormat = errors.New("damaged index")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// section is where the directory of a section is: pages of pageEntries entries, in
// the order of their keys, each page a block.
type section struct {
	off   uint64 // of the first page
	count uint64 // entries
}

const (
	// pageEntries is how many entries a page of a directory has.
	pageEntries = 256
	// entrySize: the first key of a block, its offset, its size. Little-endian.
	entrySize = 8 + 5 + 3
	pageSize  = pageEntries*entrySize + crcSize
)

// entry is an entry of a directory.
type entry struct {
	key  uint64 // the first that is in the block
	off  uint64 // of the block in the file
	size uint32 // of the block, with its checksum
}

func appendEntry(dst []byte, e entry) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, e.key)
	return binary.LittleEndian.AppendUint64(dst, e.off|uint64(e.size)<<40)
}

// maxFile is the largest file whose offsets fit an entry.
const maxFile = 1<<40 - 1

func decodeEntry(b []byte) entry {
	v := binary.LittleEndian.Uint64(b[8:])
	return entry{key: binary.LittleEndian.Uint64(b), off: v & maxFile, size: uint32(v >> 40)}
}

// pages returns how many pages the directory of s has.
func (s section) pages() uint64 { return (s.count + pageEntries - 1) / pageEntries }

// page returns where page i of the directory of s is, and how large.
func (s section) page(i uint64) (off uint64, size uint32) {
	n := min(s.count-i*pageEntries, pageEntries)
	return s.off + i*pageSize, uint32(n*entrySize + crcSize)
}

// appendCRC ends a block.
func appendCRC(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// checkCRC returns what a block holds.
func checkCRC(b []byte) ([]byte, error) {
	n := len(b) - crcSize
	if n < 0 || binary.LittleEndian.Uint32(b[n:]) != crc32.Checksum(b[:n], castagnoli) {
		return nil, fmt.Errorf("checksum of a block of %d bytes: %w", len(b), ErrFormat)
	}
	return b[:n], nil
}

// encodeHeader returns the header of a file: magic, version, size of the file,
// sections, zeros, checksum.
func encodeHeader(sections *[sectionCount]section, size uint64) []byte {
	h := append(make([]byte, 0, headerSize), magic...)
	h = binary.LittleEndian.AppendUint64(h, Version)
	h = binary.LittleEndian.AppendUint64(h, size)
	for _, s := range sections {
		h = binary.LittleEndian.AppendUint64(h, s.off)
		h = binary.LittleEndian.AppendUint64(h, s.count)
	}
	return appendCRC(append(h, make([]byte, headerSize-crcSize-len(h))...))
}

// decodeHeader returns the sections of a file of size bytes.
func decodeHeader(h []byte, size int64) (sections [sectionCount]section, err error) {
	if len(h) != headerSize || string(h[:len(magic)]) != magic {
		return sections, fmt.Errorf("no index: %w", ErrFormat)
	}
	if v := binary.LittleEndian.Uint64(h[8:]); v != Version {
		return sections, fmt.Errorf("version %d: %w", v, ErrFormat)
	}
	if _, err := checkCRC(h); err != nil {
		return sections, err
	}
	if n := binary.LittleEndian.Uint64(h[16:]); size < 0 || n != uint64(size) || n > maxFile {
		return sections, fmt.Errorf("%d bytes of %d: %w", size, n, ErrFormat)
	}
	for i := range sections {
		s := section{binary.LittleEndian.Uint64(h[24+16*i:]), binary.LittleEndian.Uint64(h[32+16*i:])}
		if s.off > uint64(size) || s.count > uint64(size)/entrySize || s.count*entrySize > uint64(size)-s.off {
			return sections, fmt.Errorf("section %d lies outside the file: %w", i, ErrFormat)
		}
		sections[i] = s
	}
	return sections, nil
}
