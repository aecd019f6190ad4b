// SPDX-License-Identifier: Apache-2.0

package gopclntab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/lowflame/lowflame/internal/hostile"
	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/stack"
)

// version is what differs between releases. Sizes are in bytes.
type version struct {
	headerWords  int // words before the offsets of the parts
	functabField int // of the function index
	entryField   int // of the entry point in a record
	startLine    bool
	inlinedCall  int // size of runtime.inlinedCall
	gofuncWord   int // word of moduledata.gofunc; 0: funcdata are addresses
}

// The version numbers of the table (internal/abi.PCLnTabMagic).
const (
	magic116 = 0xfffffffa
	magic118 = 0xfffffff0
	magic120 = 0xfffffff1
)

func versionOf(magic uint32) (version, bool) {
	switch magic {
	case magic116:
		return version{headerWords: 2, functabField: 8, entryField: 8, inlinedCall: 20}, true
	case magic118:
		return version{headerWords: 3, functabField: 4, entryField: 4, inlinedCall: 20, gofuncWord: 38}, true
	case magic120:
		return version{headerWords: 3, functabField: 4, entryField: 4, inlinedCall: 16, gofuncWord: 40, startLine: true}, true
	}
	return version{}, false
}

// recordSize is the size of the fixed part of runtime._func.
func (v version) recordSize() int {
	size := v.entryField + 9*4
	if v.startLine {
		size += 4
	}
	return size
}

// headerSize is the size of runtime.pcHeader in the newest versions.
const headerSize = 8 * 9

// header is runtime.pcHeader: where in the file the parts of the table are.
type header struct {
	v       version
	addr    stack.LinkAddr // of the table
	off     int64          // of the table, in the file
	quantum uint32         // smallest distance of two instructions, bytes
	nfunc   int
	// start is where the table itself says that entry points are relative to: 0
	// since Go 1.26 and before relocation.
	start stack.LinkAddr

	names, units, files, pcs, pcln part
}

// part is a part of the table, in bytes of the file.
type part struct {
	off, size int64
}

// at returns the file offset of n bytes at an offset of the part.
func (p part) at(off uint64, n int) (int64, error) {
	if off > uint64(p.size) || uint64(n) > uint64(p.size)-off {
		return 0, &objfile.FormatError{Off: uint64(p.off), What: fmt.Sprintf("Go function table refers to %#x of %#x bytes", off, p.size)}
	}
	return p.off + int64(off), nil
}

var errHeader = errors.New("not the header of a Go function table")

// parseHeader reads the header of the table at addr, of which rest bytes are in
// the file, at off. It returns errHeader if it is none.
func parseHeader(b []byte, addr stack.LinkAddr, off, rest int64) (header, error) {
	c := hostile.NewCursor(b)
	v, ok := versionOf(c.Uint32())
	pad, quantum, ptrSize := c.Uint16(), c.Uint8(), c.Uint8()
	if !ok || pad != 0 || (quantum != 1 && quantum != 4) || ptrSize != 8 || !c.OK() {
		return header{}, errHeader
	}
	h := header{v: v, addr: addr, off: off, quantum: uint32(quantum)}
	nfunc := c.Uint64()
	c.Skip(8) // files
	if v.headerWords == 3 {
		h.start = stack.LinkAddr(c.Uint64())
	}
	var offs [6]uint64
	for i := range offs[:5] {
		offs[i] = c.Uint64()
	}
	offs[5] = uint64(rest)
	if !c.OK() || offs[0] < uint64(c.Off()) {
		return header{}, errHeader
	}
	// The linker writes the parts one after the other.
	parts := [5]*part{&h.names, &h.units, &h.files, &h.pcs, &h.pcln}
	for i, p := range parts {
		if offs[i] > offs[i+1] {
			return header{}, errHeader
		}
		p.off, p.size = off+int64(offs[i]), int64(offs[i+1]-offs[i])
	}
	if nfunc == 0 || nfunc >= uint64(h.pcln.size)/uint64(2*v.functabField) {
		return header{}, errHeader
	}
	h.nfunc = int(nfunc)
	return h, nil
}

// addrOf returns the link-time address of a part of the table.
func (h *header) addrOf(p part) uint64 {
	return uint64(h.addr) + uint64(p.off-h.off)
}

// headerTail is the part of the header that all versions and machines have: the
// end of the magic number and two zeros.
var headerTail = []byte("\xff\xff\xff\x00\x00")

// nextHeader returns the offset of the first thing in b at or after from that
// looks like the first 8 bytes of a table, or -1.
func nextHeader(b []byte, from int) int {
	for from < len(b) {
		n := bytes.Index(b[from:], headerTail)
		if n < 0 {
			return -1
		}
		if at := from + n - 1; at >= 0 && at+8 <= len(b) {
			if _, ok := versionOf(binary.LittleEndian.Uint32(b[at:])); ok && b[at+7] == 8 {
				return at
			}
		}
		from += n + 1
	}
	return -1
}
