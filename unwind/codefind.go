// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"debug/elf"
	"sort"
	"strings"

	"github.com/lowflame/lowflame/objfile"
)

// Functions that no symbol tells of: stripped programs that bring their C library
// along, and C libraries that export but a part of theirs. What is called is a
// function; what has its address taken may be one.

const (
	// maxScanGrowth bounds how often functions found in others are added: how far
	// calls lead away from what is known.
	maxScanGrowth = 24
	// maxFound bounds the functions found.
	maxFound = 1 << 16
	// minSweepGap is how much code without rules makes it worth looking for
	// functions of which no symbol tells. Less is what compilers and linkers add.
	minSweepGap = 1024
	// minSweepShare is the same as a share of all code, one in so many bytes.
	minSweepShare = 256
	// maxSweep bounds the code with rules that is looked at for calls, bytes.
	maxSweep = 2 << 20
	// minAbsolute is the lowest address that a constant is taken for. Position
	// dependent programs lie above, smaller constants are anything.
	minAbsolute = 1 << 20
)

// takes returns the address that an instruction takes, 0 if it takes none. target
// is its immediate relative to the next instruction.
func (in *x86Inst) takes(target uint64) uint64 {
	switch {
	case in.op == x86Lea && in.rm == regRIP:
		return target
	case in.op == x86MovImm && in.imm >= minAbsolute:
		return uint64(in.imm)
	}
	return 0
}

// worthSweep reports whether gaps hold enough code for functions that matter, and
// little enough to look at. Linkers may put what is no code in executable segments.
func worthSweep(o *objfile.Object, gaps []gap) bool {
	size := uint64(0)
	for _, g := range gaps {
		size += g.end - g.begin
	}
	if size < minSweepGap || len(o.Sections) == 0 {
		return size >= minSweepGap && size <= maxScanText
	}
	size = 0
	text := uint64(0)
	for _, s := range o.Sections {
		if s.Flags&elf.SHF_EXECINSTR == 0 || strings.HasPrefix(s.Name, ".plt") {
			continue
		}
		begin, end := uint64(s.Addr), uint64(s.Addr)+s.Size
		text += s.Size / minSweepShare
		for i := sort.Search(len(gaps), func(i int) bool { return gaps[i].end > begin }); i < len(gaps) && gaps[i].begin < end && size <= maxScanText; i++ {
			size += min(gaps[i].end, end) - max(gaps[i].begin, begin)
		}
	}
	return size >= max(minSweepGap, text) && size <= maxScanText
}

// foundBy is how a function is known. Less is surer.
type foundBy uint8

const (
	byCall foundBy = iota // calls, or a symbol
	// byAddress: its address is taken somewhere. It may be data, or a place within
	// a function.
	byAddress
	// byJump: code with the stack as at a function's beginning jumps there. That
	// code may be a guess itself.
	byJump
)

// borneOut reports whether what was followed looks like a function followed from
// its beginning. From anywhere else a return would find another depth of the
// stack; jumps to pointers and returns at unknown depth say nothing.
func (f *codeFlow) borneOut(by foundBy) bool {
	switch by {
	case byAddress:
		return !f.blindRet && (f.cleanRet || len(f.switches) == 0)
	case byJump:
		return !f.blindRet && f.cleanRet
	}
	return true
}

// note remembers the functions that fn, just followed, leads to.
func (c *codeScan) note(fn *codeFunc) {
	if c.gap == nil {
		return
	}
	for _, pc := range c.flow.calls {
		c.add(pc, byCall)
	}
	for _, pc := range fn.leaves {
		c.add(pc, byJump)
	}
	for _, pc := range c.flow.refs {
		c.add(pc, byAddress)
	}
}

// isFunction reports whether a function is known to begin at pc; code with rules
// is left to those.
func (c *codeScan) isFunction(pc uint64) bool {
	return c.gap == nil || c.gap(pc) == 0 || c.find(pc) >= 0
}

// add remembers that a function begins at pc, or may do.
func (c *codeScan) add(pc uint64, by foundBy) {
	if c.gap(pc) == 0 {
		return
	}
	if i := c.find(pc); i >= 0 && (c.funcs[i].sized || c.funcs[i].begin == pc) {
		return
	}
	if was, ok := c.found[pc]; ok {
		c.found[pc] = min(was, by)
		return
	}
	if c.found == nil {
		c.found = map[uint64]foundBy{}
	}
	if len(c.found) < maxFound {
		c.found[pc] = by
	}
}

// grow adds the functions found. It returns whether there were any.
func (c *codeScan) grow() bool {
	if len(c.found) == 0 || len(c.funcs) >= maxFound {
		return false
	}
	old := len(c.funcs)
	for pc, by := range c.found {
		c.funcs = append(c.funcs, codeFunc{begin: pc, end: min(c.gap(pc), pc+maxUnsized), by: by, pending: true})
	}
	clear(c.found)
	order := make([]int32, len(c.funcs)) // numbers before, in the new order
	for i := range order {
		order[i] = int32(i)
	}
	sort.Slice(order, func(i, j int) bool { return c.funcs[order[i]].begin < c.funcs[order[j]].begin })
	funcs, number := make([]codeFunc, 0, len(order)), make([]int32, old)
	for i, was := range order {
		f := c.funcs[was]
		if i+1 < len(order) {
			if next := c.funcs[order[i+1]].begin; next < f.end {
				f.end, f.pending = next, true
			}
		}
		if int(was) < old {
			number[was] = int32(i)
		}
		if f.pending {
			f.endless, f.mayLeave = false, false
			c.steps += maxScanSteps * int(f.end-f.begin)
		}
		funcs = append(funcs, f)
	}
	c.funcs = funcs
	for i, call := range c.callers {
		c.callers[i] = codeCall{number[call.callee], number[call.caller]}
	}
	return true
}

// callSweep looks for functions in gaps that code with rules leads to. Rows begin at
// instructions, so that decoding one after another never gets out of step.
type callSweep struct {
	read func(p []byte, pc uint64) int
	add  func(pc uint64, by foundBy)
	left int // bytes that may still be looked at
	pc   uint64
	rule Rule // in force from pc on
	buf  []byte
	at   uint64 // of buf
}

// row takes the next row.
func (s *callSweep) row(pc uint64, r Rule) {
	if s.rule.Kind() != KindNone && pc > s.pc && s.left > 0 {
		s.left -= int(min(pc-s.pc, 1<<30))
		s.decode(s.pc, pc)
	}
	s.pc, s.rule = pc, r
}

// decode looks at the instructions from pc to end.
func (s *callSweep) decode(pc, end uint64) {
	for pc < end {
		code := s.code(pc)
		in, ok := decodeX86(code)
		if !ok {
			return
		}
		pc += uint64(in.size)
		target := pc + uint64(int64(in.imm))
		switch {
		case in.op == x86Call:
			// call 1f; 1: pop reads the program counter.
			if in.imm == 0 {
				next, ok := decodeX86(s.code(target))
				if !ok || next.op == x86Pop {
					break
				}
			}
			s.add(target, byCall)
		case in.op == x86Jmp:
			s.add(target, byJump)
		case in.takes(target) != 0:
			s.add(in.takes(target), byAddress)
		}
	}
}

// code returns code at pc, 15 bytes if the file has them.
func (s *callSweep) code(pc uint64) []byte {
	if pc < s.at || pc+15 > s.at+uint64(len(s.buf)) {
		if s.buf == nil {
			s.buf = make([]byte, textAhead)
		}
		s.buf = s.buf[:textAhead]
		s.buf, s.at = s.buf[:s.read(s.buf, pc)], pc
	}
	return s.buf[pc-s.at:]
}
