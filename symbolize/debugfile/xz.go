// SPDX-License-Identifier: Apache-2.0

package debugfile

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"
	"math"

	"github.com/ulikunitz/xz/lzma"

	"github.com/lowflame/lowflame/internal/hostile"
)

// errXZ is wrapped by errors about compressed data that is malformed.
var errXZ = errors.New("malformed xz data")

// decompressXZ writes the data of the first xz stream of r to w.
//
// The container is read here rather than by the library, whose reader allocates a
// dictionary as large as a header asks for, up to 4 GiB. No distance in the data is
// longer than what has been written before it, so a dictionary of limit bytes, which
// is the most that w takes, does for any.
//
// See "The .xz File Format" 1.2.0.
func decompressXZ(w io.Writer, r *bufio.Reader, limit int64) (err error) {
	defer func() {
		if p := recover(); p != nil { // the library disclaims nothing, and promises nothing
			err = fmt.Errorf("%w: %v", errXZ, p)
		}
	}()
	x := &xzReader{r: r, limit: limit, buf: make([]byte, 64<<10)}
	if err := x.header(); err != nil {
		return x.error("stream header", err)
	}
	for range maxBlocks {
		more, err := x.block(w)
		if err != nil {
			return x.error("block", err)
		}
		if !more {
			return nil
		}
	}
	return fmt.Errorf("%w: too many blocks", errXZ)
}

// maxBlocks is for data written by many threads; xz makes blocks of 24 MiB by default.
const maxBlocks = 1 << 10

// maxDicts bounds all dictionaries, in those as large as what may be decompressed:
// each block begins with a new one, which is zeroed.
const maxDicts = 16

const (
	xzMagic     = "\xfd7zXZ\x00"
	lzma2Filter = 0x21
)

// xzReader reads one stream.
type xzReader struct {
	r     *bufio.Reader
	limit int64
	buf   []byte
	check byte  // kind of checksum
	dicts int64 // bytes of all dictionaries so far
}

// write errors are about our own files; all others are about the data.
type writeError struct{ error }

func (e writeError) Unwrap() error { return e.error }

func (x *xzReader) error(part string, err error) error {
	var ours writeError
	if errors.As(err, &ours) {
		return ours.error
	}
	return fmt.Errorf("%w: %s: %w", errXZ, part, err)
}

// header reads the stream header: magic, flags, checksum of the flags (§2.1.1).
func (x *xzReader) header() error {
	h := x.buf[:12]
	if _, err := io.ReadFull(x.r, h); err != nil {
		return err
	}
	if string(h[:6]) != xzMagic || h[6] != 0 || h[7] > 15 || crc32.ChecksumIEEE(h[6:8]) != binary.LittleEndian.Uint32(h[8:]) {
		return errors.New("no xz stream")
	}
	x.check = h[7]
	return nil
}

// block decompresses a block (§3). more is false if what follows is the index.
func (x *xzReader) block(w io.Writer) (more bool, err error) {
	size, err := x.r.ReadByte()
	if err != nil || size == 0 {
		return false, err
	}
	h := x.buf[:4*(int(size)+1)]
	h[0] = size
	if _, err := io.ReadFull(x.r, h[1:]); err != nil {
		return false, err
	}
	dict, err := parseBlockHeader(h)
	if err != nil {
		return false, err
	}
	dict = max(min(dict, x.limit), lzma.MinDictCap)
	if x.dicts += dict; x.dicts > maxDicts*max(x.limit, lzma.MinDictCap) {
		return false, errors.New("blocks are too small for their windows")
	}
	in := &countingReader{r: x.r}
	data, err := lzma.Reader2Config{DictCap: int(dict)}.NewReader2(in)
	if err != nil {
		return false, err
	}
	sum := x.newSum()
	if err := x.copy(w, data, sum); err != nil {
		return false, err
	}
	return true, x.blockEnd(in.n, sum)
}

// copy is io.Copy that tells errors of w from those of r.
func (x *xzReader) copy(w io.Writer, r io.Reader, sum hash.Hash) error {
	for {
		n, err := r.Read(x.buf)
		if sum != nil {
			sum.Write(x.buf[:n])
		}
		if _, err := w.Write(x.buf[:n]); err != nil {
			return writeError{err}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// newSum returns what computes the checksum of a block (§2.1.1.2), or nil for kinds
// that only newer versions of the format have.
func (x *xzReader) newSum() hash.Hash {
	switch x.check {
	case 1:
		return crc32.NewIEEE()
	case 4:
		return crc64.New(crc64.MakeTable(crc64.ECMA))
	case 10:
		return sha256.New()
	}
	return nil
}

// sumBytes are the sizes of the kinds of checksum.
var sumBytes = [16]int{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}

// blockEnd reads the padding to the next multiple of 4 after n bytes, and the
// checksum, which is in little-endian order where it is a number.
func (x *xzReader) blockEnd(n int64, sum hash.Hash) error {
	pad := int(-n & 3)
	end := x.buf[:pad+sumBytes[x.check]]
	if _, err := io.ReadFull(x.r, end); err != nil {
		return err
	}
	var want []byte
	switch s := sum.(type) {
	case nil:
		return nil
	case hash.Hash32:
		want = binary.LittleEndian.AppendUint32(nil, s.Sum32())
	case hash.Hash64:
		want = binary.LittleEndian.AppendUint64(nil, s.Sum64())
	default:
		want = s.Sum(nil)
	}
	if !bytes.Equal(end[pad:], want) {
		return errors.New("checksum differs")
	}
	return nil
}

// parseBlockHeader returns the size of the dictionary, or that of the data, if it is
// known and less (§3.1). h is the whole header with its checksum. LZMA2 must be the
// only filter.
func parseBlockHeader(h []byte) (dict int64, err error) {
	body := h[:len(h)-4]
	if crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(h[len(body):]) {
		return 0, errors.New("checksum of header differs")
	}
	c := hostile.NewCursor(body)
	c.Skip(1)
	flags := c.Uint8()
	if flags&0x40 != 0 {
		c.Uleb() // compressed size
	}
	size := uint64(math.MaxInt64)
	if flags&0x80 != 0 {
		size = min(size, c.Uleb())
	}
	id, props, prop := c.Uleb(), c.Uleb(), c.Uint8()
	if err := c.Err(); err != nil {
		return 0, err
	}
	if flags&0x3f != 0 || id != lzma2Filter || props != 1 || prop > 40 {
		return 0, errors.New("filters other than LZMA2")
	}
	// §5.3.1
	dict = 1<<32 - 1
	if prop < 40 {
		dict = (2 | int64(prop&1)) << (prop/2 + 11)
	}
	return min(dict, int64(size)), nil
}

// countingReader counts the bytes that were read.
type countingReader struct {
	r *bufio.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
