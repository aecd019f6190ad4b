// SPDX-License-Identifier: Apache-2.0

package hotspot

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"
)

// Columns of an entry of the made-up virtual machine's table of fields.
const (
	staticColumn = 24
	offsetColumn = 32
)

// setField overwrites a column of the numbered field.
func setField(m image, field int, column, v uint64) {
	binary.LittleEndian.PutUint64(m[structsAt+uint64(field)*structBytes+column-imageBase:], v)
}

// TestFieldOutside says of each field that it is where no structure has one.
func TestFieldOutside(t *testing.T) {
	static := map[int]bool{0: true, 16: true}
	for field := range 21 {
		for _, at := range []uint64{maxBlobHeader - 7, pageBytes, 1 << 20, 1<<64 - 8} {
			if static[field] {
				continue
			}
			mem, symbols := newImage(leaf(), 4, 5)
			addInterpreter(mem)
			setField(mem, field, offsetColumn, at)
			if _, err := Open(symbols, 0, mem); !errors.Is(err, ErrUnknownLayout) {
				t.Errorf("field %d at %#x: error %v, want ErrUnknownLayout", field, at, err)
			}
		}
		mem, symbols := newImage(leaf(), 4, 5)
		setField(mem, field, staticColumn, 1)
		if _, err := Open(symbols, 0, mem); !static[field] != errors.Is(err, ErrUnknownLayout) {
			t.Errorf("field %d is static: error %v", field, err)
		}
	}
}

// FuzzLayout says anything of where a field is.
func FuzzLayout(f *testing.F) {
	for field := range uint8(21) {
		for _, at := range []uint64{4, maxBlobHeader - 8, 1 << 20, 1<<64 - 8} {
			f.Add(field, false, at)
		}
		f.Add(field, true, uint64(1))
	}
	f.Fuzz(func(_ *testing.T, field uint8, static bool, value uint64) {
		mem, symbols := newImage(leaf(), 4, 5)
		addInterpreter(mem)
		column := uint64(offsetColumn)
		if static {
			column = staticColumn
		}
		setField(mem, int(field)%21, column, value)
		if vm, err := Open(symbols, 0, mem); err == nil {
			_, _, _ = vm.Refresh() // whatever comes of it, without a panic
		}
	})
}

func TestNearBounds(t *testing.T) {
	mem, _ := newImage(leaf(), 4, 5)
	m := memory{r: mem}
	for _, n := range []int{-1, pageBytes + 1, 1 << 40} {
		if _, err := m.near(imageBase, n); !errors.Is(err, ErrUnknownLayout) {
			t.Errorf("%d bytes: error %v, want ErrUnknownLayout", n, err)
		}
	}
	if b, err := m.near(imageBase, pageBytes); err != nil || len(b) != pageBytes {
		t.Errorf("a page: %d bytes, %v", len(b), err)
	}
}

// openImage opens a virtual machine with a method and an interpreter.
func openImage(t *testing.T) (*VM, image) {
	t.Helper()
	mem, symbols := newImage(leaf(), 4, 5)
	addInterpreter(mem)
	vm, err := Open(symbols, 0, mem)
	if err != nil {
		t.Fatal(err)
	}
	return vm, mem
}

func TestHeapStarting(t *testing.T) {
	vm, mem := openImage(t)
	binary.LittleEndian.PutUint64(mem[heapAt+24-imageBase:], codeHeap)
	if _, _, err := vm.Refresh(); !errors.Is(err, ErrNotReady) {
		t.Errorf("got %v, want ErrNotReady", err)
	}
}

func TestLimits(t *testing.T) {
	for name, limit := range map[string]func(*limits){
		"blobs": func(l *limits) { l.blobs = 1 },
		"code":  func(l *limits) { l.code = 70 },
		"rows":  func(l *limits) { l.rows = 6 },
	} {
		vm, _ := openImage(t)
		limit(&vm.limits)
		if _, _, err := vm.Refresh(); !errors.Is(err, ErrUnknownLayout) {
			t.Errorf("%s: error %v, want ErrUnknownLayout", name, err)
		}
	}
	vm, _ := openImage(t)
	if _, _, err := vm.Refresh(); err != nil || len(vm.known) != 2 || vm.Rows() <= 6 {
		t.Errorf("within the limits: %d blobs, %d rows, %v", len(vm.known), vm.Rows(), err)
	}
}

// TestDeadline has no time for more than one blob: the other is looked at next time.
func TestDeadline(t *testing.T) {
	vm, _ := openImage(t)
	vm.limits.time = -time.Second
	chunks, _, err := vm.Refresh()
	if err != nil || len(vm.known) != 1 || len(chunks) != 1 {
		t.Fatalf("%d blobs, %d pieces, %v; want one of each", len(vm.known), len(chunks), err)
	}
	vm.limits.time = time.Hour
	chunks, _, err = vm.Refresh()
	if err != nil || len(vm.known) != 2 || len(chunks) != 1 {
		t.Fatalf("%d blobs, %d pieces, %v; want two in one", len(vm.known), len(chunks), err)
	}
}

// TestTooSlow has a code cache of many blocks, and no time.
func TestTooSlow(t *testing.T) {
	vm, mem := openImage(t)
	clear(mem[segmapAt-imageBase:][:0x10000>>7])
	vm.limits.time = -time.Second
	if _, _, err := vm.Refresh(); !errors.Is(err, ErrTooSlow) {
		t.Errorf("got %v, want ErrTooSlow", err)
	}
}
