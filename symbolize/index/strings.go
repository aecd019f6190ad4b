// SPDX-License-Identifier: Apache-2.0

package index

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"slices"
)

// restartEvery is how many strings share prefixes with the one before: so many are
// decoded at most to get at one.
const restartEvery = 16

// stringWriter writes strings and numbers them from 1 on in the order in which they
// come; 0 is "". Each string is written once, unless there are more than fit seen.
type stringWriter struct {
	section *sectionWriter
	seen    seen
	count   uint32 // strings there are
	first   uint32 // number of the first in block
	block   []byte
	starts  []uint16 // where in block the prefixes start anew
	last    []byte
	pending []pendingString
}

type pendingString struct {
	s    string
	slot *uint32 // where to put the number
}

// find puts the number of s into slot, now or at the next flush; s must hold
// until then.
func (w *stringWriter) find(s string, slot *uint32) {
	if len(s) > maxString {
		s = s[:maxString]
	}
	if s == "" {
		*slot = 0
		return
	}
	if id, ok := w.seen.get(s); ok {
		*slot = id
		return
	}
	w.pending = append(w.pending, pendingString{s, slot})
}

// flush numbers what find has left. What is numbered together is sorted, so that
// neighbours share prefixes.
func (w *stringWriter) flush() error {
	slices.SortFunc(w.pending, func(a, b pendingString) int { return cmpString(a.s, b.s) })
	last := ""
	for _, p := range w.pending {
		if p.s != last {
			if err := w.append(p.s); err != nil {
				return err
			}
			w.seen.put(p.s, w.count)
			last = p.s
		}
		*p.slot = w.count
	}
	clear(w.pending)
	w.pending = w.pending[:0]
	return nil
}

func cmpString(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// append writes s as number w.count.
func (w *stringWriter) append(s string) error {
	if w.count == 1<<31 {
		return fmt.Errorf("write index: %d strings: %w", w.count, ErrTooLarge)
	}
	w.count++
	n := int(w.count - w.first)
	if len(w.block) == 0 {
		w.first, n = w.count, 0
	}
	shared := 0
	if n%restartEvery == 0 {
		w.starts = append(w.starts, uint16(len(w.block)))
	} else {
		for shared < min(len(s), len(w.last)) && s[shared] == w.last[shared] {
			shared++
		}
		w.block = binary.AppendUvarint(w.block, uint64(shared))
	}
	w.block = binary.AppendUvarint(w.block, uint64(len(s)-shared))
	w.block = append(w.block, s[shared:]...)
	w.last = append(w.last[:0], s...)
	if len(w.block) >= stringTarget {
		return w.end()
	}
	return nil
}

// end writes the block: strings, where prefixes start anew, how many those are.
func (w *stringWriter) end() error {
	if len(w.block) == 0 {
		return nil
	}
	for _, s := range w.starts {
		w.block = binary.LittleEndian.AppendUint16(w.block, s)
	}
	w.block = binary.LittleEndian.AppendUint16(w.block, uint16(len(w.starts)))
	err := w.section.write(uint64(w.first), w.block)
	w.block, w.starts = w.block[:0], w.starts[:0]
	return err
}

var errString = fmt.Errorf("string of a block: %w", ErrFormat)

// appendString appends string number n of a block to dst.
func appendString(dst, block []byte, n uint64) ([]byte, error) {
	if len(block) < 2 {
		return dst, errString
	}
	end := len(block) - 2
	starts := int(binary.LittleEndian.Uint16(block[end:]))
	if 2*starts > end || n/restartEvery >= uint64(starts) {
		return dst, errString
	}
	end -= 2 * starts
	at := int(binary.LittleEndian.Uint16(block[end+2*int(n/restartEvery):]))
	base := len(dst)
	r := reader{data: block[:end], at: at, bad: at > end}
	for i := uint64(0); i <= n%restartEvery; i++ {
		shared := uint64(0)
		if i > 0 {
			shared = r.uvarint()
		}
		rest := r.bytes(r.uvarint())
		if r.bad || shared > uint64(len(dst)-base) {
			return dst[:base], errString
		}
		dst = append(dst[:base+int(shared)], rest...)
	}
	return dst, nil
}

// seen finds strings that came before by a 64-bit hash: among a million, two that
// share one turn up in one file of thirty million.
type seen struct {
	seed  maphash.Seed
	keys  []uint64
	ids   []uint32 // 0: free
	count int
}

const (
	// maxSeen bounds seen to 24 MiB, 36 while it grows. When it is full it
	// starts anew, and strings are written again.
	maxSeen = 3 << 19
	minSeen = 1 << 10
)

func (t *seen) get(s string) (uint32, bool) {
	if len(t.keys) == 0 {
		return 0, false
	}
	h := maphash.String(t.seed, s)
	for i := h & uint64(len(t.keys)-1); t.ids[i] != 0; i = (i + 1) & uint64(len(t.keys)-1) {
		if t.keys[i] == h {
			return t.ids[i], true
		}
	}
	return 0, false
}

func (t *seen) put(s string, id uint32) {
	if t.count >= maxSeen {
		clear(t.ids)
		t.count = 0
	}
	if t.count >= len(t.keys)/4*3 {
		t.grow()
	}
	t.insert(maphash.String(t.seed, s), id)
	t.count++
}

func (t *seen) insert(h uint64, id uint32) {
	i := h & uint64(len(t.keys)-1)
	for t.ids[i] != 0 {
		i = (i + 1) & uint64(len(t.keys)-1)
	}
	t.keys[i], t.ids[i] = h, id
}

func (t *seen) grow() {
	if len(t.keys) == 0 {
		t.seed = maphash.MakeSeed()
	}
	keys, ids := t.keys, t.ids
	n := max(2*len(keys), minSeen)
	t.keys, t.ids = make([]uint64, n), make([]uint32, n)
	for i, id := range ids {
		if id != 0 {
			t.insert(keys[i], id)
		}
	}
}
