// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sort"
)

// ErrNoCFI is returned for a file that has no unwind information of any kind
// this package reads.
var ErrNoCFI = errors.New("no unwind information")

// A CFIError describes call frame information that makes no sense. Entries
// other than the one it names are used all the same.
type CFIError struct {
	Section string // ".eh_frame" or ".debug_frame"
	Off     uint64 // of the entry in the section
	Reason  string
}

func (e *CFIError) Error() string {
	return fmt.Sprintf("%s+%#x: %s", e.Section, e.Off, e.Reason)
}

// maxRemember is how deep DW_CFA_remember_state may nest. Compilers nest once.
const maxRemember = 32

// cfi reads one section of call frame information and reports its rows in
// order of PC. It keeps nothing but the current entry.
//
// See DWARF 5 §6.4 and, for .eh_frame, LSB 5.0 §10.6.
type cfi struct {
	section string
	data    []byte
	addr    uint64 // link-time address of data[0]
	debug   bool   // .debug_frame rules, not .eh_frame's
	machine machine
	// row is called for each row; its state is only valid during the call. PCs
	// never decrease; of rows with one PC the last counts. A nil state says
	// that nothing is known from pc on.
	row func(pc uint64, s *frameState)
	// code returns where the executable segment that holds pc ends, 0 if none
	// does. Entries for anything else are ignored. Nil means anything goes.
	code func(pc uint64) uint64

	exe    executor // kept for its memory
	cie    cie
	cieOff int // offset of the entry in cie, -1 at first
	floor  uint64
	open   bool // the last row before floor had a state
	budget int  // bytes of instructions that may still be executed
	err    *CFIError
	skip   gap // code that other sources cover
}

// cie is a common information entry: what a group of functions shares.
type cie struct {
	codeAlign uint64
	dataAlign int64
	raReg     uint32
	fdeEnc    uint8
	augmented bool // 'z': FDEs have a sized augmentation too
	initial   frameState
}

// fde is a frame description entry: the rows of one function.
type fde struct {
	off        int
	begin, end uint64
	instr      []byte
	instrOff   int // offset of instr in the section
}

// fail records what is wrong with the entry at off, unless something is wrong
// with an earlier one.
func (c *cfi) fail(off int, reason string) {
	if c.err == nil {
		c.err = &CFIError{Section: c.section, Off: uint64(off), Reason: reason}
	}
}

// start makes c ready to run.
func (c *cfi) start() {
	c.cieOff = -1
	c.exe = executor{cie: &c.cie, machine: &c.machine, base: encBase{pc: c.addr}, row: c.row}
	// Instructions of an FDE run once, but those of a CIE once for each change
	// of CIE: a hostile file must not make that quadratic.
	c.budget = 64*len(c.data) + 1<<20
}

// run reports all rows. If hdr, the sorted table of .eh_frame_hdr, fits the
// data it gives the order; otherwise the entries are collected and sorted.
func (c *cfi) run(hdr hdrTable) {
	c.start()
	if hdr.n > 0 && c.sorted(hdr) {
		for i := range hdr.n {
			_, off := hdr.entry(i)
			if f, ok := c.fde(off); ok {
				c.exec(&f)
			}
		}
	} else {
		c.linear()
	}
	c.gap()
}

// sorted reports whether hdr lists entries of the section by rising address,
// none of them twice, with the addresses that the entries have.
func (c *cfi) sorted(hdr hdrTable) bool {
	last := uint64(0)
	for i := range hdr.n {
		pc, off := hdr.entry(i)
		if i > 0 && pc <= last || off < 0 || off >= len(c.data) {
			return false
		}
		last = pc
		// With the encoding everyone uses the address follows length and CIE
		// pointer.
		r := reader{b: c.data, pos: off + 8}
		if at := c.addr + uint64(r.pos); at+uint64(int32(r.u32())) == pc && !r.bad {
			continue
		}
		if f, ok := c.fde(off); !ok || f.begin != pc {
			return false
		}
	}
	return true
}

// linear walks the section from end to end, sorts the entries, and executes
// them.
func (c *cfi) linear() {
	type ref struct {
		begin uint64
		off   int
	}
	var refs []ref
	for off := 0; off < len(c.data); {
		h, ok := c.header(off)
		if !ok || h.next <= off {
			break
		}
		if !h.isCIE && !h.terminator {
			if f, ok := c.fde(off); ok {
				refs = append(refs, ref{f.begin, off})
			}
		}
		off = h.next
	}
	sort.Slice(refs, func(i, j int) bool {
		return refs[i].begin < refs[j].begin || refs[i].begin == refs[j].begin && refs[i].off < refs[j].off
	})
	for _, r := range refs {
		if f, ok := c.fde(r.off); ok {
			c.exec(&f)
		}
	}
}

// header is the start of an entry of either sort.
type header struct {
	r          reader // over the entry, after the ID; positions are section offsets
	next       int
	isCIE      bool
	terminator bool
	cieOff     int
}

// header reads length and ID of the entry at off.
func (c *cfi) header(off int) (header, bool) {
	r := reader{b: c.data, pos: off}
	length, wide := uint64(r.u32()), false
	if length == 0xffffffff {
		length, wide = r.u64(), true
	}
	if length == 0 && !r.bad {
		return header{next: r.pos, terminator: true}, true
	}
	if r.bad || length > uint64(len(c.data)-r.pos) || length < 4 {
		c.fail(off, "entry runs past the section")
		return header{}, false
	}
	h := header{next: r.pos + int(length)}
	r.b = c.data[:h.next]
	idPos := r.pos
	id := uint64(0)
	if wide && c.debug {
		id = r.u64()
		h.isCIE = id == 1<<64-1
	} else {
		id = uint64(r.u32())
		h.isCIE = c.debug && id == 0xffffffff || !c.debug && id == 0
	}
	// .debug_frame has the CIE's offset, .eh_frame the distance back to it.
	switch {
	case h.isCIE:
	case c.debug && id < uint64(len(c.data)):
		h.cieOff = int(id)
	case !c.debug && id <= uint64(idPos):
		h.cieOff = idPos - int(id)
	default:
		c.fail(off, "CIE outside the section")
		return header{}, false
	}
	h.r = r
	return h, !r.bad
}

// fde reads the entry at off, and its CIE unless that is the last one read.
func (c *cfi) fde(off int) (fde, bool) {
	if f, ok := c.plainFDE(off); ok {
		return f, true
	}
	h, ok := c.header(off)
	if !ok || h.isCIE || h.terminator {
		return fde{}, false
	}
	if h.cieOff != c.cieOff && !c.readCIE(h.cieOff) {
		return fde{}, false
	}
	f := fde{off: off}
	enc := c.cie.fdeEnc
	base := encBase{pc: c.addr}
	f.begin = h.r.pointer(enc, base)
	length := h.r.value(enc & 0x0f)
	if c.cie.augmented {
		h.r.bytes(h.r.uleb())
	}
	f.end = f.begin + length
	if h.r.bad || enc&encIndirect != 0 || f.end < f.begin {
		c.fail(off, "malformed FDE")
		return fde{}, false
	}
	f.instrOff = h.r.pos
	f.instr = c.data[h.r.pos:h.next]
	return f, true
}

// plainFDE is fde for an entry as compilers write them, with the CIE last read. It
// returns false for any other.
func (c *cfi) plainFDE(off int) (fde, bool) {
	const fixed = 17 // length, ID, address, size, size of the augmentation
	if c.debug || c.cieOff < 0 || c.cie.fdeEnc != encPCRelS32 || !c.cie.augmented || len(c.data)-off < fixed {
		return fde{}, false
	}
	b := c.data[off : off+fixed]
	length, id := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
	at, next := off+fixed+int(b[16]), off+4+int(length)
	if id == 0 || off+4-int(id) != c.cieOff || length >= 0xfffffff0 || next > len(c.data) || b[16] >= 0x80 || at > next {
		return fde{}, false
	}
	begin := c.addr + uint64(off) + 8 + uint64(int32(binary.LittleEndian.Uint32(b[8:])))
	end := begin + uint64(int32(binary.LittleEndian.Uint32(b[12:])))
	return fde{off: off, begin: begin, end: end, instr: c.data[at:next], instrOff: at}, end >= begin
}

// clip cuts f to executable memory and to what lies beyond the last entry. It
// returns false if nothing is left.
func (c *cfi) clip(f *fde) bool {
	if f.begin >= c.skip.begin && f.end <= c.skip.end && c.skip.end > 0 {
		return false
	}
	if c.code != nil {
		f.end = min(f.end, c.code(f.begin))
	}
	return f.end > f.begin && f.end > c.floor
}

// gap ends the rows of the last entry.
func (c *cfi) gap() {
	if c.open {
		c.row(c.floor, nil)
		c.open = false
	}
}

// exec reports the rows of f.
func (c *cfi) exec(f *fde) {
	if !c.clip(f) {
		return
	}
	if c.open && f.begin > c.floor {
		c.row(c.floor, nil)
	}
	c.open = true
	floor := c.floor
	c.floor = f.end
	if len(f.instr) > c.budget {
		c.fail(f.off, "too much to execute")
		c.row(max(f.begin, floor), nil)
		return
	}
	c.budget -= len(f.instr)
	x := &c.exe
	x.reader = reader{b: c.data[:f.instrOff+len(f.instr)], pos: f.instrOff}
	x.state = c.cie.initial
	x.pc, x.end, x.floor = f.begin, f.end, floor
	x.remembered = x.remembered[:0]
	if !x.run() {
		c.fail(f.off, "malformed instructions")
		if x.pc < f.end {
			c.row(max(x.pc, floor), nil)
		}
	}
}
