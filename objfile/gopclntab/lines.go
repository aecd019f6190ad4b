// SPDX-License-Identifier: Apache-2.0

package gopclntab

import (
	"fmt"
	"slices"

	"github.com/lowflame/lowflame/internal/hostile"
	"github.com/lowflame/lowflame/stack"
)

// Line is a function and a place in it, at some address: the function whose code it
// is, or one inlined there.
type Line struct {
	// Func is the name as the linker wrote it, with type arguments; before Go 1.21
	// those were "...".
	Func string
	// File is as the compiler knew it, an absolute path, or one that begins with
	// the module path if the program was built with -trimpath. It is "" where the
	// table does not know, and then Line is 0.
	File      string
	Line      int
	StartLine int // of the func keyword; 0 before Go 1.20
	// Wrapper says that the compiler made the function, to call a method through
	// an interface and the like. The runtime leaves such frames out of its stack
	// traces, unless they called into a panic.
	Wrapper bool
}

// maxInline is how deep inlined calls are followed. Tables exist whose parent
// links never end.
const maxInline = 64

const (
	pcdataInlTree   = 2 // internal/abi.PCDATA_InlTreeIndex
	funcdataInlTree = 3 // internal/abi.FUNCDATA_InlTree
)

// Lines returns the functions at pc, inlined ones first, each at the place of the
// call in the next, and the function whose code it is last. For return addresses
// pass the byte before. It returns nil if pc is not in a Go function.
//
// Wrappers are left out, but for the first line, as runtime.CallersFrames does:
// there is at least one line. An error may come with lines: a part of the
// table that cannot be read costs only what it would have told.
func (t *Table) Lines(pc stack.LinkAddr) ([]Line, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f, ok, err := t.funcAt(pc)
	if !ok {
		return nil, err
	}
	t.findWrapper()
	r := resolver{t: t, f: f, steps: maxSteps}
	r.run(pc)
	return r.lines, r.err
}

// resolver collects the lines at one pc.
type resolver struct {
	t     *Table
	f     Func
	lines []Line
	steps int // left for pc tables
	err   error
}

func (r *resolver) run(pc stack.LinkAddr) {
	tree := r.inlineTree()
	var seen []int32
	for tree.size != 0 && len(seen) < maxInline {
		i := r.pcValue(tree.indexes, pc)
		if i < 0 || slices.Contains(seen, i) {
			break
		}
		seen = append(seen, i)
		call, ok := r.inlinedCall(tree, i)
		if !ok {
			break
		}
		r.add(call.name, call.startLine, call.id, pc)
		pc = r.f.Entry + stack.LinkAddr(call.parentPC)
	}
	r.add(r.f.rec.name, r.f.StartLine, r.f.ID, pc)
}

func (r *resolver) pcValue(off uint32, pc stack.LinkAddr) int32 {
	v, err := r.t.pcValue(r.f, off, pc, &r.steps)
	r.fail(err)
	return v
}

func (r *resolver) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *resolver) add(name uint32, startLine int32, id uint8, pc stack.LinkAddr) {
	wrapper := id != 0 && id == r.t.wrapper
	if wrapper && len(r.lines) > 0 {
		return
	}
	l := Line{Func: r.t.str(r.t.h.names, uint64(name)), StartLine: int(startLine), Wrapper: wrapper}
	l.File, l.Line = r.fileLine(pc)
	r.lines = append(r.lines, l)
}

// fileLine is runtime.funcline1.
func (r *resolver) fileLine(pc stack.LinkAddr) (string, int) {
	file, line := r.pcValue(r.f.rec.pcfile, pc), r.pcValue(r.f.rec.pcln, pc)
	if file < 0 || line < 0 {
		return "", 0
	}
	// The unit's list of files holds offsets of their names.
	at, err := r.t.h.units.at(4*(uint64(r.f.rec.unit)+uint64(file)), 4)
	if err != nil {
		return "", 0 // unit is ^0 for functions of none
	}
	off, err := r.t.uint32(at)
	if err != nil || off == ^uint32(0) {
		r.fail(err)
		return "", 0
	}
	name := r.t.str(r.t.h.files, uint64(off))
	if name == "" {
		return "", 0
	}
	return name, int(line)
}

// uint32 reads a number at an offset of the file.
func (t *Table) uint32(off int64) (uint32, error) {
	var b [4]byte
	if _, err := t.blocks.ReadAt(b[:], off); err != nil {
		return 0, fmt.Errorf("read Go function table: %w", err)
	}
	c := hostile.NewCursor(b[:])
	return c.Uint32(), nil
}

// inlineTree is the tree of calls inlined into a function.
type inlineTree struct {
	indexes uint32 // pc table of tree indexes
	off     int64  // of the tree in the file
	size    int64  // of what may be the tree; 0: there is none
}

// inlineTree finds the tree of the function: pcdata and funcdata follow its record.
func (r *resolver) inlineTree() (tree inlineTree) {
	t, f := r.t, r.f
	if f.NPCData <= pcdataInlTree || f.NFuncData <= funcdataInlTree {
		return tree
	}
	var err error
	if tree.indexes, err = t.uint32(f.rec.off + 4*pcdataInlTree); err != nil || tree.indexes == 0 {
		r.fail(err)
		return tree
	}
	addr, err := t.funcdata(f, funcdataInlTree)
	if err != nil || addr == 0 {
		r.fail(err)
		return tree
	}
	off, ok := t.o.FileOff(addr)
	if !ok {
		return tree
	}
	tree.off, tree.size = int64(off), t.o.Size()-int64(off)
	return tree
}

// funcdata returns the address of funcdata i of f, 0 for none (runtime.funcdata).
func (t *Table) funcdata(f Func, i int64) (stack.LinkAddr, error) {
	off := f.rec.off + 4*int64(f.NPCData)
	if t.h.v.gofuncWord == 0 { // before Go 1.18: aligned addresses
		off = t.h.off + (off-t.h.off+7)&^7 + 8*i // the table itself is aligned
		lo, err := t.uint32(off)
		if err != nil {
			return 0, err
		}
		hi, err := t.uint32(off + 4)
		return stack.LinkAddr(lo) | stack.LinkAddr(hi)<<32, err
	}
	rel, err := t.uint32(off + 4*i)
	if err != nil || rel == ^uint32(0) || t.m.gofunc == 0 {
		return 0, err
	}
	return t.m.gofunc + stack.LinkAddr(rel), nil
}

// call is runtime.inlinedCall.
type call struct {
	id        uint8
	name      uint32
	parentPC  uint32 // of the call, from the entry of the function
	startLine int32
}

// inlinedCall reads entry i of a tree. ok is false for what cannot be one, so that a
// tree looked for at the wrong place gives no made-up frames.
func (r *resolver) inlinedCall(tree inlineTree, i int32) (c call, ok bool) {
	size := int64(r.t.h.v.inlinedCall)
	if (int64(i)+1)*size > tree.size {
		return call{}, false
	}
	var buf [20]byte
	if _, err := r.t.blocks.ReadAt(buf[:size], tree.off+int64(i)*size); err != nil {
		r.fail(err)
		return call{}, false
	}
	b := hostile.NewCursor(buf[:size])
	if size == 20 { // parent, id, file, line, name, parentPC
		b.Skip(2)
		c.id = b.Uint8()
		b.Skip(1 + 4 + 4)
		c.name, c.parentPC = b.Uint32(), b.Uint32()
	} else {
		c.id = b.Uint8()
		b.Skip(3)
		c.name, c.parentPC, c.startLine = b.Uint32(), b.Uint32(), int32(b.Uint32())
	}
	return c, uint64(c.parentPC) < uint64(r.f.End-r.f.Entry) && r.t.isName(c.name)
}

// isName reports whether a function name begins at an offset. The one at 0 is not
// believed: it is that of the first function of internal/abi, which is too large to
// be inlined, and zeros are what a wrong place may be full of.
func (t *Table) isName(off uint32) bool {
	if off == 0 {
		return false
	}
	at, err := t.h.names.at(uint64(off)-1, 2)
	if err != nil {
		return false
	}
	var b [2]byte
	_, err = t.blocks.ReadAt(b[:], at)
	return err == nil && b[0] == 0 && b[1] != 0
}

// findWrapper finds the ID of wrapper functions. It is the last of the IDs, in every
// release, and every program has a function with it.
func (t *Table) findWrapper() {
	if t.wrapper != 0 {
		return
	}
	t.wrapper = 1
	size := t.h.v.recordSize()
	for i := range t.h.nfunc {
		_, rec, err := t.functab(i)
		if err != nil {
			return // the file is gone
		}
		off, err := t.h.pcln.at(rec, size)
		if err != nil {
			continue
		}
		if b, err := t.blocks.At(off + int64(size) - 4); err == nil {
			t.wrapper = max(t.wrapper, b[0])
		}
	}
}
