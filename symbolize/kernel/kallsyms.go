// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"

	"github.com/lowflame/lowflame/stack"
)

const (
	// maxSymbols bounds the table; a kernel with every module loaded has some
	// 300,000 functions.
	maxSymbols = 4 << 20
	// maxName is KSYM_NAME_LEN without the terminating zero.
	maxName = 511
	// hiddenLines is after how many functions at address 0, and none elsewhere,
	// the list counts as restricted.
	hiddenLines = 256
)

// entry is one function while the table is made.
type entry struct {
	addr   stack.Addr
	name   uint32 // place in the arena
	module uint16 // index into rawTable.modules; 0 is the kernel proper
	typ    byte   // T, t, W or w
}

// rawTable is kallsyms in the order of the file, and the bounds of the kernel's
// own code, zero if not listed.
type rawTable struct {
	entries []entry
	names   arena
	modules []string // names without brackets; the first is ""
	text    [2]stack.Addr
	init    [2]stack.Addr
}

// parse reads lines "address type name[\t[module]]" (kernel: s_show in
// kernel/kallsyms.c) and keeps functions.
func parse(r io.Reader) (*rawTable, error) {
	t := &rawTable{modules: []string{""}, entries: make([]entry, 0, 1<<17)}
	ids := map[string]uint16{"": 0}
	br := bufio.NewReaderSize(r, 64<<10)
	hidden := 0
	for {
		line, err := br.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			continue // no kernel writes such a line; its pieces name nothing
		}
		if addr, typ, name, mod, ok := parseLine(line); ok && typ != 0 {
			if addr == 0 {
				hidden++
			} else {
				t.add(entry{addr: addr, typ: typ}, name, t.moduleID(ids, mod))
			}
		}
		if len(t.entries) == 0 && hidden >= hiddenLines {
			return nil, ErrRestricted
		}
		if len(t.entries) >= maxSymbols || errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	if len(t.entries) == 0 && hidden > 0 {
		return nil, ErrRestricted
	}
	return t, nil
}

// parseLine splits a line. typ is 0 for what is no function. mod has no
// brackets. The results alias line.
func parseLine(line []byte) (addr stack.Addr, typ byte, name, mod []byte, ok bool) {
	i := 0
	for ; i < len(line) && i < 16; i++ {
		d := hexDigit(line[i])
		if d > 15 {
			break
		}
		addr = addr<<4 | stack.Addr(d)
	}
	if i == 0 || len(line) < i+4 || line[i] != ' ' || line[i+2] != ' ' {
		return 0, 0, nil, nil, false
	}
	switch c := line[i+1]; c {
	case 'T', 't', 'W', 'w':
		typ = c
	default:
		return 0, 0, nil, nil, true
	}
	name = bytes.TrimSuffix(line[i+3:], []byte("\n"))
	if tab := bytes.IndexByte(name, '\t'); tab >= 0 {
		mod = bytes.Trim(name[tab+1:], "[] ")
		name = name[:tab]
	}
	if len(name) == 0 || name[0] == '$' || bytes.HasPrefix(name, []byte(".L")) {
		typ = 0 // mapping symbols and labels of the assembler
	}
	return addr, typ, name[:min(len(name), maxName)], mod, true
}

func hexDigit(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	}
	return 0xff
}

func (t *rawTable) moduleID(ids map[string]uint16, mod []byte) uint16 {
	if id, ok := ids[string(mod)]; ok {
		return id
	}
	if len(t.modules) > 0xffff || len(mod) > 255 {
		return 0
	}
	id := uint16(len(t.modules))
	s := string(mod)
	t.modules = append(t.modules, s)
	ids[s] = id
	return id
}

func (t *rawTable) add(e entry, name []byte, module uint16) {
	if module == 0 && name[0] == '_' {
		switch string(name) {
		case "_stext":
			t.text[0] = e.addr
		case "_etext":
			t.text[1] = e.addr
		case "_sinittext":
			t.init[0] = e.addr
		case "_einittext":
			t.init[1] = e.addr
		}
	}
	e.module = module
	e.name = t.names.add(name)
	t.entries = append(t.entries, e)
}

// rank orders the names of one address: the lower, the better.
func rank(typ byte, name string) int {
	r := 0
	if typ != 'T' {
		r++
	}
	if strings.HasPrefix(name, "__pfx_") || strings.HasPrefix(name, "__cfi_") {
		r += 2
	}
	if isMarker(name) {
		r += 4
	}
	return r
}

// isMarker reports whether the linker script put the name at the edge of a
// section: it says nothing about the function that lies there.
func isMarker(name string) bool {
	switch name {
	case "_text", "_stext", "_etext", "_sinittext", "_einittext":
		return true
	}
	return strings.HasPrefix(name, "__") &&
		(strings.HasSuffix(name, "_text_start") || strings.HasSuffix(name, "_text_end") ||
			strings.HasSuffix(name, "text_begin") || strings.HasSuffix(name, "text_end"))
}
