// SPDX-License-Identifier: Apache-2.0

package gopclntab

import (
	"fmt"

	"github.com/lowflame/lowflame/internal/hostile"
	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/stack"
)

// maxSteps bounds how many steps of pc tables one question may take. The longest
// tables of real functions have some ten thousand.
const maxSteps = 1 << 21

// pcTable reads a table of values by pc: pairs of varints, the difference to the
// last value (zig-zag) and the distance to the pc where the value ends (in
// quanta), until a value difference of 0. See runtime.step and golang.org/s/go12symtab.
type pcTable struct {
	blocks  *hostile.Blocks
	off     int64  // of cur in the file
	end     int64  // of all pc tables
	cur     []byte // of blocks; nothing else may read from blocks meanwhile
	pc      stack.LinkAddr
	limit   stack.LinkAddr // end of the function
	quantum uint32
	val     int32
	first   bool
	err     error
}

// pcTable returns the table at an offset of the pc tables; ok is false for offset
// 0, which stands for none.
func (t *Table) pcTable(f Func, off uint32) (p pcTable, ok bool, err error) {
	if off == 0 {
		return pcTable{}, false, nil
	}
	at, err := t.h.pcs.at(uint64(off), 1)
	if err != nil {
		return pcTable{}, false, err
	}
	return pcTable{
		blocks: t.blocks, off: at, end: t.h.pcs.off + t.h.pcs.size, pc: f.Entry, limit: f.End,
		quantum: t.h.quantum, val: -1, first: true,
	}, true, nil
}

// step moves to the next value: val is in force until pc. It returns false at the
// end or at an error, which is then in err. pc rises with each step.
func (p *pcTable) step() bool {
	delta := p.varint()
	if p.err != nil || delta == 0 && !p.first {
		return false
	}
	distance := uint64(p.varint()) * uint64(p.quantum)
	if p.err != nil {
		return false
	}
	p.first = false
	p.val += unzigzag(delta)
	if distance == 0 || distance > uint64(p.limit-p.pc) {
		if p.pc < p.limit {
			p.err = &objfile.FormatError{Off: uint64(p.off), What: "Go pc table leaves its function"}
		}
		return false
	}
	p.pc += stack.LinkAddr(distance)
	return true
}

func unzigzag(v uint32) int32 { return int32(-(v & 1) ^ v>>1) }

// skip takes as many steps that do not reach pc as it can in the bytes at hand; it
// returns how many. It does what step does and is what lookups spend their time on.
func (p *pcTable) skip(pc stack.LinkAddr) (steps int) {
	if p.first {
		return 0
	}
	b, at, val := p.cur, p.pc, p.val
	for len(b) >= 10 { // two numbers of at most 5 bytes
		delta, n := uint32(b[0]), 1
		if delta >= 0x80 {
			delta, n = varint(b)
		}
		quanta, m := uint32(b[n]), 1
		if quanta >= 0x80 {
			quanta, m = varint(b[n:])
		}
		next := at + stack.LinkAddr(uint64(quanta)*uint64(p.quantum))
		if delta == 0 || n == 0 || m == 0 || next <= at || next > pc || next > p.limit {
			break // all else is left to step
		}
		at = next
		val += unzigzag(delta)
		b = b[n+m:]
		steps++
	}
	p.off += int64(len(p.cur) - len(b))
	p.cur, p.pc, p.val = b, at, val
	return steps
}

// varint decodes a number at the start of b, which has 5 bytes; n is 0 if it is
// longer.
func varint(b []byte) (v uint32, n int) {
	for n, c := range b[:5] {
		v |= uint32(c&0x7f) << (7 * n)
		if c < 0x80 {
			return v, n + 1
		}
	}
	return 0, 0
}

func (p *pcTable) varint() (v uint32) {
	for shift := 0; shift < 35; shift += 7 {
		if len(p.cur) == 0 && !p.fill() {
			return 0
		}
		b := p.cur[0]
		p.cur = p.cur[1:]
		p.off++
		v |= uint32(b&0x7f) << shift
		if b < 0x80 {
			return v
		}
	}
	p.err = &objfile.FormatError{Off: uint64(p.off), What: "Go pc table has a number of over 32 bits"}
	return 0
}

func (p *pcTable) fill() bool {
	if p.err != nil {
		return false
	}
	if p.off >= p.end {
		p.err = &objfile.FormatError{Off: uint64(p.off), What: "Go pc table has no end"}
		return false
	}
	if p.cur, p.err = p.blocks.At(p.off); p.err != nil {
		p.err = fmt.Errorf("read Go pc table: %w", p.err)
		return false
	}
	p.cur = p.cur[:min(int64(len(p.cur)), p.end-p.off)]
	return true
}

// errSteps is what a lookup ends with when its budget is spent.
var errSteps = fmt.Errorf("pc tables of a Go function: %w", objfile.ErrTooLarge)

// pcValue returns the value of a pc table at pc, -1 if it says nothing about it
// (runtime.pcvalue). steps is what is left of the budget.
func (t *Table) pcValue(f Func, off uint32, pc stack.LinkAddr, steps *int) (int32, error) {
	p, ok, err := t.pcTable(f, off)
	if !ok || err != nil {
		return -1, err
	}
	for p.step() {
		if pc < p.pc {
			return p.val, nil
		}
		if *steps -= 1 + p.skip(pc); *steps < 0 {
			return -1, errSteps
		}
	}
	return -1, p.err
}

// SPDeltas calls yield for each stack-pointer delta of f in order of address, until
// it returns false: delta is in force up to end, beginning where the one before
// ended, the first one at f.Entry. It is how many bytes the stack pointer lies below
// where it was at the entry of the function, where on x86-64 it points at the return
// address. Functions without a table yield nothing.
//
// Nothing of the table is locked while yield runs.
func (t *Table) SPDeltas(f Func, yield func(end stack.LinkAddr, delta int32) bool) error {
	type row struct {
		end   stack.LinkAddr
		delta int32
	}
	var rows [64]row
	p, ok, err := t.pcTable(f, f.rec.pcsp)
	for ok && err == nil {
		n := 0
		t.mu.Lock()
		p.cur = nil // the cache may have changed
		for n < len(rows) && p.step() {
			rows[n] = row{p.pc, p.val}
			n++
		}
		t.mu.Unlock()
		for _, r := range rows[:n] {
			if !yield(r.end, r.delta) {
				return nil
			}
		}
		if n < len(rows) {
			return p.err
		}
	}
	return err
}
