// SPDX-License-Identifier: Apache-2.0

package dwarf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/lowflame/lowflame/internal/hostile"
	"github.com/lowflame/lowflame/objfile"
)

const (
	// heapLimit is the size up to which a decompressed section is kept in memory.
	heapLimit = 256 << 10
	// spillLimit is the size of a section that is decompressed to a file.
	spillLimit = 2 << 30
	// windowSize is what is read at once where reading goes forward.
	windowSize = 64 << 10
	// cachedBlocks, of 4 KiB each, are kept of a section read at random.
	cachedBlocks = 256
)

// errMalformed is the error of all that cannot be DWARF: it costs the unit it is in.
var errMalformed = errors.New("malformed DWARF")

// section is a debug section, decompressed. The zero section is empty.
type section struct {
	r      io.ReaderAt
	size   uint64
	spill  *os.File // the file the section was decompressed to
	window []byte   // bytes from at on, of the last forward read
	at     uint64
	blocks *hostile.Blocks
}

// openSection opens a section of o by its name without ".debug_". A section that
// is not there is empty.
func openSection(o *objfile.Object, name string, c *Config) (section, error) {
	s, ok := o.Section(".debug_" + name)
	if !ok {
		if s, ok = o.Section(".zdebug_" + name); !ok {
			return section{}, nil
		}
	}
	return openHeader(o, s, c)
}

// openHeader opens the section of o with a header.
func openHeader(o *objfile.Object, s objfile.Section, c *Config) (section, error) {
	size, compressed, err := o.Compressed(s)
	if errors.Is(err, objfile.ErrNotFound) {
		return section{}, nil
	}
	if err != nil {
		return section{}, err
	}
	if !compressed {
		r, err := o.Raw(s)
		return section{r: r, size: s.Size}, err
	}
	if size <= heapLimit {
		data, err := o.Data(s, heapLimit)
		return section{r: readerAt(data), size: uint64(len(data))}, err
	}
	f, err := c.temp()
	if err != nil {
		return section{}, fmt.Errorf("decompress section %.64q: %w", s.Name, err)
	}
	n, err := o.Inflate(f, s, spillLimit)
	if err != nil {
		return section{}, errors.Join(err, f.Close())
	}
	return section{r: f, size: uint64(n), spill: f}, nil
}

// readerAt is bytes.Reader without its state.
type readerAt []byte

func (b readerAt) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off > int64(len(b)) {
		return 0, io.EOF
	}
	n := copy(p, b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (s *section) close() error {
	if s.spill == nil {
		return nil
	}
	return s.spill.Close()
}

// readInto reads n bytes at off into buf, which grows as needed.
func (s *section) readInto(buf []byte, off, n uint64) ([]byte, error) {
	if off > s.size || n > s.size-off {
		return buf[:0], errMalformed
	}
	if uint64(cap(buf)) < n {
		// A little more, so that units that grow slowly do not each allocate.
		buf = make([]byte, n, n+n/8)
	}
	buf = buf[:n]
	if n == 0 {
		return buf, nil
	}
	if m, err := s.r.ReadAt(buf, int64(off)); m < len(buf) {
		return buf[:0], fmt.Errorf("read %d bytes at %#x: %w", n, off, err)
	}
	return buf, nil
}

// view returns the bytes at off: at least n, or all there are. They are valid until
// the next call. Good for reads that mostly go forward.
func (s *section) view(off, n uint64) ([]byte, error) {
	if off >= s.size {
		return nil, errMalformed
	}
	n = min(n, s.size-off)
	if off >= s.at && off-s.at+n <= uint64(len(s.window)) {
		return s.window[off-s.at:], nil
	}
	var err error
	s.window, err = s.readInto(s.window, off, min(max(n, windowSize), s.size-off))
	s.at = off
	return s.window, err
}

// uint reads a number of 4 or 8 bytes at off.
func (s *section) uint(off uint64, size uint8) (uint64, error) {
	var b [8]byte
	if off > s.size || uint64(size) > s.size-off {
		return 0, errMalformed
	}
	if _, err := s.random().ReadAt(b[:size], int64(off)); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

// random returns the block cache of the section.
func (s *section) random() *hostile.Blocks {
	if s.blocks == nil {
		r := s.r
		if r == nil {
			r = readerAt(nil)
		}
		s.blocks = hostile.NewBlocks(r, int64(s.size), cachedBlocks)
	}
	return s.blocks
}

// copyAt appends up to n bytes at off to dst through the block cache.
func (s *section) copyAt(dst []byte, off, n uint64) ([]byte, error) {
	if off >= s.size {
		return dst, errMalformed
	}
	n = min(n, s.size-off)
	for n > 0 {
		b, err := s.random().At(int64(off))
		if err != nil {
			return dst, err
		}
		b = b[:min(n, uint64(len(b)))]
		dst = append(dst, b...)
		off, n = off+uint64(len(b)), n-uint64(len(b))
	}
	return dst, nil
}
