// SPDX-License-Identifier: Apache-2.0

package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"github.com/lowflame/lowflame/stack"
)

// bytesSource is random numbers from what the fuzzer makes up, then from a generator.
type bytesSource struct {
	data []byte
	rest *rand.PCG
}

func (s *bytesSource) Uint64() uint64 {
	if len(s.data) < 8 {
		return s.rest.Uint64()
	}
	v := binary.LittleEndian.Uint64(s.data)
	s.data = s.data[8:]
	return v
}

// FuzzWriter writes units made of data and compares the index with them.
func FuzzWriter(f *testing.F) {
	for seed := range uint64(4) {
		rnd := rand.NewPCG(seed, 3)
		var data []byte
		for range 64 {
			data = binary.LittleEndian.AppendUint64(data, rnd.Uint64())
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		rnd := rand.New(&bytesSource{data, rand.NewPCG(4, 5)})
		m, s := randomModel(rnd, 5)
		m.check(t, rnd, s.space)
	})
}

// resum sets the checksums in an index to what they must be, as far as its directories
// can be followed, so that changes get past them.
func resum(data []byte) {
	if len(data) < headerSize {
		return
	}
	sum := func(off uint64, size uint32) {
		if size >= crcSize && off <= uint64(len(data)) && uint64(size) <= uint64(len(data))-off {
			b := data[off : off+uint64(size)]
			n := len(b) - crcSize
			binary.LittleEndian.PutUint32(b[n:], crc32.Checksum(b[:n], castagnoli))
		}
	}
	binary.LittleEndian.PutUint64(data[16:], uint64(len(data)))
	sum(0, headerSize)
	sections, err := decodeHeader(data[:headerSize], int64(len(data)))
	if err != nil {
		return
	}
	for _, s := range sections {
		for i := range s.pages() {
			off, size := s.page(i)
			for at := off; at+entrySize+crcSize <= off+uint64(size) && at+entrySize <= uint64(len(data)); at += entrySize {
				e := decodeEntry(data[at:])
				sum(e.off, e.size)
			}
			sum(off, size)
		}
	}
	sum(0, headerSize)
}

// FuzzIndex opens what may be an index and looks up addresses in it.
func FuzzIndex(f *testing.F) {
	for seed := range uint64(8) {
		m, _ := randomModel(rand.New(rand.NewPCG(seed, 1)), 4)
		f.Add(m.write(f), uint64(0x100))
	}
	f.Add((&model{}).write(f), uint64(0))
	f.Fuzz(func(t *testing.T, data []byte, addr uint64) {
		data = bytes.Clone(data)
		resum(data)
		x, err := Open(bytes.NewReader(data), int64(len(data)), NewBlocks(16<<10))
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Errorf("open: %v", err)
			}
			return
		}
		addrs := []uint64{addr, addr + 1, 0, 1<<64 - 1}
		for _, keys := range x.first {
			addrs = append(addrs, keys[:min(len(keys), 8)]...)
		}
		for _, a := range addrs {
			lines, err := x.Lookup(stack.LinkAddr(a), nil)
			if err != nil && (!errors.Is(err, ErrFormat) || lines != nil) {
				t.Errorf("lookup: %d lines, error %v", len(lines), err)
			}
			if len(lines) > maxDepth {
				t.Errorf("%d lines", len(lines))
			}
		}
	})
}

// FuzzBlocks decodes what may be blocks.
func FuzzBlocks(f *testing.F) {
	m, _ := randomModel(rand.New(rand.NewPCG(7, 1)), 5)
	data := m.write(f)
	f.Add(data[headerSize:min(len(data), headerSize+1024)], uint64(16), uint64(24))
	f.Fuzz(func(t *testing.T, block []byte, key, addr uint64) {
		var c codeBlock
		if ok, err := c.find(block, key, addr); err == nil && ok && c.depth > maxDepth {
			t.Errorf("depth %d", c.depth)
		}
		s, err := appendString(nil, block, addr)
		if err == nil && len(s) > maxBlock {
			t.Errorf("string of %d bytes", len(s))
		}
		if _, err := findSymbol(block, key, addr); err != nil && !errors.Is(err, ErrFormat) {
			t.Error(err)
		}
	})
}
