// SPDX-License-Identifier: Apache-2.0

package debugfile

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/objfile"
)

const (
	// Symbols shrink 3 to 6 times; the slack is for tiny files.
	maxMiniRatio = 32
	miniSlack    = 1 << 20
	// maxMiniTime bounds decompression: 64 MiB take 1 to 2 seconds.
	maxMiniTime = 5 * time.Second
)

// miniDebugInfo decompresses .gnu_debugdata, an ELF file with the part of .symtab that
// .dynsym has not, unless there are symbols already. See "MiniDebugInfo" in the manual
// of GDB.
func (s *search) miniDebugInfo() {
	if s.found.Symbols != nil {
		return
	}
	section, ok := s.o.Section(".gnu_debugdata")
	if !ok {
		return
	}
	file, err := s.openMini(section)
	if err != nil {
		s.miss(SourceMini, s.path, err)
		return
	}
	if _, err := file.Object.Symbols(objfile.SymTab); err != nil {
		s.miss(SourceMini, s.path, fmt.Errorf("%w: %w", errEmpty, err))
		s.drop(file)
		return
	}
	s.f.found[SourceMini].Add(1)
	s.found.Symbols = file
}

func (s *search) openMini(section objfile.Section) (*File, error) {
	raw, err := s.o.Raw(section)
	if err != nil {
		return nil, err
	}
	limit := min(s.f.c.MaxMiniBytes, miniSlack+maxMiniRatio*raw.Size())
	if s.f.mini.Add(limit) > 4*s.f.c.MaxMiniBytes {
		s.f.mini.Add(-limit)
		return nil, fmt.Errorf("too much .gnu_debugdata in use: %w", objfile.ErrTooLarge)
	}
	n, handle, err := inflateMini(s.f.c.TempDir, raw, limit)
	s.f.mini.Add(n - limit)
	if err != nil {
		return nil, fmt.Errorf("decompress .gnu_debugdata: %w", err)
	}
	file := &File{Handle: handle, Source: SourceMini, Path: s.path, finder: s.f, mini: n}
	if file.Object, err = objfile.Open(handle, n); err == nil && file.Object.Machine != s.o.Machine {
		err = errOther
	}
	if err != nil {
		s.drop(file)
		return nil, fmt.Errorf("open .gnu_debugdata: %w", err)
	}
	return file, nil
}

// inflateMini returns a file without a name in dir with the n bytes of data; if it
// fails, none and 0.
func inflateMini(dir string, data io.Reader, limit int64) (n int64, file *os.File, err error) {
	file, err = unnamed(dir)
	if err != nil {
		return 0, nil, err
	}
	w := &limitedWriter{w: file, left: limit, end: time.Now().Add(maxMiniTime)}
	if err := decompressXZ(w, bufio.NewReaderSize(data, 16<<10), limit); err != nil {
		return 0, nil, errors.Join(err, file.Close())
	}
	return limit - w.left, file, nil
}

// unnamed creates a file that goes with its descriptor.
func unnamed(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), dir+"/(unnamed)"), nil
	}
	f, err := os.CreateTemp(dir, "lowflame-mini-") // not every file system has O_TMPFILE
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// limitedWriter fails once more is written than is left, or at its end.
type limitedWriter struct {
	w    io.Writer
	left int64
	end  time.Time
}

func (l *limitedWriter) Write(p []byte) (int, error) {
	if int64(len(p)) > l.left || time.Now().After(l.end) {
		return 0, fmt.Errorf("decompressed: %w", objfile.ErrTooLarge)
	}
	l.left -= int64(len(p))
	return l.w.Write(p)
}
