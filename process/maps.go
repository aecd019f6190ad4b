// SPDX-License-Identifier: Apache-2.0

package process

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/stack"
)

// Bounds on what one process may make the table remember.
const (
	maxMappings  = 32768    // executable mappings of one process
	maxAnon      = 24576    // of which without a file; so that files at high addresses have room
	maxPathBytes = 4 << 20  // bytes of distinct paths of one process
	maxMapsBytes = 64 << 20 // bytes of /proc/PID/maps read; 65530 lines (vm.max_map_count) are 7 MB as a rule
	mapsBuffer   = 16 << 10 // longer than any line: PATH_MAX, each byte escaped to 4 at most, is cut by the kernel at a page
)

const deletedSuffix = " (deleted)"

// readMaps parses the text of /proc/PID/maps and returns its executable
// mappings in order. Malformed lines are skipped: no process can make one, so
// they come from a kernel we do not know. It returns what was read before an
// error of r, and whether a bound cut it short.
func readMaps(r io.Reader) (ms []Mapping, truncated bool, err error) {
	br := bufio.NewReaderSize(io.LimitReader(r, maxMapsBytes), mapsBuffer)
	list := mapsList{paths: make(map[string]string)}
	total := 0
	for {
		line, err := br.ReadSlice('\n')
		total += len(line)
		list.line(line)
		for errors.Is(err, bufio.ErrBufferFull) { // what is longer than any path
			_, err = br.ReadSlice('\n')
		}
		if errors.Is(err, io.EOF) {
			return list.ms, list.truncated || total >= maxMapsBytes, nil
		}
		if err != nil {
			return list.ms, true, fmt.Errorf("read maps: %w", err)
		}
	}
}

// mapsList gathers the executable mappings of one process within the bounds.
type mapsList struct {
	ms        []Mapping
	paths     map[string]string // each path once
	pathBytes int
	anon      int // mappings without a file
	truncated bool
}

// line adds one line of maps, if it is of an executable mapping.
func (l *mapsList) line(line []byte) {
	m, path, ok := parseMapsLine(bytes.TrimSuffix(line, []byte("\n")))
	if !ok {
		return
	}
	m.name(l.path(path))
	if m.Kind == KindAnon {
		l.anon++
	}
	if len(l.ms) >= maxMappings || m.Kind == KindAnon && l.anon > maxAnon {
		l.truncated = true
		return
	}
	l.ms = appendMapping(l.ms, m)
}

func (l *mapsList) path(path []byte) string {
	s, seen := l.paths[string(path)]
	if !seen && l.pathBytes+len(path) <= maxPathBytes {
		s = string(path)
		l.paths[s] = s
		l.pathBytes += len(s)
	}
	return s
}

// appendMapping appends m, which begins at or after the end of all of ms, and
// joins it with the last one if both are parts of one stretch of code made at
// run time. A line that is out of order is dropped.
func appendMapping(ms []Mapping, m Mapping) []Mapping {
	if n := len(ms); n > 0 {
		last := &ms[n-1]
		if m.Begin < last.End {
			return ms
		}
		if joins(last, &m) {
			last.End = m.End
			return ms
		}
	}
	return append(ms, m)
}

// joins reports whether b continues a, so that both may be one mapping: only
// for memory without a file, which a runtime may map page by page.
func joins(a, b *Mapping) bool {
	return a.Kind == KindAnon && b.Kind == KindAnon && a.End == b.Begin && a.Path == b.Path
}

// parseMapsLine parses one line without its line feed, such as
// "7f0-7f1 r-xp 00002000 fe:00 247026     /usr/bin/cat" (kernel:
// show_map_vma). It returns ok false for mappings that are not executable. The
// mapping has no Path and Kind yet: path, which aliases line, is the name,
// still escaped.
func parseMapsLine(line []byte) (m Mapping, path []byte, ok bool) {
	begin, line, ok1 := cutHex(line, '-')
	end, line, ok2 := cutHex(line, ' ')
	if !ok1 || !ok2 || begin >= end || len(line) < 5 || line[2] != 'x' || line[4] != ' ' {
		return m, nil, false
	}
	off, line, ok1 := cutHex(line[5:], ' ')
	major, line, ok2 := cutHex(line, ':')
	minor, line, ok3 := cutHex(line, ' ')
	if !ok1 || !ok2 || !ok3 || major > 1<<32-1 || minor > 1<<32-1 {
		return m, nil, false
	}
	ino, rest, ok1 := cutDec(line)
	path = bytes.TrimLeft(rest, " ")
	if !ok1 || string(path) == "[vsyscall]" {
		// [vsyscall] is the kernel's, the same in all processes, and no event tells of it.
		return m, nil, false
	}
	m.Begin, m.End, m.Off = stack.Addr(begin), stack.Addr(end), stack.FileOff(off)
	if ino != 0 {
		m.File = FileID{Dev: unix.Mkdev(uint32(major), uint32(minor)), Ino: ino}
	}
	return m, path, true
}

// name sets Path, Kind and Deleted from what /proc/PID/maps calls the mapping.
// The kernel escapes a line feed in a path and nothing else (show_map_vma calls
// seq_path with "\n"), so other backslashes are the file's own.
func (m *Mapping) name(s string) {
	m.rawName(strings.ReplaceAll(s, `\012`, "\n"))
}

// rawName sets Path, Kind and Deleted from the name in an MMAP2 record
// (kernel: perf_event_mmap_event) or an unescaped one.
func (m *Mapping) rawName(s string) {
	m.Path, m.Deleted = strings.CutSuffix(s, deletedSuffix)
	m.Kind = kindOf(s, m.File)
	switch {
	case m.Kind == KindAnon:
		m.Off = 0
		if m.Path == "//anon" {
			m.Path = ""
		}
	case strings.HasPrefix(s, "//"): // "//toolong", "//enomem": there is a file, and no name
		m.Path = ""
	}
}

func kindOf(s string, id FileID) Kind {
	switch {
	case s == "[vdso]":
		return KindVDSO
	case s == "" && !id.IsZero():
		return KindFile // its path was too long to keep
	case s == "", s == "//anon", s == "[heap]",
		strings.HasPrefix(s, "[anon"), strings.HasPrefix(s, "[stack"):
		return KindAnon
	case strings.HasPrefix(s, "["):
		return KindOther
	case strings.HasPrefix(s, "/memfd:"), strings.HasPrefix(s, "/SYSV"), strings.HasPrefix(s, "/dev/zero"),
		strings.HasPrefix(s, "/anon_hugepage"), strings.HasPrefix(s, "/dev/hugepages/"):
		return KindMemfd
	case strings.HasPrefix(s, "/dev/shm/"):
		return KindFile
	case strings.HasPrefix(s, "/dev/"), !strings.HasPrefix(s, "/"):
		return KindOther // "anon_inode:…", "socket:[…]"
	}
	return KindFile
}

// cutHex parses the hexadecimal number before the first sep.
func cutHex(b []byte, sep byte) (n uint64, rest []byte, ok bool) {
	for i, c := range b {
		switch {
		case c == sep:
			return n, b[i+1:], i > 0 && i <= 16
		case c >= '0' && c <= '9':
			n = n<<4 | uint64(c-'0')
		case c >= 'a' && c <= 'f':
			n = n<<4 | uint64(c-'a'+10)
		default:
			return 0, nil, false
		}
	}
	return 0, nil, false
}

// cutDec parses the decimal number b begins with.
func cutDec(b []byte) (n uint64, rest []byte, ok bool) {
	i := 0
	for ; i < len(b) && b[i] >= '0' && b[i] <= '9'; i++ {
		d := uint64(b[i] - '0')
		if n > (1<<64-1-d)/10 {
			return 0, nil, false
		}
		n = n*10 + d
	}
	return n, b[i:], i > 0
}
