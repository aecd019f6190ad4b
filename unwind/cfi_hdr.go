// SPDX-License-Identifier: Apache-2.0

package unwind

import "encoding/binary"

// hdrTable is the sorted table of .eh_frame_hdr (LSB 5.0 §10.6.2): pairs of a
// function's address and its FDE's, as offsets from the header itself.
type hdrTable struct {
	b     []byte
	n     int
	addr  uint64 // of the header
	frame uint64 // of .eh_frame
}

// parseHdr reads .eh_frame_hdr, found at addr, for the .eh_frame at frame. A
// header in any form but the one linkers write gives an empty table.
func parseHdr(hdr []byte, addr, frame uint64) hdrTable {
	r := reader{b: hdr}
	version, ptrEnc, countEnc, tableEnc := r.u8(), r.u8(), r.u8(), r.u8()
	if r.bad || version != 1 || tableEnc != encDataRel|encS32 || countEnc == encOmit {
		return hdrTable{}
	}
	base := encBase{pc: addr, data: addr}
	r.pointer(ptrEnc, base)
	n := r.pointer(countEnc, base)
	if r.bad || n > uint64(len(hdr)-r.pos)/8 {
		return hdrTable{}
	}
	return hdrTable{b: hdr[r.pos:], n: int(n), addr: addr, frame: frame}
}

// entry returns the address of the i'th function and the offset of its FDE in
// .eh_frame.
func (h *hdrTable) entry(i int) (pc uint64, off int) {
	e := h.b[8*i:]
	pc = h.addr + uint64(int32(binary.LittleEndian.Uint32(e)))
	off = int(h.addr + uint64(int32(binary.LittleEndian.Uint32(e[4:]))) - h.frame)
	return pc, off
}
