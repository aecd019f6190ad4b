// SPDX-License-Identifier: Apache-2.0

package index

import (
	"bufio"
	"cmp"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// ErrTooLarge is wrapped by the errors of a Writer that has been given more than an
// index takes.
var ErrTooLarge = errors.New("too large for an index")

var errTemp = errors.New("damaged temporary file")

const (
	// runBytes is how much of pieces is sorted in memory.
	runBytes = 8 << 20
	// maxRuns bounds the temporary file to 4 GiB, and what merging reads at once
	// to 32 MiB.
	maxRuns = 512
	// mergeBuffer is read of each run at a time.
	mergeBuffer = 64 << 10
	// pieceHeader is begin, end, rank, size of the data.
	pieceHeader = 8 + 8 + 8 + 4
)

// runs sorts pieces in a temporary file.
type runs struct {
	create func() (*os.File, error)
	limit  int      // of buf, runBytes
	file   *os.File // nil until it is needed
	buf    []byte
	index  []pieceRef // of the pieces in buf
	ends   []int64    // of the runs in file
}

type pieceRef struct {
	begin, rank uint64
	at, size    uint32 // in buf, with the header
}

// add takes a copy of p.
func (r *runs) add(p *piece) error {
	n := pieceHeader + len(p.data)
	if len(r.buf)+n > r.limit && len(r.buf) > 0 {
		if err := r.spill(); err != nil {
			return err
		}
	}
	if r.buf == nil {
		r.buf = make([]byte, 0, max(r.limit, n))
	}
	r.index = append(r.index, pieceRef{p.begin, p.rank, uint32(len(r.buf)), uint32(n)})
	r.buf = binary.LittleEndian.AppendUint64(r.buf, p.begin)
	r.buf = binary.LittleEndian.AppendUint64(r.buf, p.end)
	r.buf = binary.LittleEndian.AppendUint64(r.buf, p.rank)
	r.buf = binary.LittleEndian.AppendUint32(r.buf, uint32(len(p.data)))
	r.buf = append(r.buf, p.data...)
	return nil
}

func (r *runs) spill() (err error) {
	if r.file == nil {
		if r.file, err = r.create(); err != nil {
			return err
		}
	}
	if len(r.ends) == maxRuns {
		return fmt.Errorf("write index: %d MiB of pieces: %w", maxRuns*(runBytes>>20), ErrTooLarge)
	}
	slices.SortStableFunc(r.index, func(a, b pieceRef) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.rank, b.rank))
	})
	w := bufio.NewWriterSize(r.file, mergeBuffer)
	n := int64(0)
	for _, p := range r.index {
		if _, err := w.Write(r.buf[p.at : p.at+p.size]); err != nil {
			return fmt.Errorf("write temporary file: %w", err)
		}
		n += int64(p.size)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write temporary file: %w", err)
	}
	if len(r.ends) > 0 {
		n += r.ends[len(r.ends)-1]
	}
	r.ends = append(r.ends, n)
	r.buf, r.index = r.buf[:0], r.index[:0]
	return nil
}

func (r *runs) close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}

// temp creates a file without a name.
func (c Config) temp() (*os.File, error) {
	if c.CreateTemp != nil {
		return c.CreateTemp()
	}
	dir := c.TempDir
	if dir == "" {
		dir = os.TempDir()
	}
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC|unix.O_EXCL, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), dir+"/(unnamed)"), nil
	}
	// Not every file system has O_TMPFILE.
	f, err := os.CreateTemp(dir, "lowflame-*")
	if err != nil {
		return nil, fmt.Errorf("create temporary file: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("unlink temporary file: %w", err), f.Close())
	}
	return f, nil
}

// merger gives the pieces of all runs in the order of (begin, rank).
type merger struct {
	streams []*stream
}

type stream struct {
	r    *bufio.Reader
	head piece
	run  int
}

func (m *merger) Len() int { return len(m.streams) }
func (m *merger) Less(i, j int) bool {
	a, b := m.streams[i], m.streams[j]
	return cmp.Or(cmp.Compare(a.head.begin, b.head.begin), cmp.Compare(a.head.rank, b.head.rank),
		cmp.Compare(a.run, b.run)) < 0
}
func (m *merger) Swap(i, j int) { m.streams[i], m.streams[j] = m.streams[j], m.streams[i] }
func (m *merger) Push(any)      {}
func (m *merger) Pop() any {
	m.streams = m.streams[:len(m.streams)-1]
	return nil
}

// merge returns the pieces of r, to which none may be added any more.
func (r *runs) merge() (*merger, error) {
	m := &merger{}
	if len(r.index) > 0 {
		if err := r.spill(); err != nil {
			return nil, err
		}
	}
	r.buf, r.index = nil, nil
	start := int64(0)
	for i, end := range r.ends {
		s := &stream{r: bufio.NewReaderSize(io.NewSectionReader(r.file, start, end-start), mergeBuffer), run: i}
		if err := s.next(); err != nil {
			return nil, err
		}
		m.streams = append(m.streams, s)
		start = end
	}
	heap.Init(m)
	return m, nil
}

// head returns the next piece without taking it, valid until take; nil at the end.
func (m *merger) head() *piece {
	if len(m.streams) == 0 {
		return nil
	}
	return &m.streams[0].head
}

// take goes on to the next piece.
func (m *merger) take() error {
	switch err := m.streams[0].next(); {
	case errors.Is(err, io.EOF):
		last := len(m.streams) - 1
		m.Swap(0, last)
		m.streams = m.streams[:last]
		if last > 0 {
			heap.Fix(m, 0)
		}
	case err != nil:
		return err
	default:
		heap.Fix(m, 0)
	}
	return nil
}

// next reads the next piece into head, whose data it reuses.
func (s *stream) next() error {
	var h [pieceHeader]byte
	if _, err := io.ReadFull(s.r, h[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return io.EOF
		}
		return fmt.Errorf("read temporary file: %w", err)
	}
	n := int(binary.LittleEndian.Uint32(h[24:]))
	if n > runBytes {
		return errTemp
	}
	s.head = piece{
		begin: binary.LittleEndian.Uint64(h[:]),
		end:   binary.LittleEndian.Uint64(h[8:]),
		rank:  binary.LittleEndian.Uint64(h[16:]),
		data:  slices.Grow(s.head.data[:0], n)[:n],
	}
	if _, err := io.ReadFull(s.r, s.head.data); err != nil {
		return fmt.Errorf("read temporary file: %w", err)
	}
	return nil
}
