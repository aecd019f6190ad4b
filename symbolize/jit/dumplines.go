// SPDX-License-Identifier: Apache-2.0

package jit

import (
	"bytes"
	"encoding/binary"
	"math"
	"regexp"
)

// What a dump tells of a function is kept as a record behind its name, in the text
// of its map: the address it was loaded at, and a table of lines.
//
//	u16 length, name, u64 address, u32 length, lines
//
// A line is {address, line: varints, as differences to the one before; file:
// uvarint length + 1 and the name, or 0 for the one before}.
const recordFixed = 2 + 8 + 4

const (
	// maxLines bounds the table of a function. One that is longer is left out
	// whole, for the last lines that fit would be taken for those behind them.
	maxLines = 256 << 10
	// maxFileName bounds the name of a file in it.
	maxFileName = 4 << 10
	// v8Shift is what V8 adds to the addresses of lines: the size of the ELF
	// header that perf puts before the code.
	v8Shift = 0x40
)

// v8Name is how V8 names functions of JavaScript.
var v8Name = regexp.MustCompile(`^(?:JS|LazyCompile|Function|Script|Eval|RegExp|Builtin|BytecodeHandler|wasm-function)[:[]`)

// v8Place finds what is before the line and column at the end of such a name, which
// ends with the script.
var v8Place = regexp.MustCompile(`(?s)^(?:JS|LazyCompile|Function|Script|Eval):(.*):[0-9]{1,9}:[0-9]{1,9}$`)

func makeRecord(name []byte, code uint64, table []byte) []byte {
	b := make([]byte, 0, recordFixed+len(name)+len(table))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(name)))
	b = append(b, name...)
	b = binary.LittleEndian.AppendUint64(b, code)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(table)))
	return append(b, table...)
}

// recordAt returns the record at a place in the text of a dump.
func recordAt(text []byte, place uint32) []byte {
	b := text[place:]
	n := 2 + int(binary.LittleEndian.Uint16(b))
	return b[:n+12+int(binary.LittleEndian.Uint32(b[n+8:]))]
}

func splitRecord(b []byte) (name []byte, code uint64, table []byte) {
	n := 2 + int(binary.LittleEndian.Uint16(b))
	return b[2:n], binary.LittleEndian.Uint64(b[n:]), b[n+12:]
}

// debugInfo is what a dump told of code that is to be loaded.
type debugInfo struct {
	n    int    // lines
	text []byte // the lines, as in the dump, and up to 7 bytes more
}

// packLines makes the table of a function out of what was told of it; nil if that
// does not fit the function.
func packLines(info debugInfo, code, size uint64, name []byte) []byte {
	lines, ok := splitLines(info, code)
	if ok = ok && inCode(lines, size, name); !ok {
		if lines, ok = splitFreed(info, code, name); !ok || !inCode(lines, size, name) {
			return nil
		}
	}
	var table []byte
	var last tableLine
	for i, l := range lines {
		table = binary.AppendVarint(table, l.off-last.off)
		table = binary.AppendVarint(table, l.line-last.line)
		if i > 0 && bytes.Equal(l.file, last.file) {
			table = append(table, 0)
		} else {
			table = binary.AppendUvarint(table, uint64(len(l.file))+1)
			table = append(table, l.file...)
		}
		if last = l; len(table) > maxLines {
			return nil
		}
	}
	return table
}

// splitLines splits lines whose files end in a zero. "\xff" stands for the file
// before.
func splitLines(info debugInfo, code uint64) (lines []tableLine, ok bool) {
	b := info.text
	for i := range info.n {
		if len(b) <= debugEntry {
			return nil, false
		}
		file, rest, found := bytes.Cut(b[debugEntry:], []byte{0})
		if !found || len(file) > maxFileName {
			return nil, false
		}
		if len(file) == 1 && file[0] == 0xff {
			if i == 0 {
				return nil, false
			}
			file = lines[i-1].file
		}
		lines = append(lines, newTableLine(b, code, file))
		b = rest
	}
	return lines, len(b) < 8
}

// splitFreed splits lines of V8, which writes the file of a line out of memory it
// has freed: the length and what is behind the 16 bytes that the allocator keeps its
// own things in still are those of the script, which is in the function's name too.
func splitFreed(info debugInfo, code uint64, name []byte) (lines []tableLine, ok bool) {
	const overwritten = 16
	script := v8Place.FindSubmatch(name)
	if script == nil || info.n == 0 {
		return nil, false
	}
	for stride := len(info.text) / info.n; stride > debugEntry+1 && stride*info.n+8 > len(info.text); stride-- {
		n := stride - debugEntry - 1
		at := len(script[1]) - n
		if at < 1 || script[1][at-1] != ' ' {
			continue
		}
		file := script[1][at:]
		for i := range info.n {
			b := info.text[i*stride : (i+1)*stride]
			if b[stride-1] != 0 || n > overwritten && !bytes.Equal(b[debugEntry+overwritten:stride-1], file[overwritten:]) {
				return nil, false
			}
			lines = append(lines, newTableLine(b, code, file))
		}
		return lines, true
	}
	return nil, false
}

func newTableLine(b []byte, code uint64, file []byte) tableLine {
	return tableLine{
		off:  int64(binary.NativeEndian.Uint64(b) - code),
		line: int64(binary.NativeEndian.Uint32(b[8:])),
		file: file,
	}
}

// inCode reports whether all lines are in the code of a function, and makes the
// addresses those of the code.
func inCode(lines []tableLine, size uint64, name []byte) bool {
	low, high := int64(math.MaxInt64), int64(math.MinInt64)
	for _, l := range lines {
		low, high = min(low, l.off), max(high, l.off)
		if l.line > math.MaxInt32 {
			return false
		}
	}
	shift := int64(0)
	if v8Name.Match(name) && low >= v8Shift {
		shift = v8Shift
	}
	if len(lines) == 0 || low < 0 || high-shift > int64(size) {
		return false
	}
	for i := range lines {
		lines[i].off -= shift
	}
	return true
}

// tableLine is one line of a table.
type tableLine struct {
	off  int64 // of the code
	line int64
	file []byte
}

// eachLine goes through a table made by packLines.
func eachLine(table []byte, yield func(tableLine)) {
	var l tableLine
	for len(table) > 0 {
		off, n := binary.Varint(table)
		line, m := binary.Varint(table[n:])
		size, k := binary.Uvarint(table[n+m:])
		table = table[n+m+k:]
		if size > 0 {
			l.file, table = table[:size-1], table[size-1:]
		}
		l.off += off
		l.line += line
		yield(l)
	}
}

// lineAt returns the line of the entry closest before off, the last of those that
// tell of one place.
func lineAt(table []byte, off int64) (file string, line uint32) {
	best := tableLine{off: -1}
	eachLine(table, func(l tableLine) {
		if l.off <= off && l.off >= best.off {
			best = l
		}
	})
	if best.off < 0 {
		return "", 0
	}
	return string(best.file), uint32(best.line)
}

// pendingLines holds the lines of code that is not loaded yet, by its address.
type pendingLines struct {
	infos map[uint64]debugInfo
	bytes int
}

const pendingCost = 100 // bytes of an entry, besides the text

// keep remembers lines for the code to be loaded at an address.
func (p *perfMap) keep(code uint64, info debugInfo) {
	q := &p.pending
	if q.infos == nil || q.bytes+len(info.text)+pendingCost > maxPending {
		*q = pendingLines{infos: make(map[uint64]debugInfo)}
	}
	q.drop(code)
	q.bytes += len(info.text) + pendingCost
	q.infos[code] = info
}

func (q *pendingLines) drop(code uint64) {
	if old, ok := q.infos[code]; ok {
		q.bytes -= len(old.text) + pendingCost
		delete(q.infos, code)
	}
}

// take returns the table for code that is loaded, nil if there is none.
func (p *perfMap) take(code, size uint64, name []byte) []byte {
	info, ok := p.pending.infos[code]
	if !ok {
		return nil
	}
	p.pending.drop(code)
	return packLines(info, code, size, name)
}

// entryOf returns the entry of the function that was loaded at an address.
func (p *perfMap) entryOf(code uint64) (entry, bool) {
	i, ok := p.index(code)
	if !ok {
		return entry{}, false
	}
	_, at, _ := splitRecord(recordAt(p.text, p.entries[i].name))
	return p.entries[i], at == code
}
