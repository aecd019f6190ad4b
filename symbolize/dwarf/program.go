// SPDX-License-Identifier: Apache-2.0

package dwarf

import (
	"encoding/binary"
	"slices"

	"github.com/lowflame/lowflame/internal/hostile"
	"github.com/lowflame/lowflame/stack"
)

// maxRows is how many rows of lines a unit may have, those that say nothing new not
// counted: some 10 MB of code.
const maxRows = 1 << 20

// Opcodes of line programs, DWARF 5 §7.22.
const (
	lnsCopy = 1 + iota
	lnsAdvancePC
	lnsAdvanceLine
	lnsSetFile
	lnsSetColumn
	lnsNegateStmt
	lnsSetBasicBlock
	lnsConstAddPC
	lnsFixedAdvancePC
	lnsSetPrologueEnd
	lnsSetEpilogueBegin
	lnsSetISA

	lneEndSequence = 1
	lneSetAddress  = 2
	lneDefineFile  = 3
)

// sequence is rows[first:last] of a line table, with code from begin up to end.
type sequence struct {
	first, last int
	begin, end  stack.LinkAddr
}

// machine is the state of a line program, DWARF 5 §6.2.2.
type machine struct {
	l       *lineTable
	addr    uint64
	opIndex uint64
	file    uint64
	line    uint64
	first   int    // row of the sequence's first
	mapped  uint32 // the index of file; valid if known
	known   bool
	bad     bool // addresses of the sequence go back
	// What special opcodes add, by opcode.
	advance [256]uint8
	lines   [256]int16
}

func (m *machine) reset() {
	m.addr, m.opIndex, m.file, m.line = 0, 0, 1, 1
	m.first = len(m.l.rows)
	m.known, m.bad = false, false
}

// run runs the program.
func (l *lineTable) run(code *code) error {
	m := machine{l: l}
	h := &l.header
	for op := int(h.opcodeBase); op < 256; op++ {
		adj := uint64(op) - uint64(h.opcodeBase)
		m.advance[op] = uint8(adj / h.lineRange)
		m.lines[op] = int16(h.lineBase + int64(adj%h.lineRange))
	}
	m.reset()
	err := m.operations(code)
	l.rows = l.rows[:m.first] // a sequence without an end
	l.sort()
	return err
}

func (m *machine) operations(code *code) error {
	h := &m.l.header
	b := h.program
	for at := 0; at < len(b); {
		op := b[at]
		at++
		if op >= h.opcodeBase {
			m.line += uint64(m.lines[op])
			m.step(uint64(m.advance[op]))
			m.push()
			continue
		}
		if op == 0 {
			if at = m.extended(b, at, code); at < 0 {
				return errMalformed
			}
			if len(m.l.rows) > maxRows {
				return errTooMuch
			}
			continue
		}
		if at = m.standard(op, b, at); at < 0 {
			return errMalformed
		}
		if len(m.l.rows) > maxRows {
			return errTooMuch
		}
	}
	return nil
}

// step advances the address by operations.
func (m *machine) step(ops uint64) {
	h := &m.l.header
	if h.maxOps == 1 {
		m.addr += h.minLength * ops
		return
	}
	n := m.opIndex + ops
	m.addr += h.minLength * (n / h.maxOps)
	m.opIndex = n % h.maxOps
}

// push appends a row, unless it says nothing new.
func (m *machine) push() {
	l := m.l
	if !m.known {
		m.mapped, m.known = l.file(m.file), true
	}
	row := Line{Addr: stack.LinkAddr(m.addr), File: m.mapped, Line: uint32(m.line)}
	if n := len(l.rows); n > m.first {
		last := &l.rows[n-1]
		switch {
		case last.Addr == row.Addr:
			// The last of several at an address holds.
			last.File, last.Line = row.File, row.Line
			return
		case last.Addr > row.Addr:
			m.bad = true
		case last.File == row.File && last.Line == row.Line:
			return
		}
	}
	l.rows = append(l.rows, row)
}

// end ends the sequence, whose code is kept if the linker kept it.
func (m *machine) end(code *code) {
	l := m.l
	rows := l.rows[m.first:]
	if m.bad || len(rows) == 0 || !code.has(rows[0].Addr) || rows[len(rows)-1].Addr >= stack.LinkAddr(m.addr) {
		// A row at the end of the sequence has no code.
		if m.bad || len(rows) < 2 || !code.has(rows[0].Addr) || rows[len(rows)-1].Addr > stack.LinkAddr(m.addr) {
			l.rows = l.rows[:m.first]
			return
		}
		l.rows = l.rows[:len(l.rows)-1]
	}
	l.rows = append(l.rows, Line{Addr: stack.LinkAddr(m.addr), End: true})
	l.sequences = append(l.sequences, sequence{m.first, len(l.rows), l.rows[m.first].Addr, stack.LinkAddr(m.addr)})
}

func (m *machine) standard(op uint8, b []byte, at int) int {
	switch op {
	case lnsCopy:
		m.push()
	case lnsAdvancePC:
		var v uint64
		if v, at = uleb(b, at); at >= 0 {
			m.step(v)
		}
	case lnsAdvanceLine:
		var v int64
		if v, at = sleb(b, at); at >= 0 {
			m.line += uint64(v)
		}
	case lnsSetFile:
		m.file, at = uleb(b, at)
		m.known = false
	case lnsConstAddPC:
		m.step(uint64(m.advance[255]))
	case lnsFixedAdvancePC:
		if len(b)-at < 2 {
			return -1
		}
		m.addr += uint64(binary.LittleEndian.Uint16(b[at:]))
		m.opIndex = 0
		at += 2
	case lnsNegateStmt, lnsSetBasicBlock, lnsSetPrologueEnd, lnsSetEpilogueBegin:
	case lnsSetColumn, lnsSetISA:
		_, at = uleb(b, at)
	default:
		for range m.l.header.lengths[op-1] {
			if _, at = uleb(b, at); at < 0 {
				return -1
			}
		}
	}
	return at
}

func (m *machine) extended(b []byte, at int, code *code) int {
	n, at := uleb(b, at)
	if at < 0 || n == 0 || n > uint64(len(b)-at) {
		return -1
	}
	end := at + int(n)
	arg := b[at+1 : end]
	switch b[at] {
	case lneEndSequence:
		m.end(code)
		m.reset()
	case lneSetAddress:
		switch len(arg) {
		case 8:
			m.addr = binary.LittleEndian.Uint64(arg)
		case 4:
			m.addr = uint64(binary.LittleEndian.Uint32(arg))
		default:
			return -1
		}
		m.opIndex = 0
	case lneDefineFile:
		l := m.l
		c := hostile.NewCursor(arg)
		if e, ok := readOldFile(&c); ok && len(l.files) < maxFiles {
			// Strings of the table are found from its start.
			e.path.v += uint64(len(l.buf) - len(b) + at + 1)
			l.files = append(l.files, e)
		}
	}
	return end
}

// sort brings the sequences in the order of their addresses. Of two that overlap the
// first is kept: their code is the same, folded by the linker, or one is not true.
func (l *lineTable) sort() {
	inOrder := true
	for i := 1; i < len(l.sequences); i++ {
		if l.sequences[i].begin < l.sequences[i-1].end {
			inOrder = false
			break
		}
	}
	if inOrder {
		return
	}
	slices.SortStableFunc(l.sequences, func(a, b sequence) int {
		switch {
		case a.begin < b.begin:
			return -1
		case a.begin > b.begin:
			return 1
		}
		return 0
	})
	l.sorted = l.sorted[:0]
	var end stack.LinkAddr
	for _, s := range l.sequences {
		if s.begin < end {
			continue
		}
		l.sorted = append(l.sorted, l.rows[s.first:s.last]...)
		end = s.end
	}
	l.rows, l.sorted = l.sorted, l.rows
}
