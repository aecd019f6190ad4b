// SPDX-License-Identifier: Apache-2.0

package objfile

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"
)

func FuzzOpen(f *testing.F) {
	f.Add(elfImage{machine: elf.EM_X86_64, notes: noteBytes("GNU", 3, "build id"), sections: []imageSection{
		{name: ".symtab", typ: elf.SHT_SYMTAB, link: 2, data: make([]byte, 48)},
		{name: ".strtab", typ: elf.SHT_STRTAB, data: []byte("\x00a\x00b\x00")},
		{name: ".eh_frame", typ: elf.SHT_PROGBITS, data: make([]byte, 24)},
	}}.bytes())
	f.Add(compressedSection(elf.COMPRESS_ZLIB, 100, deflate(f, make([]byte, 100))))
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := Open(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		if o.BuildID.IsZero() {
			t.Error("zero build ID")
		}
		exercise(o)
	})
}

func FuzzNotes(f *testing.F) {
	f.Add(noteBytes("GNU", 3, "abc"), uint64(4))
	f.Add(append(noteBytes("Go", 4, "abc"), noteBytes("", 0, "")...), uint64(8))
	f.Fuzz(func(t *testing.T, data []byte, align uint64) {
		total := 0
		notes(data, align, func(n note) bool {
			total += len(n.name) + len(n.desc)
			return true
		})
		if total > len(data) {
			t.Errorf("%d bytes of notes in %d", total, len(data))
		}
	})
}

// Each mutation of a real file must cost little time and memory, whatever comes
// of it.
func TestMutations(t *testing.T) {
	original := compile(t, "gcc", "-g", "-gz=zlib", "-O1", "-Wl,--build-id")
	rnd := rand.New(rand.NewPCG(3, 4))
	var worstTime time.Duration
	var worstAlloc uint64
	for i := range 600 {
		data := mutate(rnd, original)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		start := time.Now()
		if o, err := Open(bytes.NewReader(data), int64(len(data))); err == nil {
			exercise(o)
		}
		took := time.Since(start)
		runtime.ReadMemStats(&after)
		alloc := after.TotalAlloc - before.TotalAlloc
		worstTime, worstAlloc = max(worstTime, took), max(worstAlloc, alloc)
		if took > 2*time.Second || alloc > 32<<20 {
			t.Errorf("mutation %d of %d bytes: %v, %d bytes allocated", i, len(data), took, alloc)
		}
	}
	t.Logf("file of %d bytes; at worst %v, %d bytes allocated", len(original), worstTime, worstAlloc)
}

// mutate changes a few fields, most of them in headers and tables, where they
// hurt.
func mutate(rnd *rand.Rand, original []byte) []byte {
	data := bytes.Clone(original)
	le := binary.LittleEndian
	shoff := int(le.Uint64(data[0x28:]))
	values := []uint64{0, 1, 0x7f, 0xff, 0xffff, 1 << 31, 1<<32 - 1, 1 << 40, 1<<63 - 1, 1 << 63, 1<<64 - 1, uint64(len(data)), uint64(len(data)) - 8}
	for range 1 + rnd.IntN(4) {
		var at int
		switch rnd.IntN(5) {
		case 0:
			at = rnd.IntN(headerSize)
		case 1:
			at = headerSize + rnd.IntN(progSize*13)
		case 2:
			at = shoff + rnd.IntN(len(data)-shoff)
		default:
			at = rnd.IntN(len(data))
		}
		switch v := values[rnd.IntN(len(values))]; rnd.IntN(4) {
		case 0:
			data[at] = byte(rnd.Uint32())
		case 1:
			if at = at &^ 7; at+8 <= len(data) {
				le.PutUint64(data[at:], v)
			}
		case 2:
			if at = at &^ 3; at+4 <= len(data) {
				le.PutUint32(data[at:], uint32(v))
			}
		case 3:
			if rnd.IntN(8) == 0 {
				data = data[:max(at, shoff-100, headerSize)]
				return data
			}
			data[at] ^= 1 << rnd.IntN(8)
		}
	}
	return data
}
