// SPDX-License-Identifier: Apache-2.0

package unwind

// RuntimeRow is a rule and the process address from which on it holds, up to the next
// row's.
type RuntimeRow struct {
	PC   uint64
	Rule Rule
}

// RuntimeCode makes tables of machine code that a language runtime wrote into
// memory, for which there is no call frame information: the runtime tells the size
// of frames, and the rest is read off the instructions. x86-64 only. The zero
// value is ready to use; its tables share the numbers of their wide rules. Not
// safe for concurrent use.
type RuntimeCode struct {
	wide  wideSet
	sweep sweep
	flow  codeFlow
}

// CodeBlock is one piece of a runtime's code, as a whole or in part a function.
type CodeBlock struct {
	Begin uint64 // process address of Code[0]
	Code  []byte
	// Words is the size of the frame of code that calls, in words of 8 bytes with
	// the return address; RBP is saved below that. 0: no frame, or not known.
	Words int
	// Complete is the offset from which on the frame is there; negative: not known.
	Complete int
	// Entries are the offsets at which callers arrive, besides 0.
	Entries []int
	// Framed: the frame is complete where the code begins.
	Framed bool
	// Opaque: nothing is known of code that no jump leads to. Otherwise it has the
	// complete frame, or without one is as an entry.
	Opaque bool
}

// maxBlock bounds a block that is looked at, bytes; the largest of a HotSpot
// virtual machine are 100 KiB, and methods of more than 1 MiB are not compiled.
const maxBlock = 4 << 20

// Wide returns a rule for w.
func (r *RuntimeCode) Wide(w Wide) Rule { return r.wide.rule(MakeRule(KindWide, 0, 0), w) }

// Lost returns the rule of code of which it is known that it cannot be unwound:
// UNSUPPORTED_RULE, where KindNone means that the code is not known.
func (r *RuntimeCode) Lost() Rule { return r.wide.rule(lost()) }

// Table packs rows, sorted by address, that end at end, into a table whose
// addresses are process addresses. The error is ErrTooBig.
func (r *RuntimeCode) Table(rows []RuntimeRow, end uint64) (*Table, error) {
	e := encoder{table: Table{Arch: AMD64}, wide: &r.wide}
	for _, row := range rows {
		e.add(row.PC, row.Rule)
	}
	e.add(end, 0)
	return e.finish()
}

// Compiled returns the rows of one function, of code that a compiler has laid out:
// but for loops, in the order in which jumps lead to it.
//
// Where the code contradicts what is told of its frame, only calls have rules.
func (r *RuntimeCode) Compiled(b *CodeBlock) []RuntimeRow {
	if len(b.Code) > maxBlock || !r.sweep.run(b) {
		return r.Calls(b)
	}
	return r.sweep.rows(&r.wide)
}

// Calls returns the rows of code of which nothing is sure but what its frame is
// where it calls others: that is what the runtime itself walks by.
func (r *RuntimeCode) Calls(b *CodeBlock) []RuntimeRow {
	rows := []RuntimeRow{{b.Begin, r.Lost()}}
	end := b.Begin + uint64(len(b.Code))
	if b.Words >= 2 && b.Words <= 0xffff && len(b.Code) <= maxBlock {
		body := MakeRule(KindSP, 1, uint16(b.Words))
		for off := 0; off < len(b.Code); {
			in, ok := decodeX86(b.Code[off:])
			if !ok {
				break
			}
			next := off + int(in.size)
			if in.op == x86CallTo || in.op == x86Call && in.imm != 0 {
				// A return address is looked up by the byte before it; at the call
				// itself the frame is the same.
				rows = append(rows, RuntimeRow{b.Begin + uint64(off), body}, RuntimeRow{b.Begin + uint64(next), r.Lost()})
			}
			off = next
		}
	}
	return append(tidy(rows), RuntimeRow{end, 0})
}

// Stubs returns the rows of a block with any number of small functions written by
// hand, one after the other: those that return with the stack as they found it, on
// every path. The others have no rules that lead anywhere.
func (r *RuntimeCode) Stubs(b *CodeBlock) []RuntimeRow {
	f := &r.flow
	f.code, f.begin = b.Code, b.Begin
	f.noReturn = func(uint64, *x86Inst) bool { return false }
	f.entry = func(uint64) bool { return true }
	f.function = f.entry
	f.budget, f.stubs = 16*len(b.Code), true
	f.dead = nil
	f.reset()
	if len(b.Code) > maxBlock {
		return []RuntimeRow{{b.Begin, r.Lost()}, {b.Begin + uint64(len(b.Code)), 0}}
	}
	entry := f.intern(codeEntry())
	for off := f.unreached(0); off < uint32(len(f.code)) && f.budget > 0; off = f.unreached(off) {
		if f.trialAt(off, entry) {
			for _, at := range f.trial.set {
				f.at[at].guess = false
			}
			f.trial = nil
			continue
		}
		f.undo()
		off = f.nextStub(off)
	}
	return r.flowRows()
}

// nextStub returns where after off, where none does, a function may begin: after an
// instruction that does not go on to the next, or, since there may be data in
// between, where functions are aligned.
func (f *codeFlow) nextStub(off uint32) uint32 {
	aligned := off + 16 - uint32(f.begin+uint64(off))&15
	for at := off; at < aligned && at < uint32(len(f.code)); {
		in, ok := decodeX86(f.code[at:])
		if !ok {
			break
		}
		at += uint32(in.size)
		switch in.op {
		case x86Ret, x86Jmp, x86JmpTo, x86Trap:
			return min(at, aligned)
		}
	}
	return aligned
}

// flowRows makes rows of the states the flow was followed with.
func (r *RuntimeCode) flowRows() []RuntimeRow {
	f := &r.flow
	rules := make([]Rule, len(f.states))
	for i := range f.states {
		rules[i] = f.states[i].rule(&r.wide)
	}
	var rows []RuntimeRow
	for off := 0; off < len(f.at); {
		rule, size := r.Lost(), 1
		if c := f.at[off]; c.state != 0 {
			rule, size = rules[c.state-1], max(int(c.size), 1)
		}
		rows = appendRow(rows, f.begin+uint64(off), rule)
		off += size
	}
	return append(rows, RuntimeRow{f.begin + uint64(len(f.at)), 0})
}

// appendRow appends a row unless the last one says the same.
func appendRow(rows []RuntimeRow, pc uint64, rule Rule) []RuntimeRow {
	if n := len(rows); n > 0 && rows[n-1].Rule == rule {
		return rows
	}
	return append(rows, RuntimeRow{pc, rule})
}

// tidy leaves out rows that repeat the one before, and of those with one address
// all but the last.
func tidy(rows []RuntimeRow) []RuntimeRow {
	out := rows[:0]
	for _, row := range rows {
		if n := len(out); n > 0 && out[n-1].PC == row.PC {
			out = out[:n-1]
		}
		out = appendRow(out, row.PC, row.Rule)
	}
	return out
}
