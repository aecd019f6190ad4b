// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/binary"
	"io"
	"slices"
	"sort"

	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/stack"
)

const (
	// maxScanSyms bounds the symbols whose names are read.
	maxScanSyms = 1 << 21
	// maxRelocs bounds the relocations read, bytes.
	maxRelocs = 64 << 20
	relaSize  = 24 // Elf64_Rela
	// maxUnsized bounds hand-written functions whose symbol has no size. They
	// end before the next one.
	maxUnsized = 1 << 14
)

// findCode returns the rows of functions that known leaves without, as
// codeScan.run does. gaps is where that may be.
func findCode(o *objfile.Object, src *sources, known *first, gaps []gap) (rows, small []span) {
	if len(gaps) == 0 {
		return nil, nil
	}
	syms := codeSyms{o: o, segEnd: src.code}
	find := o.Machine == elf.EM_X86_64 && len(src.goRows) == 0 && worthSweep(o, gaps)
	if !syms.read(gaps) && !find {
		return nil, nil
	}
	cover := coverage{funcs: sortFuncs(syms.funcs), entry: uint64(o.Entry)}
	known.rows(src, cover.row)
	cover.row(1<<64-1, 0)
	if len(cover.bare) == 0 && !find || cover.size > maxScanText {
		return nil, nil
	}
	syms.readNames(cover.bare, find)
	if o.Machine == elf.EM_AARCH64 {
		return scanARM64(syms.code, cover.bare), nil
	}
	syms.readImports()
	c := codeScan{read: syms.code, endless: syms.neverReturns, funcs: cover.bare, wide: &src.wide}
	if find {
		c.gap = func(pc uint64) uint64 { return gapEnd(gaps, pc) }
		s := callSweep{read: syms.code, add: c.add, left: maxSweep}
		known.rows(src, s.row)
		s.row(1<<64-1, 0)
		for _, r := range entryRows(known.entry) {
			s.row(r.pc, r.rule)
		}
	}
	return c.run()
}

// funcSym is a symbol of a function.
type funcSym struct {
	begin, end uint64
	sized      bool
}

// coverage finds the functions that have no rule where they begin.
type coverage struct {
	funcs []funcSym // sorted, not yet reached
	bare  []codeFunc
	size  uint64 // of those, bytes
	entry uint64 // of the program, which nobody called
	rule  Rule   // in force
}

// row takes the next row.
func (c *coverage) row(pc uint64, r Rule) {
	for len(c.funcs) > 0 && c.funcs[0].begin < pc {
		f := c.funcs[0]
		c.funcs = c.funcs[1:]
		f.end = min(f.end, pc)
		if c.rule.Kind() != KindNone || c.entry >= f.begin && c.entry < f.end {
			continue
		}
		if f.end-f.begin > maxScanFunc {
			continue
		}
		c.bare = append(c.bare, codeFunc{begin: f.begin, end: f.end, sized: f.sized})
		c.size += f.end - f.begin
	}
	c.rule = r
}

// codeSyms is what symbols say of code.
type codeSyms struct {
	o *objfile.Object
	// segEnd returns where the executable segment that holds an address ends, 0
	// if none does.
	segEnd func(pc uint64) uint64
	funcs  []funcSym // those that may be without rules
	syms   *objfile.Symbols
	table  objfile.SymTable // that is
	// endless are functions known by name never to return, slots the words
	// that the dynamic linker writes the addresses of such functions to.
	endless map[uint64]bool
	slots   map[uint64]bool
	stubs   map[uint64]bool // PLT entries looked at: whether they jump through slots
	text    []byte          // the function being looked at
}

// read reads the symbols of functions. It returns false if none begins in gaps.
func (c *codeSyms) read(gaps []gap) bool {
	for _, c.table = range []objfile.SymTable{objfile.SymTab, objfile.DynSym} {
		var err error
		if c.syms, err = c.o.Symbols(c.table); err == nil {
			break
		}
	}
	if c.syms == nil {
		return false
	}
	any := false
	c.eachFunc(func(s objfile.Symbol) {
		in := gapEnd(gaps, uint64(s.Value)) != 0
		any = any || in
		// Gaps smaller than that are not among gaps.
		if s.Size >= padding && !in {
			return
		}
		f := funcSym{begin: uint64(s.Value), end: uint64(s.Value) + s.Size, sized: s.Size != 0}
		if s.Size == 0 {
			f.end = min(f.begin+maxUnsized, c.segEnd(f.begin))
		}
		c.funcs = append(c.funcs, f)
	})
	return any
}

// gapEnd returns where the gap that holds pc ends, 0 if none does.
func gapEnd(gaps []gap, pc uint64) uint64 {
	i := sort.Search(len(gaps), func(i int) bool { return gaps[i].end > pc })
	if i < len(gaps) && gaps[i].begin <= pc {
		return gaps[i].end
	}
	return 0
}

// readNames finds out which of the functions are parts, and which of those they
// call never return. Names are far apart in the file, so only those are read, or
// all where functions without symbols may call any.
func (c *codeSyms) readNames(bare []codeFunc, all bool) {
	c.endless = map[uint64]bool{}
	if c.syms == nil {
		return
	}
	wanted := newPCSet(len(bare))
	for i := range bare {
		wanted.add(bare[i].begin)
		c.addCalled(&wanted, &bare[i])
	}
	names := c.syms.Names()
	c.eachFunc(func(s objfile.Symbol) {
		pc := uint64(s.Value)
		if !all && !wanted.has(pc) {
			return
		}
		name, err := names.Bytes(s.Name)
		if err != nil {
			return
		}
		i := sort.Search(len(bare), func(i int) bool { return bare[i].begin >= pc })
		if i < len(bare) && bare[i].begin == pc {
			bare[i].part = bare[i].part || isPart(name)
			bare[i].builtin = bare[i].builtin || isBuiltin(name)
		}
		// A program's own err may well return.
		if neverReturnsC(name) && !bytes.Contains(name, []byte("err")) {
			c.endless[pc] = true
		}
	})
}

// addCalled adds what f may call: wherever its bytes, read as a call, lead.
func (c *codeSyms) addCalled(wanted *pcSet, f *codeFunc) {
	const call, size = 0xe8, 5
	if c.o.Machine != elf.EM_X86_64 {
		return
	}
	c.text = slices.Grow(c.text[:0], int(f.end-f.begin))[:f.end-f.begin]
	code := c.text[:c.code(c.text, f.begin)]
	for at := 0; ; at++ {
		i := bytes.IndexByte(code[at:], call)
		if at += i; i < 0 || len(code)-at < size {
			return
		}
		to := f.begin + uint64(at+size) + uint64(int64(int32(binary.LittleEndian.Uint32(code[at+1:]))))
		if c.segEnd(to) != 0 {
			wanted.add(to)
		}
	}
}

// eachFunc calls f for the functions defined in executable segments.
func (c *codeSyms) eachFunc(f func(objfile.Symbol)) {
	// An error ends the list early.
	_ = c.syms.All(func(i int, s objfile.Symbol) bool {
		if s.Section == elf.SHN_UNDEF || s.Section == elf.SHN_ABS {
			return true
		}
		if s.Type != elf.STT_FUNC && s.Type != elf.STT_GNU_IFUNC {
			return true
		}
		if end := c.segEnd(uint64(s.Value)); end != 0 && s.Size <= end-uint64(s.Value) {
			f(s)
		}
		return i < maxScanSyms
	})
}

// sortFuncs sorts functions and lets each end where the next begins.
func sortFuncs(funcs []funcSym) []funcSym {
	slices.SortFunc(funcs, func(a, b funcSym) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(b.end, a.end))
	})
	out := funcs[:0]
	for _, f := range funcs {
		if n := len(out); n > 0 {
			last := &out[n-1]
			if last.begin == f.begin {
				continue
			}
			last.end = min(last.end, f.begin)
		}
		out = append(out, f)
	}
	return out
}

// isPart reports whether a function's name is that of a part of one that was
// moved elsewhere: GCC's and LLVM's hot and cold splitting.
func isPart(name []byte) bool {
	return bytes.Contains(name, []byte(".cold"))
}

// code reads code.
func (c *codeSyms) code(p []byte, pc uint64) int {
	n, _ := c.o.ReadAt(p, stack.LinkAddr(pc))
	return n
}

// readImports finds where the addresses of functions that never return are put.
func (c *codeSyms) readImports() {
	c.slots, c.stubs = map[uint64]bool{}, map[uint64]bool{}
	syms, err := c.o.Symbols(objfile.DynSym)
	if err != nil {
		return
	}
	imports := map[uint32]bool{}
	names := syms.Names()
	_ = syms.All(func(i int, s objfile.Symbol) bool {
		if c.table == objfile.SymTab && s.Section != elf.SHN_UNDEF {
			return i < maxScanSyms // readNames has seen it
		}
		name, err := names.Bytes(s.Name)
		if err == nil && neverReturnsC(name) {
			imports[uint32(i)] = true
			if s.Section != elf.SHN_UNDEF {
				c.endless[uint64(s.Value)] = true
			}
		}
		return i < maxScanSyms
	})
	left := int64(maxRelocs)
	for _, s := range c.o.Sections {
		if s.Type != elf.SHT_RELA || s.Flags&elf.SHF_ALLOC == 0 {
			continue
		}
		r, err := c.o.Raw(s)
		if err != nil || r.Size() > left {
			continue
		}
		left -= r.Size()
		c.readRelocs(r, imports)
	}
}

// readRelocs reads the relocations that are of symbols in imports.
func (c *codeSyms) readRelocs(r io.Reader, imports map[uint32]bool) {
	buf := make([]byte, 2048*relaSize)
	for {
		n, err := io.ReadFull(r, buf)
		for b := buf[:n]; len(b) >= relaSize; b = b[relaSize:] {
			kind, sym := binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])
			if imports[sym] && (kind == uint32(elf.R_X86_64_GLOB_DAT) || kind == uint32(elf.R_X86_64_JMP_SLOT)) {
				c.slots[binary.LittleEndian.Uint64(b)] = true
			}
		}
		if err != nil {
			return
		}
	}
}

// neverReturns reports whether a call never returns, as far as names tell.
func (c *codeSyms) neverReturns(target uint64, inst *x86Inst) bool {
	if inst.op != x86Call {
		return inst.rm == regRIP && c.slots[target]
	}
	if c.endless[target] {
		return true
	}
	if len(c.slots) == 0 {
		return false
	}
	if never, ok := c.stubs[target]; ok {
		return never
	}
	// A PLT entry is a jump through a slot, with or without a landing pad for
	// indirect branches.
	var buf [24]byte
	code := buf[:c.code(buf[:], target)]
	pc := target
	never := false
	for range 2 {
		in, ok := decodeX86(code)
		if !ok {
			break
		}
		pc += uint64(in.size)
		code = code[in.size:]
		if in.op == x86JmpTo && in.rm == regRIP {
			never = c.slots[pc+uint64(int64(in.imm))]
		}
		if in.op != x86Nop {
			break
		}
	}
	c.stubs[target] = never
	return never
}

// neverReturnsC reports whether a function never returns: those of C and C++
// libraries that programs call.
func neverReturnsC(name []byte) bool {
	switch string(name) {
	case "abort", "exit", "_exit", "_Exit", "quick_exit", "pthread_exit", "thrd_exit",
		"longjmp", "_longjmp", "siglongjmp", "__longjmp_chk",
		"__assert_fail", "__assert_perror_fail", "__assert", "__assert_rtn",
		"__stack_chk_fail", "__stack_chk_fail_local", "__fortify_fail", "__chk_fail", "__libc_fatal",
		"err", "errx", "verr", "verrx", "g_assertion_message", "g_assertion_message_expr",
		"__cxa_throw", "__cxa_rethrow", "__cxa_bad_cast", "__cxa_bad_typeid", "__cxa_pure_virtual",
		"__cxa_deleted_virtual", "__cxa_throw_bad_array_length", "__cxa_throw_bad_array_new_length",
		"__cxa_call_unexpected", "__cxa_call_terminate", "__clang_call_terminate", "_Unwind_Resume",
		"_ZSt9terminatev", "_ZSt10unexpectedv":
		return true
	}
	return bytes.HasPrefix(name, []byte("_ZSt")) && bytes.Contains(name, []byte("__throw_"))
}
