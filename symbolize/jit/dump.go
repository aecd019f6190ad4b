// SPDX-License-Identifier: Apache-2.0

package jit

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"unsafe"
)

// The jitdump format (Linux: tools/perf/Documentation/jitdump-specification.txt):
// a header, then records, each with a prefix {id u32, size u32, time u64}. Only the
// byte order of this machine is read.
const (
	dumpMagic   = 0x4a695444
	dumpVersion = 1
	dumpHeader  = 40
	dumpPrefix  = 16

	recordLoad  = 0
	recordMove  = 1
	recordDebug = 2
	recordClose = 3

	loadFixed  = 40 // pid, tid u32; vma, code, size, index u64
	moveFixed  = 48 // pid, tid u32; vma, old, new, size, index u64
	debugFixed = 16 // code, entries u64
	debugEntry = 16 // addr u64, line, column u32; then the file's name

	// maxPending is how many bytes of lines wait for the code they tell of.
	maxPending = 4 << 20
	// readSize is how much is read at once.
	readSize = 32 << 10
	// maxCode bounds the code of one function.
	maxCode = math.MaxUint32
)

var errDump = errors.New("malformed jitdump")

// dumpReader takes in new records of a dump.
type dumpReader struct {
	lines
	known  *perfMap       // what was read before
	byAddr map[uint64]int // where in entries the code at an address is
	r      *io.SectionReader
	br     *bufio.Reader
	budget int64 // bytes to read still
	spent  int64 // bytes read
	ended  bool  // there is nothing to be read behind
}

// readDump brings d up to date and returns how many bytes it read.
func (m *Maps) readDump(p Process, pm, d *perfMap) (int64, error) {
	f, st, err := m.openIn(p, pm, strings.TrimLeft(d.path, "/"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if d.unchanged(&st) || d.ended && !d.replaced(f, &st) {
		return 0, nil
	}
	if d.replaced(f, &st) {
		*d = perfMap{path: d.path}
	}
	d.dev, d.ino, d.mtime = st.Dev, st.Ino, st.Mtim
	if d.off == 0 {
		if d.off, err = readDumpHeader(f, st.Size); err != nil || d.off == 0 {
			return 0, err
		}
	}
	r := dumpReader{
		lines: lines{
			maxEntries: min(m.c.MaxEntries, m.c.MaxBytes/2/int(unsafe.Sizeof(entry{}))),
			maxText:    m.c.MaxBytes / 2,
		},
		known:  d,
		byAddr: make(map[uint64]int),
		r:      io.NewSectionReader(f, 0, st.Size),
		budget: m.c.MaxFile,
	}
	off, err := r.read(d.off)
	m.stats.Skipped += r.skipped
	d.merge(&r.lines)
	d.off, d.ended = off, r.ended
	d.setMark(f)
	if err != nil {
		err = fmt.Errorf("read %s: %w", d.path, err)
	}
	return r.spent, err
}

// readDumpHeader returns where the records begin, 0 if the header is not written
// yet.
func readDumpHeader(f *os.File, size int64) (int64, error) {
	var b [dumpHeader]byte
	if size < dumpHeader {
		return 0, nil
	}
	if _, err := f.ReadAt(b[:], 0); err != nil {
		return 0, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	magic, version := binary.NativeEndian.Uint32(b[:]), binary.NativeEndian.Uint32(b[4:])
	n := int64(binary.NativeEndian.Uint32(b[8:]))
	if magic != dumpMagic || version != dumpVersion || n < dumpHeader {
		return 0, fmt.Errorf("read %s: magic %#x, version %d, header of %d bytes: %w", f.Name(), magic, version, n, errDump)
	}
	return n, nil
}

// read takes the complete records from off on, as far as the budget goes, and
// returns the end of the last one. Behind a record that is none there is no finding
// the next.
func (d *dumpReader) read(off int64) (int64, error) {
	d.br = bufio.NewReaderSize(d.r, readSize)
	d.seek(off)
	for d.spent < d.budget {
		if d.r.Size()-off < dumpPrefix {
			return off, nil
		}
		prefix, err := d.br.Peek(dumpPrefix)
		if err != nil {
			return off, err
		}
		id, size := binary.NativeEndian.Uint32(prefix), int64(binary.NativeEndian.Uint32(prefix[4:]))
		if size < dumpPrefix {
			d.ended = true
			return off, fmt.Errorf("record of %d bytes at %#x: %w", size, off, errDump)
		}
		if size > d.r.Size()-off {
			return off, nil // it is being written
		}
		if err := d.record(id, size); err != nil {
			return off, err
		}
		d.spent += min(size, readSize)
		off += size
		if id == recordClose {
			d.ended = true
			return off, nil
		}
		d.seek(off)
	}
	return off, nil
}

// seek goes on reading at off.
func (d *dumpReader) seek(off int64) {
	at, _ := d.r.Seek(0, io.SeekCurrent) // cannot fail
	if n := off - (at - int64(d.br.Buffered())); n >= 0 && n <= int64(d.br.Buffered()) {
		_, _ = d.br.Discard(int(n)) // it is buffered
		return
	}
	_, _ = d.r.Seek(off, io.SeekStart)
	d.br.Reset(d.r)
}

// record takes one record. What is wrong in it concerns no other.
func (d *dumpReader) record(id uint32, size int64) error {
	want := size
	switch id {
	case recordLoad: // the code itself is not read
		want = min(size, dumpPrefix+loadFixed+maxName+1)
	case recordMove:
	case recordDebug:
		if size > maxPending {
			d.skipped++
			return nil
		}
	default:
		return nil
	}
	b := make([]byte, want)
	if _, err := io.ReadFull(d.br, b); err != nil {
		return err
	}
	ok := false
	switch b = b[dumpPrefix:]; id {
	case recordLoad:
		ok = d.load(b)
	case recordMove:
		ok = d.move(b)
	case recordDebug:
		ok = d.debug(b)
	}
	if !ok {
		d.skipped++
	}
	return nil
}

func (d *dumpReader) load(b []byte) bool {
	if len(b) <= loadFixed {
		return false
	}
	code, size := binary.NativeEndian.Uint64(b[16:]), binary.NativeEndian.Uint64(b[24:])
	name, _, _ := bytes.Cut(b[loadFixed:], []byte{0})
	name = bytes.TrimSpace(name[:min(len(name), maxName)])
	if size == 0 || size > maxCode || code+size < code || len(name) == 0 {
		return false
	}
	table := d.known.take(code, size, name)
	d.put(code, uint32(size), makeRecord(name, code, table))
	return true
}

// move names the new place of code. The old one keeps its name for samples taken
// before, until other code is put there.
func (d *dumpReader) move(b []byte) bool {
	if len(b) < moveFixed {
		return false
	}
	old, code, size := binary.NativeEndian.Uint64(b[16:]), binary.NativeEndian.Uint64(b[24:]), binary.NativeEndian.Uint64(b[32:])
	if size == 0 || size > maxCode || code+size < code {
		return false
	}
	var record []byte
	if i, ok := d.byAddr[old]; ok {
		record = recordAt(d.text, d.entries[i].name)
	} else if e, ok := d.known.entryOf(old); ok {
		record = recordAt(d.known.text, e.name)
	} else {
		return false
	}
	name, _, table := splitRecord(record)
	d.put(code, uint32(size), makeRecord(name, code, table))
	return true
}

func (d *dumpReader) put(code uint64, size uint32, record []byte) {
	if n := len(d.entries); !d.append(code, size, record) || len(d.entries) <= n {
		clear(d.byAddr) // entries have moved
	}
	if n := len(d.entries); n > 0 {
		d.byAddr[code] = n - 1
	}
}

// debug keeps the lines of code that is to be loaded.
func (d *dumpReader) debug(b []byte) bool {
	if len(b) < debugFixed {
		return false
	}
	code, n := binary.NativeEndian.Uint64(b), binary.NativeEndian.Uint64(b[8:])
	if n > uint64(len(b)-debugFixed)/(debugEntry+1) {
		return false
	}
	d.known.keep(code, debugInfo{int(n), b[debugFixed:]})
	return true
}
