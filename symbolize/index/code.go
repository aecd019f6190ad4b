// SPDX-License-Identifier: Apache-2.0

package index

import (
	"cmp"
	"encoding/binary"
	"slices"
)

// A segment begins with a byte of what changes:
const (
	popMask   = 3      // calls that end, 3: a number follows
	pushMask  = 3 << 2 // calls that begin, as many numbers of them follow; 3: their number first
	pushShift = 2
	newFile   = 1 << 4 // number of the file follows
	newLine   = 1 << 5 // difference follows, else it is 0
	nextLine  = 1 << 6 // with newLine: the difference is 1 and does not follow
	// short is set if calls and file stay: then 4 bits are the size of the segment
	// before less 1, and 3 the difference of lines, see shortLines.
	short      = 1 << 7
	shortSize  = 16
	shortLines = 8
	shortFirst = -2 // the smallest difference of lines
)

// place is a file and a line.
type place struct{ file, line uint32 }

// frame is a call with the place where it is, as far as told.
type frame struct {
	call int // its index in calls
	at   place
}

// function is what the calls of one function share.
type function struct{ name, start, declFile uint32 }

func (c *call) function() function { return function{c.name, c.start, c.declFile} }

// codeWriter writes the section of code. A part is segments; a block is parts, with
// dictionaries of what they refer to.
type codeWriter struct {
	section *sectionWriter
	parts   []part
	segs    []segment
	calls   []call
	size    int // about what the block takes
	// packed and raw are what blocks have taken and what size was for them.
	packed, raw int

	files     dictionary[uint32]
	functions dictionary[function]
	sites     dictionary[call]
	ends      []int
	body, out []byte
}

// part is segs of codeWriter.
type part struct {
	begin, end uint64
	first, n   int
}

// add takes a copy of s. Parts come in the order of their addresses and do not
// overlap.
func (w *codeWriter) add(s *segments) error {
	w.parts = append(w.parts, part{s.begin, s.end, len(w.segs), len(s.segs)})
	base := len(w.calls)
	for _, g := range s.segs {
		g.first += base
		w.segs = append(w.segs, g)
		w.size += 4 + 8*g.push
	}
	w.calls = append(w.calls, s.calls...)
	if w.expected() >= blockTarget {
		return w.end()
	}
	return nil
}

// expected guesses what the block takes from those before.
func (w *codeWriter) expected() int {
	if w.raw == 0 {
		return w.size
	}
	return int(int64(w.size) * int64(w.packed) / int64(w.raw))
}

// end writes the block.
func (w *codeWriter) end() error {
	if len(w.parts) == 0 {
		return nil
	}
	w.collect()
	w.body, w.ends = w.body[:0], w.ends[:0]
	for _, p := range w.parts {
		w.encode(p)
		w.ends = append(w.ends, len(w.body))
	}
	out := w.appendDictionaries(w.out[:0])
	out = binary.AppendUvarint(out, uint64(len(w.parts)))
	key := w.parts[0].begin
	at, last := key, 0
	for i, p := range w.parts {
		out = binary.AppendUvarint(out, p.begin-at)
		out = binary.AppendUvarint(out, p.end-p.begin)
		out = binary.AppendUvarint(out, uint64(w.ends[i]-last))
		at, last = p.end, w.ends[i]
	}
	out = append(out, w.body...)
	w.out = out
	w.packed, w.raw = w.packed+len(out), w.raw+w.size
	err := w.section.write(key, out)
	w.parts, w.segs, w.calls, w.size = w.parts[:0], w.segs[:0], w.calls[:0], 0
	return err
}

// collect fills the dictionaries.
func (w *codeWriter) collect() {
	w.files.reset()
	w.functions.reset()
	w.sites.reset()
	for i := range w.calls {
		c := &w.calls[i]
		w.files.use(c.declFile)
		w.files.use(c.callFile)
		w.functions.use(c.function())
		w.sites.use(*c)
	}
	for i := range w.segs {
		w.files.use(w.segs[i].file)
	}
	w.files.sort(func(a, b counted[uint32]) int {
		return cmp.Or(cmp.Compare(b.n, a.n), cmp.Compare(a.key, b.key))
	})
	w.functions.sort(func(a, b counted[function]) int {
		return cmp.Or(cmp.Compare(a.key.name, b.key.name), cmp.Compare(a.key.start, b.key.start),
			cmp.Compare(a.key.declFile, b.key.declFile))
	})
	w.sites.sort(func(a, b counted[call]) int {
		return cmp.Or(cmp.Compare(b.n, a.n), cmp.Compare(a.first, b.first))
	})
}

func (w *codeWriter) appendDictionaries(out []byte) []byte {
	out = binary.AppendUvarint(out, uint64(len(w.files.list)))
	for _, f := range w.files.list {
		out = binary.AppendUvarint(out, uint64(f.key))
	}
	out = binary.AppendUvarint(out, uint64(len(w.functions.list)))
	last := uint32(0)
	for _, f := range w.functions.list {
		out = binary.AppendUvarint(out, uint64(f.key.name-last))
		out = binary.AppendUvarint(out, uint64(f.key.start))
		out = binary.AppendUvarint(out, uint64(w.files.at[f.key.declFile]))
		last = f.key.name
	}
	out = binary.AppendUvarint(out, uint64(len(w.sites.list)))
	for _, s := range w.sites.list {
		out = binary.AppendUvarint(out, uint64(w.functions.at[s.key.function()]))
		out = binary.AppendUvarint(out, uint64(w.files.at[s.key.callFile]))
		out = binary.AppendUvarint(out, uint64(s.key.callLine))
	}
	return out
}

// encode appends the segments of p to the body.
func (w *codeWriter) encode(p part) {
	var stack [maxDepth + 1]frame // stack[0] is code outside of functions
	depth, last := 0, p.begin
	for i := range w.segs[p.first : p.first+p.n] {
		s := &w.segs[p.first+i]
		adv, pops := s.addr-last, depth-s.keep
		last, depth = s.addr, s.keep
		calls := w.calls[s.first : s.first+s.push]
		for _, c := range calls {
			stack[depth].at = place{c.callFile, c.callLine}
			depth++
			stack[depth].at = place{c.declFile, c.start}
		}
		at := &stack[depth].at
		delta := int64(s.line) - int64(at.line)
		sameFile := s.file == at.file
		*at = place{s.file, s.line}
		if pops == 0 && s.push == 0 && sameFile && adv-1 < shortSize && uint64(delta-shortFirst) < shortLines {
			w.body = append(w.body, short|byte(adv-1)<<3|byte(delta-shortFirst))
			continue
		}
		w.encodeLong(adv, pops, calls, sameFile, s.file, delta)
	}
}

func (w *codeWriter) encodeLong(adv uint64, pops int, calls []call, sameFile bool, file uint32, delta int64) {
	op := byte(min(pops, popMask)) | byte(min(len(calls), 3))<<pushShift
	if !sameFile {
		op |= newFile
	}
	switch delta {
	case 0:
	case 1:
		op |= newLine | nextLine
	default:
		op |= newLine
	}
	b := append(w.body, op)
	b = binary.AppendUvarint(b, adv)
	if pops >= popMask {
		b = binary.AppendUvarint(b, uint64(pops))
	}
	if len(calls) >= 3 {
		b = binary.AppendUvarint(b, uint64(len(calls)))
	}
	for _, c := range calls {
		b = binary.AppendUvarint(b, uint64(w.sites.at[c]))
	}
	if !sameFile {
		b = binary.AppendUvarint(b, uint64(w.files.at[file]))
	}
	if delta != 0 && delta != 1 {
		b = binary.AppendVarint(b, delta)
	}
	w.body = b
}

// dictionary numbers the different keys of a block.
type dictionary[K comparable] struct {
	at   map[K]int // index in list; before sort, too
	list []counted[K]
}

type counted[K comparable] struct {
	key   K
	n     int // how often it is used
	first int // in which order it came
}

func (d *dictionary[K]) reset() {
	if d.at == nil {
		d.at = map[K]int{}
	}
	clear(d.at)
	d.list = d.list[:0]
}

func (d *dictionary[K]) use(k K) {
	i, ok := d.at[k]
	if !ok {
		i = len(d.list)
		d.at[k] = i
		d.list = append(d.list, counted[K]{key: k, first: i})
	}
	d.list[i].n++
}

func (d *dictionary[K]) sort(order func(a, b counted[K]) int) {
	slices.SortFunc(d.list, order)
	for i := range d.list {
		d.at[d.list[i].key] = i
	}
}
