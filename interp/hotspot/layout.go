// SPDX-License-Identifier: Apache-2.0

package hotspot

import (
	"encoding/binary"
	"fmt"
)

// field is where a field of a structure is: its offset, or if static its address.
type field struct {
	at     uint64
	size   int // bytes, 0 if there is no such field
	signed bool
	static bool
}

// get reads the field from a structure in memory; 0 if it is not there.
func (f field) get(b []byte) int64 {
	if f.size == 0 || f.at > uint64(len(b)) || uint64(len(b))-f.at < uint64(f.size) {
		return 0
	}
	b = b[f.at:]
	switch {
	case f.size == 1 && f.signed:
		return int64(int8(b[0]))
	case f.size == 1:
		return int64(b[0])
	case f.size == 2 && f.signed:
		return int64(int16(binary.LittleEndian.Uint16(b)))
	case f.size == 2:
		return int64(binary.LittleEndian.Uint16(b))
	case f.size == 4 && f.signed:
		return int64(int32(binary.LittleEndian.Uint32(b)))
	case f.size == 4:
		return int64(binary.LittleEndian.Uint32(b))
	}
	return int64(binary.LittleEndian.Uint64(b))
}

// fieldType returns size and sign of a C++ type as the virtual machine names it.
func fieldType(name string) (size int, signed bool) {
	switch name {
	case "int", "jint", "int32_t":
		return 4, true
	case "uint32_t", "juint", "unsigned int", "u4":
		return 4, false
	case "int16_t", "short", "jshort":
		return 2, true
	case "u2", "uint16_t":
		return 2, false
	case "u1", "uint8_t", "bool", "jboolean":
		return 1, false
	case "int8_t", "jbyte":
		return 1, true
	}
	return 8, false // pointers, size_t; and structures, of which only the offset counts
}

// layout is what the virtual machine says of its structures.
type layout struct {
	heaps, heap              field // CodeCache: an array of heaps, or before Java 9 one
	arrayLen, arrayData      field
	heapMemory, heapSegmap   field // CodeHeap
	heapShift                field
	low, high                field // VirtualSpace
	blockLength, blockUsed   field
	blockSize                uint64 // of a HeapBlock, before each CodeBlob
	name, size, frame        field  // CodeBlob
	complete                 field
	codeBegin, codeEnd       field // addresses, up to Java 22
	codeOff, dataOff         field // relative to the CodeBlob
	verified, osr            field // nmethod
	verifiedOff, compileID   field
	interpreter              field // AbstractInterpreter
	stubs, queueEnd          field // StubQueue
	codeletSize, description field // InterpreterCodelet
	codeletHeader            uint64
	// blobBytes is how much of a CodeBlob or nmethod to read.
	blobBytes int
}

// fields names the fields: type and name, with what they were called before.
func (l *layout) fields() map[string]*field {
	return map[string]*field{
		"CodeCache::_heaps":                &l.heaps,
		"CodeCache::_heap":                 &l.heap,
		"GrowableArrayBase::_len":          &l.arrayLen,
		"GenericGrowableArray::_len":       &l.arrayLen,
		"GrowableArray<int>::_data":        &l.arrayData,
		"CodeHeap::_memory":                &l.heapMemory,
		"CodeHeap::_segmap":                &l.heapSegmap,
		"CodeHeap::_log2_segment_size":     &l.heapShift,
		"VirtualSpace::_low":               &l.low,
		"VirtualSpace::_high":              &l.high,
		"HeapBlock::Header::_length":       &l.blockLength,
		"HeapBlock::Header::_used":         &l.blockUsed,
		"CodeBlob::_name":                  &l.name,
		"CodeBlob::_size":                  &l.size,
		"CodeBlob::_frame_size":            &l.frame,
		"CodeBlob::_frame_complete_offset": &l.complete,
		"CodeBlob::_code_begin":            &l.codeBegin,
		"CodeBlob::_code_end":              &l.codeEnd,
		"CodeBlob::_code_offset":           &l.codeOff,
		"CodeBlob::_data_offset":           &l.dataOff,
		"nmethod::_verified_entry_point":   &l.verified,
		"nmethod::_verified_entry_offset":  &l.verifiedOff,
		"nmethod::_osr_entry_point":        &l.osr,
		"nmethod::_compile_id":             &l.compileID,
		"AbstractInterpreter::_code":       &l.interpreter,
		"StubQueue::_stub_buffer":          &l.stubs,
		"StubQueue::_queue_end":            &l.queueEnd,
		"InterpreterCodelet::_size":        &l.codeletSize,
		"InterpreterCodelet::_description": &l.description,
	}
}

const (
	// maxEntries bounds the tables of fields and of types; there are a thousand.
	maxEntries = 1 << 14
	// maxBlobHeader bounds any structure, the largest being an nmethod without its
	// code: 352 bytes.
	maxBlobHeader = 1 << 10
)

// readLayout reads the layout that begins at the symbols, of which bias is added to
// the addresses.
func readLayout(m *memory, symbols Symbols, bias uint64) (*layout, error) {
	l := &layout{}
	if err := l.readFields(m, symbols, bias); err != nil {
		return nil, err
	}
	if err := l.readTypes(m, symbols, bias); err != nil {
		return nil, err
	}
	return l, l.check()
}

// table is one of the virtual machine's tables: entries of stride bytes.
type table struct {
	at, stride uint64
	offsets    []uint64 // of the columns
}

// openTable reads where a table is.
func openTable(m *memory, symbols Symbols, bias uint64, array, stride string, columns ...string) (table, error) {
	var t table
	for i, name := range append([]string{array, stride}, columns...) {
		v, err := m.word(symbols[name] + bias)
		switch {
		case err != nil:
			return t, fmt.Errorf("read %s: %w", name, err)
		case i == 0:
			t.at = v
		case i == 1:
			t.stride = v
		default:
			t.offsets = append(t.offsets, v)
		}
	}
	if t.at == 0 || t.stride < 16 || t.stride > 256 {
		return t, fmt.Errorf("%s at %#x with entries of %d bytes: %w", array, t.at, t.stride, ErrUnknownLayout)
	}
	for _, off := range t.offsets {
		if off > t.stride-4 {
			return t, fmt.Errorf("%s has a column at %d: %w", array, off, ErrUnknownLayout)
		}
	}
	return t, nil
}

// each calls use with each entry, up to one whose first column is 0.
func (t *table) each(m *memory, use func(columns []uint64) error) error {
	columns := make([]uint64, len(t.offsets))
	entry := make([]byte, t.stride+8)
	for i := range uint64(maxEntries) {
		if err := m.read(entry[:t.stride], t.at+i*t.stride); err != nil {
			return err
		}
		for c, off := range t.offsets {
			columns[c] = binary.LittleEndian.Uint64(entry[off:])
		}
		if columns[0] == 0 {
			return nil
		}
		if err := use(columns); err != nil {
			return err
		}
	}
	return fmt.Errorf("a table of more than %d entries: %w", maxEntries, ErrUnknownLayout)
}

func (l *layout) readFields(m *memory, symbols Symbols, bias uint64) error {
	const prefix = "gHotSpotVMStructEntry"
	t, err := openTable(m, symbols, bias, "gHotSpotVMStructs", prefix+"ArrayStride",
		prefix+"TypeNameOffset", prefix+"FieldNameOffset", prefix+"TypeStringOffset",
		prefix+"IsStaticOffset", prefix+"OffsetOffset", prefix+"AddressOffset")
	if err != nil {
		return err
	}
	fields, names := l.fields(), newNames(m)
	return t.each(m, func(c []uint64) error {
		f := fields[names.get(c[0])+"::"+names.get(c[1])]
		if f == nil {
			return nil
		}
		f.size, f.signed = fieldType(names.get(c[2]))
		f.at = c[4]
		if uint32(c[3]) != 0 {
			f.static, f.at = true, c[5]
		}
		return nil
	})
}

func (l *layout) readTypes(m *memory, symbols Symbols, bias uint64) error {
	const prefix = "gHotSpotVMTypeEntry"
	t, err := openTable(m, symbols, bias, "gHotSpotVMTypes", prefix+"ArrayStride", prefix+"TypeNameOffset", prefix+"SizeOffset")
	if err != nil {
		return err
	}
	names := newNames(m)
	return t.each(m, func(c []uint64) error {
		switch names.get(c[0]) {
		case "HeapBlock":
			l.blockSize = c[1]
		case "InterpreterCodelet":
			l.codeletHeader = c[1]
		}
		return nil
	})
}

// check reports whether all that is needed was found, and makes sense.
func (l *layout) check() error {
	need := map[string]field{
		"CodeHeap::_memory": l.heapMemory, "CodeHeap::_segmap": l.heapSegmap,
		"CodeHeap::_log2_segment_size": l.heapShift, "VirtualSpace::_low": l.low, "VirtualSpace::_high": l.high,
		"HeapBlock::Header::_length": l.blockLength, "HeapBlock::Header::_used": l.blockUsed,
		"CodeBlob::_name": l.name, "CodeBlob::_size": l.size, "CodeBlob::_frame_size": l.frame,
		"CodeBlob::_frame_complete_offset": l.complete,
	}
	for name, f := range need {
		if f.size == 0 {
			return fmt.Errorf("field %s: %w", name, ErrUnknownLayout)
		}
	}
	if err := l.checkOffsets(); err != nil {
		return err
	}
	switch {
	case l.heaps.static && l.arrayLen.size != 0 && l.arrayData.size != 0, l.heap.static:
	default:
		return fmt.Errorf("field CodeCache::_heaps: %w", ErrUnknownLayout)
	}
	if (l.codeBegin.size == 0 || l.codeEnd.size == 0) && (l.codeOff.size == 0 || l.dataOff.size == 0) {
		return fmt.Errorf("field CodeBlob::_code_begin: %w", ErrUnknownLayout)
	}
	if l.blockSize == 0 || l.blockSize > 64 {
		return fmt.Errorf("HeapBlock of %d bytes: %w", l.blockSize, ErrUnknownLayout)
	}
	for _, f := range []field{l.name, l.size, l.frame, l.complete, l.codeBegin, l.codeEnd, l.codeOff, l.dataOff, l.verified, l.verifiedOff, l.osr, l.compileID} {
		l.blobBytes = max(l.blobBytes, int(f.at)+f.size)
	}
	return nil
}

// checkOffsets reports whether what is to be an offset is one, within the largest
// structure: sums of three do not overflow, and all that is read at once fits a page.
func (l *layout) checkOffsets() error {
	for name, f := range l.fields() {
		address := f == &l.heaps || f == &l.heap || f == &l.interpreter
		if f.static && !address || !f.static && f.at > maxBlobHeader-8 {
			return fmt.Errorf("field %s at %#x: %w", name, f.at, ErrUnknownLayout)
		}
	}
	return nil
}

// names reads the names of a table, of which many are the same.
type names struct {
	m     *memory
	known map[uint64]string
}

func newNames(m *memory) *names { return &names{m: m, known: map[uint64]string{}} }

// get returns the name at addr, empty if it cannot be read.
func (n *names) get(addr uint64) string {
	if s, ok := n.known[addr]; ok {
		return s
	}
	s, err := n.m.name(addr)
	if err != nil {
		s = ""
	}
	if len(n.known) < 4*maxEntries {
		n.known[addr] = s
	}
	return s
}
