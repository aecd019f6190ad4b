// SPDX-License-Identifier: Apache-2.0

package jit

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math"
)

// lines collects the lines of a piece of a perf map.
type lines struct {
	maxEntries, maxText int
	// partial is set when the piece begins inside a line, which then is left out.
	partial bool

	entries []entry // in the order of the file
	text    []byte  // as perfMap.text
	skipped uint64
}

// read takes all complete lines of r and returns how many bytes they are; a
// last line without its end is left for the next time.
func (l *lines) read(r io.Reader) (int64, error) {
	br := bufio.NewReaderSize(r, maxName+64)
	var done int64
	var pending int64 // bytes of a line longer than the buffer
	for {
		b, err := br.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			if pending == 0 && !l.partial {
				l.add(b) // the name is cut, the rest of the line skipped
			}
			pending += int64(len(b))
			continue
		case errors.Is(err, io.EOF):
			return done, nil
		case err != nil:
			return done, err
		}
		if pending == 0 && !l.partial {
			l.add(b[:len(b)-1])
		}
		l.partial = false
		done += pending + int64(len(b))
		pending = 0
	}
}

// add takes one line.
func (l *lines) add(line []byte) {
	start, size, name, ok := parseLine(line)
	if !ok {
		l.skipped++
		return
	}
	record := make([]byte, 0, 2+len(name))
	record = append(record, byte(len(name)), byte(len(name)>>8))
	l.append(start, size, append(record, name...))
}

// append takes one function, with its name in the form of perfMap.text. It reports
// whether no other was dropped for it.
func (l *lines) append(start uint64, size uint32, record []byte) bool {
	kept := true
	for len(l.entries) > 0 && (len(l.entries) >= l.maxEntries || len(l.text)+len(record) > l.maxText) {
		l.dropOlder()
		kept = false
	}
	if len(record) > l.maxText {
		l.skipped++
		return kept
	}
	l.entries = append(l.entries, entry{start: start, size: size, name: uint32(len(l.text))})
	l.text = append(l.text, record...)
	return kept
}

// dropOlder makes room by forgetting the half of the lines that came first:
// the code they tell of is the likeliest to be gone.
func (l *lines) dropOlder() {
	n := (len(l.entries) + 1) / 2
	l.skipped += uint64(n)
	rest := l.entries[n:]
	if len(rest) == 0 {
		l.entries, l.text = l.entries[:0], l.text[:0]
		return
	}
	base := rest[0].name
	l.entries = append(l.entries[:0], rest...)
	l.text = append(l.text[:0], l.text[base:]...)
	for i := range l.entries {
		l.entries[i].name -= base
	}
}

// parseLine splits "start size name". Numbers are hex with or without 0x (the
// JVM writes it, most others do not); names may have spaces, and a carriage
// return at the end is dropped. name aliases line.
func parseLine(line []byte) (start uint64, size uint32, name []byte, ok bool) {
	start, rest, ok := parseHex(line)
	if !ok {
		return 0, 0, nil, false
	}
	n, rest, ok := parseHex(rest)
	if !ok || n == 0 || n > math.MaxUint32 || start+n < start {
		return 0, 0, nil, false
	}
	name = bytes.TrimSpace(rest)
	if len(name) == 0 {
		return 0, 0, nil, false
	}
	return start, uint32(n), name[:min(len(name), maxName)], true
}

// parseHex takes a hex number and the blanks before it.
func parseHex(b []byte) (n uint64, rest []byte, ok bool) {
	b = bytes.TrimLeft(b, " \t")
	if len(b) > 2 && b[0] == '0' && (b[1] == 'x' || b[1] == 'X') {
		b = b[2:]
	}
	i := 0
	for ; i < len(b); i++ {
		c := b[i]
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		case c == ' ' || c == '\t':
			return n, b[i:], i > 0
		default:
			return 0, nil, false
		}
		if n>>60 != 0 {
			return 0, nil, false
		}
		n = n<<4 | uint64(c)
	}
	return 0, nil, false
}
