// SPDX-License-Identifier: Apache-2.0

package index

import (
	"fmt"
	"slices"
)

// codeBlock is a block of code while an address is looked up in it. Reused.
type codeBlock struct {
	files     []uint32
	functions []function
	calls     []call
	stack     [maxDepth + 1]frame
	depth     int
}

var errCode = fmt.Errorf("block of code: %w", ErrFormat)

// find sets the stack to what is at addr; key is the address at which the block
// begins. It reports whether the block covers addr.
func (b *codeBlock) find(block []byte, key, addr uint64) (bool, error) {
	r := reader{data: block}
	b.depth = 0
	if err := b.dictionaries(&r); err != nil {
		return false, err
	}
	n, at := r.count(3), key
	skip, size, found := uint64(0), uint64(0), false
	for range n {
		begin := at + r.uvarint()
		length := r.uvarint()
		bytes := r.uvarint()
		at = begin + length
		switch {
		case begin > addr && !found || r.bad:
			return false, r.err(errCode)
		case found:
		case addr-begin < length:
			found, size = true, bytes
			key = begin
		default:
			skip += bytes
		}
	}
	if !found || r.bad {
		return false, r.err(errCode)
	}
	r.bytes(skip)
	part := reader{data: r.bytes(size)}
	if r.bad {
		return false, errCode
	}
	return true, b.scan(&part, addr-key)
}

func (r *reader) err(err error) error {
	if r.bad {
		return err
	}
	return nil
}

// dictionaries reads what the parts refer to.
func (b *codeBlock) dictionaries(r *reader) error {
	b.files = resize(b.files, r.count(1))
	for i := range b.files {
		b.files[i] = r.uint32()
	}
	b.functions = resize(b.functions, r.count(3))
	name := uint32(0)
	for i := range b.functions {
		name += r.uint32()
		start, file := r.uint32(), r.uvarint()
		if file >= uint64(len(b.files)) {
			return errCode
		}
		b.functions[i] = function{name, start, b.files[file]}
	}
	b.calls = resize(b.calls, r.count(3))
	for i := range b.calls {
		f, file := r.uvarint(), r.uvarint()
		if f >= uint64(len(b.functions)) || file >= uint64(len(b.files)) {
			return errCode
		}
		fn := &b.functions[f]
		b.calls[i] = call{fn.name, fn.start, fn.declFile, b.files[file], r.uint32()}
	}
	return r.err(errCode)
}

func resize[T any](s []T, n int) []T { return slices.Grow(s[:0], n)[:n] }

// scan runs through the segments of a part up to the one that holds off.
func (b *codeBlock) scan(r *reader, off uint64) error {
	b.stack[0] = frame{}
	at := uint64(0)
	for r.more() {
		op := r.data[r.at]
		r.at++
		if op&short != 0 {
			at += uint64(op>>3&(shortSize-1)) + 1
			if at > off {
				break
			}
			b.stack[b.depth].at.line += uint32(int(op&(shortLines-1)) + shortFirst)
			continue
		}
		at += r.uvarint()
		if at > off {
			break
		}
		if err := b.step(r, op); err != nil {
			return err
		}
	}
	return r.err(errCode)
}

// step does what op says, but for the address.
func (b *codeBlock) step(r *reader, op byte) error {
	pops, pushes := uint64(op&popMask), uint64(op&pushMask>>pushShift)
	if pops == popMask {
		pops = r.uvarint()
	}
	if pushes == pushMask>>pushShift {
		pushes = r.uvarint()
	}
	if pops > uint64(b.depth) || pushes > maxDepth || b.depth-int(pops)+int(pushes) > maxDepth {
		return errCode
	}
	b.depth -= int(pops)
	for range pushes {
		i := r.uvarint()
		if i >= uint64(len(b.calls)) {
			return errCode
		}
		c := &b.calls[i]
		b.stack[b.depth].at = place{c.callFile, c.callLine}
		b.depth++
		b.stack[b.depth] = frame{int(i), place{c.declFile, c.start}}
	}
	top := &b.stack[b.depth].at
	if op&newFile != 0 {
		i := r.uvarint()
		if i >= uint64(len(b.files)) {
			return errCode
		}
		top.file = b.files[i]
	}
	switch op & (newLine | nextLine) {
	case newLine:
		top.line += uint32(r.varint())
	case newLine | nextLine:
		top.line++
	}
	return nil
}
