// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io"
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

// findCode returns the rows of functions that src leaves without, as
// codeScan.run does. gaps is where that may be.
func findCode(o *objfile.Object, src *sources, gaps []gap) (rows, small []span) {
	if len(gaps) == 0 {
		return nil, nil
	}
	syms := codeSyms{o: o, segEnd: src.code}
	if !syms.read(gaps) {
		return nil, nil
	}
	cover := coverage{funcs: sortFuncs(syms.funcs), entry: uint64(o.Entry)}
	_ = src.each(cover.row) // whoever builds the table reports the error
	cover.row(1<<64-1, 0)
	if len(cover.bare) == 0 || cover.size > maxScanText {
		return nil, nil
	}
	if o.Machine == elf.EM_AARCH64 {
		return scanARM64(syms.code, cover.bare), nil
	}
	syms.readImports()
	c := codeScan{read: syms.code, endless: syms.neverReturns, funcs: cover.bare, wide: &src.wide}
	return c.run()
}

// funcSym is a symbol of a function.
type funcSym struct {
	begin, end uint64
	part       bool // see codeFunc
	builtin    bool
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
		c.bare = append(c.bare, codeFunc{begin: f.begin, end: f.end, part: f.part, builtin: f.builtin})
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
	funcs  []funcSym
	// endless are functions known by name never to return, slots the words
	// that the dynamic linker writes the addresses of such functions to.
	endless map[uint64]bool
	slots   map[uint64]bool
	stubs   map[uint64]bool // PLT entries looked at: whether they jump through slots
}

// read reads the symbols of functions. It returns false if none begins in gaps.
func (c *codeSyms) read(gaps []gap) bool {
	syms, err := c.o.Symbols(objfile.SymTab)
	if err != nil {
		if syms, err = c.o.Symbols(objfile.DynSym); err != nil {
			return false
		}
	}
	inGap := func(pc uint64) bool {
		i := sort.Search(len(gaps), func(i int) bool { return gaps[i].end > pc })
		return i < len(gaps) && gaps[i].begin <= pc
	}
	any := false
	c.eachFunc(syms, func(s objfile.Symbol) bool {
		any = inGap(uint64(s.Value))
		return !any
	})
	if !any {
		return false
	}
	c.endless = map[uint64]bool{}
	names := syms.Names()
	n := 0
	c.eachFunc(syms, func(s objfile.Symbol) bool {
		f := funcSym{begin: uint64(s.Value), end: uint64(s.Value) + s.Size}
		if s.Size == 0 {
			f.end = min(f.begin+maxUnsized, c.segEnd(f.begin))
		}
		if name, err := names.Bytes(s.Name); err == nil {
			f.part, f.builtin = isPart(name), isBuiltin(name)
			// A program's own err may well return.
			if neverReturnsC(name) && !bytes.Contains(name, []byte("err")) {
				c.endless[f.begin] = true
			}
		}
		// Gaps smaller than that are not among gaps.
		if s.Size < padding || inGap(f.begin) {
			c.funcs = append(c.funcs, f)
		}
		n++
		return n < maxScanSyms
	})
	return true
}

// eachFunc calls yield for the functions defined in executable segments.
func (c *codeSyms) eachFunc(syms *objfile.Symbols, yield func(objfile.Symbol) bool) {
	// An error ends the list early.
	_ = syms.All(func(_ int, s objfile.Symbol) bool {
		if s.Section == elf.SHN_UNDEF || s.Section == elf.SHN_ABS {
			return true
		}
		if s.Type != elf.STT_FUNC && s.Type != elf.STT_GNU_IFUNC {
			return true
		}
		if end := c.segEnd(uint64(s.Value)); s.Size > end-uint64(s.Value) || end == 0 {
			return true
		}
		return yield(s)
	})
}

// sortFuncs sorts functions and lets each end where the next begins.
func sortFuncs(funcs []funcSym) []funcSym {
	sort.Slice(funcs, func(i, j int) bool {
		a, b := &funcs[i], &funcs[j]
		return a.begin < b.begin || a.begin == b.begin && a.end > b.end
	})
	out := funcs[:0]
	for _, f := range funcs {
		if n := len(out); n > 0 {
			last := &out[n-1]
			if last.begin == f.begin {
				last.part = last.part || f.part
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
