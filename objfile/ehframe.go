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
	maxEHFrame    = 256 << 20 // 20 times what Chromium has
	maxEHFrameHdr = 64 << 20
)

// EHFrame returns .eh_frame and .eh_frame_hdr with their link-time addresses. The
// slices are the caller's.
//
// They are found as the unwinder in libgcc finds them, through PT_GNU_EH_FRAME, so
// section headers need not exist; without that segment, through the section
// .eh_frame, and then hdr is nil. Where no section tells the size of .eh_frame it
// ends after the zero length that terminates it. It wraps ErrNotFound if there is
// neither, ErrTooLarge, or a *FormatError.
//
// See LSB Core 5.0 §10.6.
func (o *Object) EHFrame() (data []byte, addr stack.LinkAddr, hdr []byte, hdrAddr stack.LinkAddr, err error) {
	s, haveSection := o.Section(".eh_frame")
	if haveSection && s.Type == elf.SHT_NOBITS {
		// A file of debug information alone: its program headers are those of the
		// file it was split from, and lead to other bytes.
		return nil, 0, nil, 0, fmt.Errorf(".eh_frame: %w", ErrNotFound)
	}
	if p, ok := o.prog(elf.PT_GNU_EH_FRAME); ok {
		hdr, addr, err = o.readEHFrameHdr(p)
		if err == nil {
			data, err = o.readEHFrame(addr, s, haveSection)
			if err == nil {
				return data, addr, hdr, p.addr, nil
			}
		}
	}
	if !haveSection {
		if err == nil {
			err = fmt.Errorf(".eh_frame: %w", ErrNotFound)
		}
		return nil, 0, nil, 0, err
	}
	data, err = o.Data(s, maxEHFrame)
	return data, s.Addr, nil, 0, err
}

// readEHFrameHdr reads the segment p and the address of .eh_frame from it.
func (o *Object) readEHFrameHdr(p prog) (hdr []byte, ehFrame stack.LinkAddr, err error) {
	if p.filesz > maxEHFrameHdr {
		return nil, 0, fmt.Errorf(".eh_frame_hdr of %d bytes: %w", p.filesz, ErrTooLarge)
	}
	if !o.has(p.off, p.filesz) {
		return nil, 0, &FormatError{p.off, ".eh_frame_hdr lies outside the file"}
	}
	hdr = make([]byte, p.filesz)
	if err := o.read(hdr, p.off); err != nil {
		return nil, 0, fmt.Errorf("read .eh_frame_hdr: %w", err)
	}
	c := hostile.NewCursor(hdr)
	version, enc := c.Uint8(), c.Uint8()
	c.Skip(2) // encodings of the count and the table
	if version != 1 {
		return nil, 0, &FormatError{p.off, ".eh_frame_hdr has an unknown version"}
	}
	ehFrame, ok := pointer(&c, enc, p.addr)
	if !ok {
		return nil, 0, &FormatError{p.off, ".eh_frame_hdr has no address of .eh_frame"}
	}
	return hdr, ehFrame, nil
}

// pointer reads a pointer with an encoding that an .eh_frame_hdr may use for the
// address of .eh_frame: a DW_EH_PE value, absolute (0x00), relative to itself
// (0x10) or to the segment (0x30). See LSB Core 5.0 §10.5.1.
func pointer(c *hostile.Cursor, enc uint8, segment stack.LinkAddr) (stack.LinkAddr, bool) {
	var base stack.LinkAddr
	switch enc & 0xf0 {
	case 0x00:
	case 0x10:
		base = segment + stack.LinkAddr(c.Off())
	case 0x30:
		base = segment
	default:
		return 0, false
	}
	var v uint64
	switch enc & 0x0f {
	case 0x00, 0x04, 0x0c: // DW_EH_PE_absptr, udata8, sdata8
		v = c.Uint64()
	case 0x03: // DW_EH_PE_udata4
		v = uint64(c.Uint32())
	case 0x0b: // DW_EH_PE_sdata4
		v = uint64(int64(int32(c.Uint32())))
	default:
		return 0, false
	}
	return base + stack.LinkAddr(v), c.OK()
}

// readEHFrame reads .eh_frame at addr.
func (o *Object) readEHFrame(addr stack.LinkAddr, s Section, haveSection bool) ([]byte, error) {
	off, rest, ok := o.locate(addr)
	if !ok {
		return nil, &FormatError{uint64(addr), ".eh_frame_hdr points outside the file"}
	}
	size := uint64(0)
	if haveSection && addr >= s.Addr && uint64(addr-s.Addr) < s.Size && uint64(off) == s.Off+uint64(addr-s.Addr) {
		size = min(s.Size-uint64(addr-s.Addr), rest)
	} else {
		var err error
		if size, err = o.measureEHFrame(uint64(off), rest); err != nil {
			return nil, err
		}
	}
	if size > maxEHFrame {
		return nil, fmt.Errorf(".eh_frame of %d bytes: %w", size, ErrTooLarge)
	}
	if !o.has(uint64(off), size) {
		return nil, &FormatError{uint64(off), ".eh_frame lies outside the file"}
	}
	data := make([]byte, size)
	if err := o.read(data, uint64(off)); err != nil {
		return nil, fmt.Errorf("read .eh_frame: %w", err)
	}
	return data, nil
}

// measureEHFrame follows the lengths of the entries from off to the terminator or
// to the first that leaves the segment, and returns the bytes up to there.
func (o *Object) measureEHFrame(off, rest uint64) (uint64, error) {
	b := hostile.NewBlocks(o.r, o.size, 4)
	var length [8]byte
	for size := uint64(0); ; {
		if rest-size < 4 {
			return size, nil
		}
		if _, err := b.ReadAt(length[:4], int64(off+size)); err != nil {
			return 0, fmt.Errorf("measure .eh_frame: %w", err)
		}
		n := uint64(binary.LittleEndian.Uint32(length[:]))
		switch {
		case size > maxEHFrame:
			return 0, fmt.Errorf(".eh_frame of over %d bytes: %w", size, ErrTooLarge)
		case n == 0:
			return size + 4, nil
		case n < 4: // no room for what every entry begins with
			return size, nil
		case n != 0xffffffff: // else the length is in the next 8 bytes
			n += 4
		case rest-size < 12:
			return size, nil
		default:
			if _, err := b.ReadAt(length[:], int64(off+size+4)); err != nil {
				return 0, fmt.Errorf("measure .eh_frame: %w", err)
			}
			n = min(binary.LittleEndian.Uint64(length[:]), rest) + 12
		}
		if n > rest-size {
			return size, nil
		}
		size += n
	}
}
