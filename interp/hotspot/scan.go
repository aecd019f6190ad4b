// SPDX-License-Identifier: Apache-2.0

package hotspot

import (
	"encoding/binary"
	"hash/maphash"
	"strings"

	"github.com/lowflame/lowflame/unwind"
)

// known is a blob whose code has been looked at.
type known struct {
	blob
	rows []unwind.RuntimeRow
	hash uint64 // of the code as it was looked at
	// fresh: it may have been looked at before the code was all there. static: it is
	// not a compiled method, and filled in while the virtual machine starts.
	fresh, static bool
}

// DWARF numbers of registers, x86-64 psABI fig. 3.36.
const (
	dwarfRBP = 6
	dwarfR13 = 13 // callers of interpreted methods leave their stack pointer there
)

// Where a frame of the interpreter has what its caller needs, in bytes from RBP
// (hotspot/cpu/x86/frame_x86.hpp): the caller's stack pointer is not simply above the
// return address, since compiled callers have their arguments copied in between.
const (
	senderSP  = -8
	senderFP  = 0
	returnsTo = 8
)

// scan looks at the code of a blob.
func (v *VM) scan(b *blob) (known, error) {
	k := known{blob: *b}
	name, ok := v.blobNames[b.name]
	if !ok {
		var err error
		if name, err = v.mem.name(b.name); err != nil {
			return k, err
		}
		if len(v.blobNames) < 1<<12 {
			v.blobNames[b.name] = name
		}
	}
	code := v.buffer(int(min(b.end-b.begin, maxBlobCode)))
	if err := v.mem.read(code, b.begin); err != nil {
		return k, err
	}
	k.hash = maphash.Bytes(v.seed, code)
	block := unwind.CodeBlock{Begin: b.begin, Code: code, Words: b.words, Complete: b.complete}
	k.static = true
	switch {
	case name == "nmethod" || name == "native nmethod":
		k.static = false
		k.rows = v.method(&block, b)
	case name == "Interpreter":
		k.rows = v.interpreter(&block)
	case strings.HasPrefix(name, "native signature handlers"), strings.HasPrefix(name, "vtable chunks"), name == "InlineCacheBuffer":
		// Filled as need arises, with code that leaves the stack alone.
		k.static = false
		k.rows = v.whole(&block, unwind.MakeRule(unwind.KindSP, unwind.FPSame, 1))
	case strings.HasSuffix(name, "adapters"):
		block.Words = 0
		k.rows = v.code.Compiled(&block)
	case strings.Contains(name, "Buffer"):
		// Where compilers write code before it is copied to its place.
		k.static = false
		k.rows = v.whole(&block, v.code.Lost())
	case b.words < 2:
		k.rows = v.code.Stubs(&block)
	default:
		block.Opaque = true
		k.rows = v.code.Compiled(&block)
	}
	return k, nil
}

// method looks at a compiled method.
func (v *VM) method(block *unwind.CodeBlock, b *blob) []unwind.RuntimeRow {
	complete := uint64(block.Complete)
	size := uint64(len(block.Code))
	at := b.verified - b.begin
	if at < size && block.Code[at] == jumpOpcode && block.Words > 0 && complete > at && complete < size {
		// The method is not to be entered again: a jump has been written over the
		// first instruction of its prologue, but there may be calls of it under way.
		rest := unwind.CodeBlock{Begin: b.begin + complete, Code: block.Code[complete:], Words: block.Words, Complete: -1, Framed: true}
		if b.osr > rest.Begin && b.osr < b.end {
			rest.Entries = []int{int(b.osr - rest.Begin)}
		}
		return append([]unwind.RuntimeRow{{PC: b.begin, Rule: v.code.Lost()}}, v.code.Compiled(&rest)...)
	}
	for _, e := range []uint64{b.verified, b.osr} {
		if e > b.begin && e < b.end {
			block.Entries = append(block.Entries, int(e-b.begin))
		}
	}
	return v.code.Compiled(block)
}

const jumpOpcode = 0xe9

// maxBlobCode bounds what is read of one blob; the rest has no rules. Compilers'
// buffers have some MiB.
const maxBlobCode = 1 << 20

// buffer returns n bytes, valid until the next call.
func (v *VM) buffer(n int) []byte {
	if cap(v.buf) < n {
		v.buf = make([]byte, n)
	}
	return v.buf[:n]
}

// whole returns rows of one rule.
func (v *VM) whole(b *unwind.CodeBlock, rule unwind.Rule) []unwind.RuntimeRow {
	return []unwind.RuntimeRow{{PC: b.Begin, Rule: rule}, {PC: b.Begin + uint64(len(b.Code)), Rule: 0}}
}

// interpreter looks at the interpreter, codelet by codelet.
func (v *VM) interpreter(b *unwind.CodeBlock) []unwind.RuntimeRow {
	frame := v.code.Wide(unwind.Wide{
		Reg: dwarfRBP, CFAOff: senderSP, Deref: true,
		RA: unwind.WhereFP, RAArg: returnsTo, FP: unwind.WhereFP, FPArg: senderFP,
	})
	end := b.Begin + uint64(len(b.Code))
	rows := []unwind.RuntimeRow{}
	at := b.Begin
	for _, c := range v.codelets(b) {
		if c.begin < at || c.end > end || c.begin >= c.end {
			continue
		}
		part := unwind.CodeBlock{Begin: c.begin, Code: b.Code[c.begin-b.Begin : c.end-b.Begin]}
		if at < c.begin {
			rows = append(rows, unwind.RuntimeRow{PC: at, Rule: v.code.Lost()})
		}
		var found []unwind.RuntimeRow
		switch {
		case strings.HasPrefix(c.name, "result handlers"), strings.HasPrefix(c.name, "slow signature handler"):
			found = v.code.Compiled(&part)
		default:
			found = v.code.Template(&part, frame, dwarfR13, strings.Contains(c.name, "method entry point"))
		}
		rows = append(rows, found[:len(found)-1]...)
		at = c.end
	}
	if at < end {
		rows = append(rows, unwind.RuntimeRow{PC: at, Rule: v.code.Lost()})
	}
	return append(rows, unwind.RuntimeRow{PC: end, Rule: 0})
}

// codelet is a piece of the interpreter.
type codelet struct {
	begin, end uint64
	name       string
}

// maxCodelets bounds the pieces of the interpreter; there are 300.
const maxCodelets = 1 << 12

// codelets lists the pieces of the interpreter in the order they are in, as far as
// they can be read.
func (v *VM) codelets(b *unwind.CodeBlock) []codelet {
	l, m := v.layout, &v.mem
	if !l.interpreter.static || l.stubs.size == 0 || l.queueEnd.size == 0 || l.codeletSize.size == 0 || l.description.size == 0 || l.codeletHeader > 256 {
		return nil
	}
	queue, err := m.word(l.interpreter.at)
	if err != nil || queue == 0 {
		return nil
	}
	head, err := m.near(queue, int(min(max(l.stubs.at, l.queueEnd.at)+8, maxBlobHeader)))
	if err != nil {
		return nil
	}
	at, n := uint64(l.stubs.get(head)), l.queueEnd.get(head)
	if at < b.Begin || at > b.Begin+uint64(len(b.Code)) || n < 0 {
		return nil
	}
	code := b.Code[at-b.Begin:]
	code = code[:min(uint64(n), uint64(len(code)))]
	var out []codelet
	for off := uint64(0); off+l.codeletHeader < uint64(len(code)) && len(out) < maxCodelets; {
		size := uint64(l.codeletSize.get(code[off:]))
		if size <= l.codeletHeader || size > uint64(len(code))-off || size < 8 || l.description.at > size-8 {
			break
		}
		c := codelet{begin: at + off + l.codeletHeader, end: at + off + size}
		if p := binary.LittleEndian.Uint64(code[off+l.description.at:]); p != 0 {
			c.name, _ = m.name(p)
		}
		out = append(out, c)
		off += size
	}
	return out
}
