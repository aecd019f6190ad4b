// SPDX-License-Identifier: Apache-2.0

package unwind

import "encoding/binary"

// cfiAsm writes call frame information, for small tests and fuzz seeds.
type cfiAsm struct {
	b     []byte
	addr  uint64 // link-time address of b[0]
	debug bool   // .debug_frame, not .eh_frame
}

func (a *cfiAsm) u32(v uint32) { a.b = binary.LittleEndian.AppendUint32(a.b, v) }
func (a *cfiAsm) u64(v uint64) { a.b = binary.LittleEndian.AppendUint64(a.b, v) }

// cie appends a CIE and returns its offset. aug is the augmentation string,
// augData what belongs to it.
func (a *cfiAsm) cie(version byte, aug string, augData []byte, ra byte, instr ...byte) int {
	off := len(a.b)
	a.u32(0)
	if a.debug {
		a.u32(0xffffffff)
	} else {
		a.u32(0)
	}
	a.b = append(a.b, version)
	a.b = append(a.b, aug...)
	a.b = append(a.b, 0)
	if version == 4 {
		a.b = append(a.b, 8, 0)
	}
	a.b = append(a.b, 1, 0x78, ra) // alignment of code 1, of data -8
	if len(aug) > 0 && aug[0] == 'z' {
		a.b = append(a.b, byte(len(augData)))
	}
	a.b = append(a.b, augData...)
	a.end(off, instr)
	return off
}

// fde appends an FDE with pcrel|sdata4 pointers, or absolute ones in
// .debug_frame.
func (a *cfiAsm) fde(cie int, begin, size uint64, instr ...byte) {
	off := len(a.b)
	a.u32(0)
	if a.debug {
		a.u32(uint32(cie))
		a.u64(begin)
		a.u64(size)
	} else {
		a.u32(uint32(len(a.b) - cie))
		a.u32(uint32(begin - (a.addr + uint64(len(a.b)))))
		a.u32(uint32(size))
		a.b = append(a.b, 0)
	}
	a.end(off, instr)
}

// end pads the entry at off with nops and fills its length in.
func (a *cfiAsm) end(off int, instr []byte) {
	a.b = append(a.b, instr...)
	for len(a.b)%8 != 4 {
		a.b = append(a.b, cfaNop)
	}
	binary.LittleEndian.PutUint32(a.b[off:], uint32(len(a.b)-off-4))
}

// x86Entry is the initial instructions of every x86-64 CIE: CFA = RSP + 8, RA
// at CFA-8.
var x86Entry = []byte{cfaDefCFA, 7, 8, cfaOffset | 16, 1}

// expression returns the instruction op with an expression.
func expression(op []byte, expr ...byte) []byte {
	return append(append(op, byte(len(expr))), expr...)
}
