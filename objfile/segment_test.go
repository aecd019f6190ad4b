// SPDX-License-Identifier: Apache-2.0

package objfile

import (
	"bytes"
	"debug/elf"
	"io"
	"testing"

	"github.com/lowflame/lowflame/stack"
)

func asOff(v uint64) stack.FileOff   { return stack.FileOff(v) }
func asAddr(v uint64) stack.LinkAddr { return stack.LinkAddr(v) }

func load(flags elf.ProgFlag, off, addr, filesz, memsz uint64) elf.Prog64 {
	return elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(flags), Off: off, Vaddr: addr, Filesz: filesz, Memsz: memsz, Align: 0x1000}
}

// lld puts segments side by side in the file and a page apart in memory, so file
// offsets and addresses differ by another amount in each.
func lldLayout(t *testing.T) *Object {
	return open(t, elfImage{machine: elf.EM_X86_64, loads: []elf.Prog64{
		load(elf.PF_R, 0, 0x200000, 0x1234, 0x1234),
		load(elf.PF_R|elf.PF_X, 0x1240, 0x202240, 0x1000, 0x1000),
		load(elf.PF_R|elf.PF_X, 0x2250, 0x204250, 0x3000, 0x3000),
		load(elf.PF_R|elf.PF_W, 0x5250, 0x208250, 0x100, 0x900),
		load(elf.PF_R|elf.PF_X, 1<<63, 0x1000, 1<<63, 1<<63),    // offset + size overflows
		load(elf.PF_R|elf.PF_X, 0x1000, 1<<63, 0x1000, 1<<63+1), // address + size overflows
		load(elf.PF_R|elf.PF_X, 0x1000, 0x300000, 0x1001, 0x1000),
	}}.bytes())
}

func TestLinkAddr(t *testing.T) {
	o := lldLayout(t)
	if len(o.Segments) != 4 {
		t.Fatalf("%d segments, want the 4 that can be loaded", len(o.Segments))
	}
	for _, test := range []struct {
		name string
		off  stack.FileOff
		addr stack.LinkAddr
		ok   bool
	}{
		{"first byte of code", 0x1240, 0x202240, true},
		{"last byte", 0x223f, 0x20323f, true},
		{"second segment", 0x2250, 0x204250, true},
		{"page before the first byte", 0x1000, 0x202000, true},
		{"hole on the page of the second", 0x2248, 0x204248, true},
		{"data", 0x5260, 0, false},
		{"far outside", 1 << 40, 0, false},
	} {
		addr, ok := o.LinkAddr(test.off)
		if addr != test.addr || ok != test.ok {
			t.Errorf("%s: LinkAddr(%#x) = %#x, %v; want %#x, %v", test.name, test.off, addr, ok, test.addr, test.ok)
		}
	}
	if off, ok := o.FileOff(0x208300); !ok || off != 0x5300 {
		t.Errorf("FileOff of data = %#x, %v", off, ok)
	}
	if off, ok := o.FileOff(0x208350); ok {
		t.Errorf("FileOff of .bss = %#x", off)
	}
}

func TestBias(t *testing.T) {
	o := lldLayout(t)
	const at = 0x7f0000000000
	for _, test := range []struct {
		name       string
		begin, end stack.Addr
		off        stack.FileOff
		link       stack.LinkAddr // of begin
		ok         bool
	}{
		{"first segment", at, at + 0x2000, 0x1000, 0x202000, true},
		{"second segment, whose first page ends the first", at, at + 0x4000, 0x2000, 0x204000, true},
		{"its tail alone, after mprotect", at, at + 0x1000, 0x4000, 0x206000, true},
		{"data", at, at + 0x1000, 0x6000, 0, false},
		{"empty", at, at, 0x1000, 0, false},
		{"overflowing offset", at, at + 0x1000, 1<<64 - 0x800, 0, false},
	} {
		bias, ok := o.Bias(test.begin, test.end, test.off)
		if ok != test.ok || ok && stack.LinkAddr(uint64(test.begin)-bias) != test.link {
			t.Errorf("%s: bias %#x, %v; want link-time address %#x, %v", test.name, bias, ok, test.link, test.ok)
		}
	}
}

func TestReadAt(t *testing.T) {
	b := elfImage{machine: elf.EM_X86_64, loads: []elf.Prog64{
		load(elf.PF_R, 0, 0x10000, 0x40, 0x80), load(elf.PF_R, 0x40, 0x20000, 1<<20, 1<<20)}}.bytes()
	o := open(t, b)
	buf := make([]byte, 16)
	if n, err := o.ReadAt(buf, 0x10008); n != 16 || err != nil || !bytes.Equal(buf, b[8:24]) {
		t.Errorf("inside: %d, %v", n, err)
	}
	if n, err := o.ReadAt(buf, 0x10038); n != 8 || err != io.EOF || !bytes.Equal(buf[:8], b[0x38:0x40]) {
		t.Errorf("over the end of a segment: %d, %v; want 8, EOF", n, err)
	}
	for name, addr := range map[string]stack.LinkAddr{
		"zeros": 0x10048, "nothing": 0x18000, "beyond the end of a truncated file": 0x20000 + 0x80000, "top": 1<<64 - 1} {
		if n, err := o.ReadAt(buf, addr); n != 0 || err != io.EOF {
			t.Errorf("%s: %d, %v; want 0, EOF", name, n, err)
		}
	}
	last := asAddr(0x20000 + uint64(len(b)) - 0x40 - 4)
	if n, err := o.ReadAt(buf, last); n != 4 || err != io.EOF {
		t.Errorf("over the end of the file: %d, %v; want 4, EOF", n, err)
	}
}
