// SPDX-License-Identifier: Apache-2.0

package objfile

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/lowflame/lowflame/stack"
)

// elfImage is a small ELF file to be written out: a test's whole input, in the
// test.
type elfImage struct {
	machine  elf.Machine
	loads    []elf.Prog64
	notes    []byte
	sections []imageSection
}

type imageSection struct {
	name  string
	typ   elf.SectionType
	flags elf.SectionFlag
	addr  uint64
	link  uint32
	data  []byte
}

// bytes lays out header, program headers, notes, sections, section headers. The
// file has one PT_LOAD for itself unless loads says otherwise.
func (m elfImage) bytes() []byte {
	le := binary.LittleEndian
	progs := m.loads
	if progs == nil {
		progs = []elf.Prog64{{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Align: 4096}}
	}
	notesAt := headerSize + progSize*(len(progs)+1)
	body := bytes.Clone(m.notes)
	names := []byte("\x00.shstrtab\x00")
	headers := make([]elf.Section64, 1, len(m.sections)+2)
	for _, s := range m.sections {
		headers = append(headers, elf.Section64{
			Name: uint32(len(names)), Type: uint32(s.typ), Flags: uint64(s.flags), Addr: s.addr, Link: s.link,
			Off: uint64(notesAt + len(body)), Size: uint64(len(s.data)),
		})
		names = append(append(names, s.name...), 0)
		body = append(body, s.data...)
	}
	headers = append(headers, elf.Section64{Name: 1, Type: uint32(elf.SHT_STRTAB), Off: uint64(notesAt + len(body)), Size: uint64(len(names))})
	body = append(body, names...)
	h := elf.Header64{
		Type: uint16(elf.ET_DYN), Machine: uint16(m.machine), Version: 1, Phoff: headerSize, Shoff: uint64(notesAt + len(body)),
		Ehsize: headerSize, Phentsize: progSize, Phnum: uint16(len(progs) + 1),
		Shentsize: sectionSize, Shnum: uint16(len(headers)), Shstrndx: uint16(len(headers) - 1),
	}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	size := uint64(notesAt + len(body) + sectionSize*len(headers))
	if m.loads == nil {
		progs[0].Filesz, progs[0].Memsz = size, size
	}
	progs = append(progs[:len(progs):len(progs)], elf.Prog64{Type: uint32(elf.PT_NOTE), Off: uint64(notesAt), Filesz: uint64(len(m.notes)), Align: 4})
	var b bytes.Buffer
	for _, part := range []any{h, progs, body, headers} {
		if err := binary.Write(&b, le, part); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}

func noteBytes(name string, typ uint32, desc string) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(name)+1))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(desc)))
	b = binary.LittleEndian.AppendUint32(b, typ)
	b = append(append(b, name...), 0)
	b = append(b, make([]byte, padding(len(b), 4))...)
	b = append(b, desc...)
	return append(b, make([]byte, padding(len(b), 4))...)
}

func open(t testing.TB, data []byte) *Object {
	t.Helper()
	o, err := Open(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

const cSource = `
#include <stdlib.h>
#include <string.h>
struct node { struct node *next; int value; };
static int twice(int x) { return x * 2 + 1; }
int visible(struct node *n) { int s = 0; for (; n; n = n->next) s += twice(n->value); return s; }
int main(int argc, char **argv) {
	struct node *n = calloc(argc, sizeof *n);
	n->value = (int)strlen(argv[0]);
	return visible(n);
}
`

// compile builds cSource with the arguments and returns the file.
func compile(t testing.TB, cc string, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath(cc); err != nil {
		t.Skipf("no C compiler to build the input with: %v", err)
	}
	dir := t.TempDir()
	src, out := filepath.Join(dir, "a.c"), filepath.Join(dir, "a.out")
	if err := os.WriteFile(src, []byte(cSource), 0o644); err != nil {
		t.Fatal(err)
	}
	if msg, err := exec.Command(cc, append(args, "-o", out, src)...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", cc, args, err, msg)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// withoutSections returns a copy of an ELF file whose header says that there are
// no section headers.
func withoutSections(data []byte) []byte {
	data = bytes.Clone(data)
	clear(data[0x28:0x30]) // e_shoff
	clear(data[0x3c:0x40]) // e_shnum, e_shstrndx
	return data
}

// exercise calls all that reads the file.
func exercise(o *Object) {
	for i := range o.Segments {
		s := &o.Segments[i]
		if addr, ok := o.LinkAddr(s.Off); ok {
			o.FileOff(addr)
		}
		o.Bias(0x1000, 0x1000+stack.Addr(s.FileSize), s.Off)
		var buf [64]byte
		o.ReadAt(buf[:], s.Addr+stack.LinkAddr(s.FileSize)-8)
	}
	for i, s := range o.Sections {
		if i < 100 {
			o.Data(s, 4<<20)
		}
	}
	o.EHFrame()
	for _, table := range []SymTable{SymTab, DynSym} {
		syms, err := o.Symbols(table)
		if err != nil {
			continue
		}
		names := syms.Names()
		syms.All(func(i int, sym Symbol) bool {
			names.Bytes(sym.Name)
			if i%64 == 0 {
				syms.Name(sym.Name)
			}
			return i < 1<<16
		})
	}
	o.RelativeRelocs(func(stack.LinkAddr, uint64) bool { return true })
}
