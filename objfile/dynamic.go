// SPDX-License-Identifier: Apache-2.0

package objfile

import (
	"debug/elf"
	"encoding/binary"
	"fmt"

	"github.com/lowflame/lowflame/internal/hostile"
	"github.com/lowflame/lowflame/stack"
)

const (
	maxDynamic = 4096 // entries of the dynamic section
	chunk      = 64 << 10
	relaSize   = 24 // Elf64_Rela
)

// dynamic returns the first value of each of the dynamic tags the reader uses,
// from PT_DYNAMIC. They are link-time addresses and sizes.
func (o *Object) dynamic() (map[elf.DynTag]uint64, error) {
	p, ok := o.prog(elf.PT_DYNAMIC)
	if !ok {
		return nil, fmt.Errorf("dynamic segment: %w", ErrNotFound)
	}
	size := min(p.filesz, maxDynamic*16)
	if !o.has(p.off, size) {
		return nil, &FormatError{p.off, "dynamic segment lies outside the file"}
	}
	buf := make([]byte, size)
	if err := o.read(buf, p.off); err != nil {
		return nil, fmt.Errorf("read dynamic segment: %w", err)
	}
	tags := make(map[elf.DynTag]uint64, 8)
	for c := hostile.NewCursor(buf); c.Len() >= 16; {
		tag, val := elf.DynTag(c.Uint64()), c.Uint64()
		switch tag {
		case elf.DT_NULL:
			return tags, nil
		case elf.DT_SYMTAB, elf.DT_STRTAB, elf.DT_STRSZ, elf.DT_HASH, elf.DT_GNU_HASH, elf.DT_RELA, elf.DT_RELASZ:
			if _, twice := tags[tag]; !twice {
				tags[tag] = val
			}
		}
	}
	return tags, nil
}

// RelativeRelocs calls yield for each relocation that makes the dynamic linker
// write load bias + addend at an address, until it returns false: in a
// position-independent file the words at those addresses may be zero.
//
// Relocations in RELR form are left out, because there the file holds the addend
// in place. Without a dynamic segment or relocations there is nothing to yield and
// the error is nil.
func (o *Object) RelativeRelocs(yield func(at stack.LinkAddr, addend uint64) bool) error {
	if _, ok := o.prog(elf.PT_DYNAMIC); !ok {
		return nil
	}
	var relative uint64
	switch o.Machine {
	case elf.EM_X86_64:
		relative = uint64(elf.R_X86_64_RELATIVE)
	case elf.EM_AARCH64:
		relative = uint64(elf.R_AARCH64_RELATIVE)
	default:
		return fmt.Errorf("relocations of %v: %w", o.Machine, ErrUnsupported)
	}
	tags, err := o.dynamic()
	if err != nil {
		return err
	}
	off, rest, ok := o.locate(stack.LinkAddr(tags[elf.DT_RELA]))
	if !ok || tags[elf.DT_RELA] == 0 {
		return nil
	}
	size := min(tags[elf.DT_RELASZ], rest)
	return o.eachRecord(uint64(off), size/relaSize, relaSize, func(b []byte) bool {
		if binary.LittleEndian.Uint64(b[8:]) != relative {
			return true
		}
		return yield(stack.LinkAddr(binary.LittleEndian.Uint64(b)), binary.LittleEndian.Uint64(b[16:]))
	})
}

// eachRecord reads n records of size bytes at off of the file, a chunk at a time,
// and calls yield for each until it returns false.
func (o *Object) eachRecord(off, n, size uint64, yield func([]byte) bool) error {
	if n > uint64(o.size)/size || !o.has(off, n*size) {
		return &FormatError{off, "table lies outside the file"}
	}
	buf := make([]byte, min(n, chunk/size)*size)
	for n > 0 {
		part := buf[:min(n, chunk/size)*size]
		if err := o.read(part, off); err != nil {
			return err
		}
		off += uint64(len(part))
		n -= uint64(len(part)) / size
		for ; len(part) > 0; part = part[size:] {
			if !yield(part[:size]) {
				return nil
			}
		}
	}
	return nil
}

// countDynSyms returns the number of symbols in the dynamic symbol table, which
// only its hash tables know.
func (o *Object) countDynSyms(tags map[elf.DynTag]uint64) (uint64, error) {
	if addr, ok := tags[elf.DT_HASH]; ok {
		var h [8]byte // nbucket, nchain
		if _, err := o.ReadAt(h[:], stack.LinkAddr(addr)); err == nil {
			return uint64(binary.LittleEndian.Uint32(h[4:])), nil
		}
	}
	if addr, ok := tags[elf.DT_GNU_HASH]; ok {
		return o.countGNUHash(stack.LinkAddr(addr))
	}
	return 0, fmt.Errorf("size of the dynamic symbol table: %w", ErrNotFound)
}

// countGNUHash finds the last symbol of the last chain of a DT_GNU_HASH table:
// the chain of the highest bucket, to the first entry whose low bit is set.
// Layout: nbuckets, symoffset, bloom words, shift, bloom, buckets, chains.
func (o *Object) countGNUHash(addr stack.LinkAddr) (uint64, error) {
	off, rest, ok := o.locate(addr)
	if !ok || rest < 16 {
		return 0, &FormatError{uint64(off), "hash table lies outside the file"}
	}
	var h [16]byte
	if err := o.read(h[:], uint64(off)); err != nil {
		return 0, err
	}
	c := hostile.NewCursor(h[:])
	buckets, symoffset, bloom := uint64(c.Uint32()), uint64(c.Uint32()), uint64(c.Uint32())
	at := uint64(off) + 16 + 8*bloom
	last := uint64(0)
	err := o.eachRecord(at, buckets, 4, func(b []byte) bool {
		last = max(last, uint64(binary.LittleEndian.Uint32(b)))
		return true
	})
	if err != nil || last < symoffset {
		return symoffset, err // no bucket is used: only the symbols before
	}
	at += 4 * (buckets + last - symoffset)
	if !o.has(at, 4) {
		return 0, &FormatError{at, "hash chain lies outside the file"}
	}
	err = o.eachRecord(at, (uint64(o.size)-at)/4, 4, func(b []byte) bool {
		last++
		return b[0]&1 == 0
	})
	return last, err
}
