// SPDX-License-Identifier: Apache-2.0

package jit

import (
	"bytes"
	"cmp"
	"io"
	"math"
	"os"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// maxName bounds a name. V8 gives names with the path of a file in them.
	maxName = 4 << 10
	// markBytes is how many bytes before the place read up to are kept, to notice
	// a file that was written anew and grew past that place.
	markBytes = 64
)

// entry is a range of code and the place of its name in the text of its map.
type entry struct {
	start uint64
	size  uint32
	name  uint32
}

// perfMap is what is known of one process. Entries are sorted by start and do
// not overlap.
type perfMap struct {
	entries []entry
	text    []byte // names, each behind its length in two bytes; for dumps see makeRecord

	path    string     // of a dump, as the process has it; "" for a perf map
	dumps   []*perfMap // of the same process
	pending pendingLines
	ended   bool // nothing can follow what was read of the dump

	id   identity
	ours bool // the process shares our root directory

	dev, ino uint64
	mtime    unix.Timespec
	off      int64  // read up to here, the end of a line
	mark     []byte // the bytes before off

	used uint64    // Maps.clock at the last use
	next time.Time // when to look at the file again
	err  error     // of the last look
}

func (p *perfMap) bytes() int {
	n := cap(p.entries)*int(unsafe.Sizeof(entry{})) + cap(p.text) + p.pending.bytes + 400
	for _, d := range p.dumps {
		n += d.bytes()
	}
	return n
}

// textLen returns how many bytes of text belong to the name at a place.
func (p *perfMap) textLen(place uint32) int {
	if p.path != "" {
		return len(recordAt(p.text, place))
	}
	return 2 + len(p.nameAt(place))
}

func (p *perfMap) nameAt(place uint32) []byte {
	b := p.text[place:]
	n := int(b[0]) | int(b[1])<<8
	return b[2 : 2+n]
}

// index returns the entry that holds addr.
func (p *perfMap) index(addr uint64) (int, bool) {
	i, ok := slices.BinarySearchFunc(p.entries, addr, func(e entry, a uint64) int {
		return cmp.Compare(e.start, a)
	})
	if !ok {
		i--
	}
	return i, i >= 0 && addr-p.entries[i].start < uint64(p.entries[i].size)
}

// find looks in the dumps first, for they tell more.
func (p *perfMap) find(addr uint64) (Symbol, bool) {
	for _, d := range p.dumps {
		if i, ok := d.index(addr); ok {
			name, code, table := splitRecord(recordAt(d.text, d.entries[i].name))
			s := Symbol{Name: string(name)}
			s.File, s.Line = lineAt(table, int64(addr-code))
			return s, true
		}
	}
	i, ok := p.index(addr)
	if !ok {
		return Symbol{}, false
	}
	return Symbol{Name: string(p.nameAt(p.entries[i].name))}, true
}

// read brings pm up to date and returns how many bytes it read.
func (m *Maps) read(p Process, pm *perfMap) (int64, error) {
	f, st, err := m.open(p, pm)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if pm.unchanged(&st) {
		return 0, nil
	}
	if pm.replaced(f, &st) {
		pm.entries, pm.text, pm.off, pm.mark = nil, nil, 0, nil
	}
	pm.dev, pm.ino, pm.mtime = st.Dev, st.Ino, st.Mtim
	from := pm.off
	l := lines{
		maxEntries: min(m.c.MaxEntries, m.c.MaxBytes/2/int(unsafe.Sizeof(entry{}))),
		maxText:    m.c.MaxBytes / 2,
	}
	if st.Size-from > m.c.MaxFile {
		// The newest lines tell of the code that runs now.
		from = st.Size - m.c.MaxFile
		l.partial = true
	}
	done, err := l.read(io.NewSectionReader(f, from, st.Size-from))
	m.stats.Skipped += l.skipped
	pm.merge(&l)
	pm.off = from + done
	pm.setMark(f)
	return done, err
}

func (p *perfMap) unchanged(st *unix.Stat_t) bool {
	return p.dev == st.Dev && p.ino == st.Ino && p.mtime == st.Mtim && p.off == st.Size
}

// replaced reports whether the file is another one than was read, or was
// written anew.
func (p *perfMap) replaced(f *os.File, st *unix.Stat_t) bool {
	if p.dev != st.Dev || p.ino != st.Ino || st.Size < p.off || (st.Size == p.off && p.mtime != st.Mtim) {
		return true
	}
	b := make([]byte, len(p.mark))
	n, _ := f.ReadAt(b, p.off-int64(len(b)))
	return !bytes.Equal(b[:n], p.mark)
}

func (p *perfMap) setMark(f *os.File) {
	b := make([]byte, min(markBytes, p.off))
	n, _ := f.ReadAt(b, p.off-int64(len(b)))
	p.mark = b[:n]
}

// merge lets the lines just read win over what was known. When both do not fit,
// what was known is forgotten.
func (p *perfMap) merge(l *lines) {
	if len(l.entries) == 0 {
		return
	}
	if len(p.entries)+len(l.entries) > l.maxEntries || len(p.text)+len(l.text) > l.maxText {
		p.entries, p.text = nil, nil
	}
	base := uint32(len(p.text))
	for i := range l.entries {
		l.entries[i].name += base
	}
	p.text = append(p.text, l.text...)
	p.entries = overlay(p.entries, flatten(l.entries))
	p.compact()
}

// compact drops names nothing refers to when they are more than half of all.
func (p *perfMap) compact() {
	live := 0
	for i, e := range p.entries {
		if i == 0 || e.name != p.entries[i-1].name {
			live += p.textLen(e.name)
		}
	}
	if live >= len(p.text)/2 && cap(p.text) <= 2*len(p.text) {
		return
	}
	old, text := *p, make([]byte, 0, live)
	var last, moved uint32 = math.MaxUint32, 0
	for i := range p.entries {
		e := &p.entries[i]
		if e.name != last {
			last, moved = e.name, uint32(len(text))
			text = append(text, old.text[last:int(last)+old.textLen(last)]...)
		}
		e.name = moved
	}
	p.text = text
}
