// SPDX-License-Identifier: Apache-2.0

package index

import (
	"fmt"
	"io"
)

// output is the file being written.
type output struct {
	w   io.WriterAt
	off int64
	buf []byte
}

// append writes b at the end as a block and returns where it is.
func (o *output) append(b []byte) (off uint64, size uint32, err error) {
	if len(b) > maxBlock-crcSize || o.off > maxFile-maxBlock {
		return 0, 0, fmt.Errorf("write index: block of %d bytes at %d: %w", len(b), o.off, ErrTooLarge)
	}
	o.buf = appendCRC(append(o.buf[:0], b...))
	if _, err := o.w.WriteAt(o.buf, o.off); err != nil {
		return 0, 0, fmt.Errorf("write index: %w", err)
	}
	off = uint64(o.off)
	o.off += int64(len(o.buf))
	return off, uint32(len(o.buf)), nil
}

// sectionWriter writes the blocks of a section, between those of others, and keeps
// its directory: 16 bytes per block.
type sectionWriter struct {
	out       *output
	directory []entry
}

// write appends a block whose first key is key; keys must not fall.
func (s *sectionWriter) write(key uint64, block []byte) error {
	if len(s.directory) == maxPages*pageEntries {
		return fmt.Errorf("write index: %d blocks: %w", len(s.directory), ErrTooLarge)
	}
	off, size, err := s.out.append(block)
	s.directory = append(s.directory, entry{key, off, size})
	return err
}

// end writes the directory and returns where it is.
func (s *sectionWriter) end() (section, error) {
	sec := section{off: uint64(s.out.off), count: uint64(len(s.directory))}
	var page []byte
	for i := range s.directory {
		page = appendEntry(page, s.directory[i])
		if (i+1)%pageEntries == 0 || i+1 == len(s.directory) {
			if _, _, err := s.out.append(page); err != nil {
				return sec, err
			}
			page = page[:0]
		}
	}
	return sec, nil
}
