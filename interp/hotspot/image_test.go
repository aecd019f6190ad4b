// SPDX-License-Identifier: Apache-2.0

package hotspot

import (
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/unwind"
)

// image is the memory of a made-up process, from imageBase on.
type image []byte

const (
	imageBase = 0x10000
	codeHeap  = 0x40000 // of 64 KiB, in segments of 128 bytes
	imageEnd  = 0x60000
)

func (m image) ReadAt(p []byte, off int64) (int, error) {
	if off < imageBase || off-imageBase > int64(len(m)) {
		return 0, io.ErrUnexpectedEOF
	}
	n := copy(p, m[off-imageBase:])
	if n < len(p) {
		return n, io.ErrUnexpectedEOF
	}
	return n, nil
}

// writer fills an image.
type writer struct {
	m    image
	next uint64 // where strings and tables go
}

func (w *writer) word(at, v uint64) { binary.LittleEndian.PutUint64(w.m[at-imageBase:], v) }
func (w *writer) half(at uint64, v int32) {
	binary.LittleEndian.PutUint32(w.m[at-imageBase:], uint32(v))
}

func (w *writer) text(s string) uint64 {
	at := w.next
	copy(w.m[at-imageBase:], s)
	w.next += uint64(len(s) + 1)
	return at
}

func (w *writer) symbol(symbols Symbols, name string, v uint64) {
	symbols[name] = w.next
	w.word(w.next, v)
	w.next += 8
}

// The layout of the made-up virtual machine.
const (
	blockHeader = 16
	blobBytes   = 64
	heapsAt     = 0x20000 // the static field
	arrayAt     = 0x20100
	heapAt      = 0x20200
	segmapAt    = 0x20400
	methodSeg   = 4
	queueAt     = 0x20600
	codeletsSeg = 64
	structsAt   = imageBase + 0x4000
	structBytes = 48
)

// newImage makes a process whose virtual machine has one method, of the code given.
func newImage(code []byte, words, complete int32) (image, Symbols) {
	w := writer{m: make(image, imageEnd-imageBase), next: imageBase + 0x100}
	symbols := Symbols{}
	w.describe(symbols)
	w.word(heapsAt, arrayAt)
	w.half(arrayAt, 1)
	w.word(arrayAt+8, arrayAt+16)
	w.word(arrayAt+16, heapAt)
	w.word(heapAt+16, codeHeap)
	w.word(heapAt+24, codeHeap+0x10000)
	w.word(heapAt+64+16, segmapAt)
	w.half(heapAt+128, 7)
	for i := range uint64(0x10000 >> 7) {
		w.m[segmapAt+i-imageBase] = 0xff
	}
	for i := range uint64(8) {
		w.m[segmapAt+methodSeg+i-imageBase] = byte(i)
	}
	at := uint64(codeHeap + methodSeg<<7)
	w.word(at, 8)
	w.m[at+8-imageBase] = 1
	blob := at + blockHeader
	w.word(blob, w.text("nmethod"))
	w.half(blob+8, 512)
	w.half(blob+12, words)
	w.half(blob+16, complete)
	w.word(blob+24, blob+blobBytes)
	w.word(blob+32, blob+blobBytes+uint64(len(code)))
	copy(w.m[blob+blobBytes-imageBase:], code)
	return w.m, symbols
}

// addInterpreter gives an image an interpreter of one codelet.
func addInterpreter(m image) {
	w := writer{m: m, next: 0x20800}
	for i := range uint64(4) {
		w.m[segmapAt+codeletsSeg+i-imageBase] = byte(i)
	}
	at := uint64(codeHeap + codeletsSeg<<7)
	w.word(at, 4)
	w.m[at+8-imageBase] = 1
	blob := at + blockHeader
	code := blob + blobBytes
	w.word(blob, w.text("Interpreter"))
	w.half(blob+8, 256)
	w.word(blob+24, code)
	w.word(blob+32, code+64)
	w.word(queueAt-8, queueAt)
	w.word(queueAt, code)
	w.half(queueAt+8, 64)
	w.half(code, 64)
	w.word(code+8, w.text("return entry points"))
	copy(w.m[code+24-imageBase:], leaf())
}

// describe writes the tables that vmStructs.cpp has.
func (w *writer) describe(symbols Symbols) {
	fields := []struct {
		owner, name, kind string
		static            bool
		at                uint64
	}{
		{"CodeCache", "_heaps", "GrowableArray<CodeHeap*>*", true, heapsAt},
		{"GrowableArrayBase", "_len", "int", false, 0},
		{"GrowableArray<int>", "_data", "int*", false, 8},
		{"CodeHeap", "_memory", "VirtualSpace", false, 0},
		{"CodeHeap", "_segmap", "VirtualSpace", false, 64},
		{"CodeHeap", "_log2_segment_size", "int", false, 128},
		{"VirtualSpace", "_low", "char*", false, 16},
		{"VirtualSpace", "_high", "char*", false, 24},
		{"HeapBlock::Header", "_length", "size_t", false, 0},
		{"HeapBlock::Header", "_used", "bool", false, 8},
		{"CodeBlob", "_name", "const char*", false, 0},
		{"CodeBlob", "_size", "int", false, 8},
		{"CodeBlob", "_frame_size", "int", false, 12},
		{"CodeBlob", "_frame_complete_offset", "int", false, 16},
		{"CodeBlob", "_code_begin", "address", false, 24},
		{"CodeBlob", "_code_end", "address", false, 32},
		{"AbstractInterpreter", "_code", "StubQueue*", true, queueAt - 8},
		{"StubQueue", "_stub_buffer", "address", false, 0},
		{"StubQueue", "_queue_end", "int", false, 8},
		{"InterpreterCodelet", "_size", "int", false, 0},
		{"InterpreterCodelet", "_description", "const char*", false, 8},
	}
	for i, f := range fields {
		at := structsAt + uint64(i)*structBytes
		w.word(at, w.text(f.owner))
		w.word(at+8, w.text(f.name))
		w.word(at+16, w.text(f.kind))
		if f.static {
			w.half(at+24, 1)
			w.word(at+40, f.at)
		} else {
			w.word(at+32, f.at)
		}
	}
	types := uint64(imageBase + 0x6000)
	w.word(types, w.text("HeapBlock"))
	w.word(types+8, blockHeader)
	w.word(types+32, w.text("InterpreterCodelet"))
	w.word(types+32+8, 24)
	w.next = (w.next + 7) &^ 7
	for name, v := range map[string]uint64{
		"gHotSpotVMStructs": structsAt, "gHotSpotVMStructEntryArrayStride": structBytes,
		"gHotSpotVMStructEntryTypeNameOffset": 0, "gHotSpotVMStructEntryFieldNameOffset": 8,
		"gHotSpotVMStructEntryTypeStringOffset": 16, "gHotSpotVMStructEntryIsStaticOffset": 24,
		"gHotSpotVMStructEntryOffsetOffset": 32, "gHotSpotVMStructEntryAddressOffset": 40,
		"gHotSpotVMTypes": types, "gHotSpotVMTypeEntryArrayStride": 32,
		"gHotSpotVMTypeEntryTypeNameOffset": 0, "gHotSpotVMTypeEntrySizeOffset": 8,
	} {
		w.symbol(symbols, name, v)
	}
}

// leaf is push %rbp; sub $16, %rsp; nop; add $16, %rsp; pop %rbp; ret.
func leaf() []byte {
	return []byte{0x55, 0x48, 0x83, 0xec, 0x10, 0x90, 0x48, 0x83, 0xc4, 0x10, 0x5d, 0xc3}
}

func TestRefresh(t *testing.T) {
	mem, symbols := newImage(leaf(), 4, 5)
	vm, err := Open(symbols, 0, mem)
	if err != nil {
		t.Fatal(err)
	}
	chunks, ranges, err := vm.Refresh()
	if err != nil || len(chunks) != 1 || chunks[0].Table == nil {
		t.Fatalf("%d pieces of code, %v; want one with a table", len(chunks), err)
	}
	if want := (Range{codeHeap, codeHeap + 0x10000}); len(ranges) != 1 || ranges[0] != want {
		t.Errorf("code memory %v, want %v", ranges, want)
	}
	begin := uint64(codeHeap + methodSeg<<7 + blockHeader + blobBytes)
	for off, want := range map[uint64]unwind.Rule{
		0: unwind.MakeRule(unwind.KindSP, 0, 1), 1: unwind.MakeRule(unwind.KindSP, 1, 2),
		5: unwind.MakeRule(unwind.KindSP, 1, 4), 11: unwind.MakeRule(unwind.KindSP, 0, 1), 12: 0,
	} {
		if got, _ := chunks[0].Table.Lookup(stack.LinkAddr(begin + off)); got != want {
			t.Errorf("rule %#x at %#x, want %#x", got, off, want)
		}
	}
	// Nothing has changed.
	if chunks, _, err = vm.Refresh(); err != nil || len(chunks) != 0 {
		t.Errorf("%d pieces changed, %v; want none", len(chunks), err)
	}
	// The method goes.
	mem[codeHeap+methodSeg<<7+8-imageBase] = 0
	if chunks, _, err = vm.Refresh(); err != nil || len(chunks) != 1 || chunks[0].Table != nil {
		t.Errorf("pieces %v, %v; want one without a table", chunks, err)
	}
}

func TestNotReady(t *testing.T) {
	mem, symbols := newImage(leaf(), 4, 5)
	binary.LittleEndian.PutUint64(mem[heapsAt-imageBase:], 0)
	vm, err := Open(symbols, 0, mem)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := vm.Refresh(); !errors.Is(err, ErrNotReady) {
		t.Errorf("got %v, want ErrNotReady", err)
	}
}

func TestUnknownLayout(t *testing.T) {
	mem, symbols := newImage(leaf(), 4, 5)
	binary.LittleEndian.PutUint64(mem[0x4000:], 0) // no fields
	if _, err := Open(symbols, 0, mem); !errors.Is(err, ErrUnknownLayout) {
		t.Errorf("got %v, want ErrUnknownLayout", err)
	}
}

// FuzzRefresh writes anything anywhere into the memory of a virtual machine.
func FuzzRefresh(f *testing.F) {
	f.Add([]byte{1, 2, 3}, uint32(heapAt+16-imageBase), uint64(1)<<62)
	f.Add(leaf(), uint32(arrayAt-imageBase), uint64(1)<<31)
	f.Add(leaf(), uint32(0x4000), uint64(0))
	f.Fuzz(func(_ *testing.T, code []byte, at uint32, value uint64) {
		mem, symbols := newImage(code[:min(len(code), 400)], 4, 5)
		binary.LittleEndian.PutUint64(mem[at%uint32(len(mem)-8):], value)
		vm, err := Open(symbols, 0, mem)
		if err != nil {
			return
		}
		for range 2 {
			if _, _, err := vm.Refresh(); err != nil {
				return
			}
		}
	})
}
