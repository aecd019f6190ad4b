// SPDX-License-Identifier: Apache-2.0

package dwarf

import (
	"errors"

	"github.com/lowflame/lowflame/internal/hostile"
)

// Tags that matter, DWARF 5 §7.5.3.
const (
	tagClassType         = 0x02
	tagLexicalBlock      = 0x0b
	tagCompileUnit       = 0x11
	tagStructureType     = 0x13
	tagUnionType         = 0x17
	tagInlinedSubroutine = 0x1d
	tagModule            = 0x1e
	tagWithStmt          = 0x22
	tagCatchBlock        = 0x25
	tagSubprogram        = 0x2e
	tagTryBlock          = 0x32
	tagVariantPart       = 0x33
	tagInterfaceType     = 0x38
	tagNamespace         = 0x39
	tagPartialUnit       = 0x3c
	tagTypeUnit          = 0x41
	tagSkeletonUnit      = 0x4a
)

// What is done with an entry.
const (
	doSkip = iota // it and what is below it hold no code
	doPass        // what is below it may
	doType        // as doPass, where the language has functions in types
	doFunction
	doInline
	doUnit
)

// Attributes that are used have a slot in die; slot 0 is for those that are not.
const (
	_ = iota
	slotSibling
	slotName
	slotLinkage
	slotLow
	slotHigh
	slotRanges
	slotOrigin
	slotSpecification
	slotDeclFile
	slotDeclLine
	slotCallFile
	slotCallLine
	slotDeclaration
	// Of units only:
	slotStmtList
	slotCompDir
	slotLanguage
	slotStrOffsetsBase
	slotAddrBase
	slotRnglistsBase
	slotGNURangesBase
	slotDWOName
	slotDWOID
	slots
)

// slotOf returns the slot of an attribute, DWARF 5 §7.5.4.
func slotOf(attr uint64) uint8 {
	switch attr {
	case 0x01:
		return slotSibling
	case 0x03:
		return slotName
	case 0x6e, 0x2007: // DW_AT_linkage_name, DW_AT_MIPS_linkage_name
		return slotLinkage
	case 0x11:
		return slotLow
	case 0x12:
		return slotHigh
	case 0x55:
		return slotRanges
	case 0x31:
		return slotOrigin
	case 0x47:
		return slotSpecification
	case 0x3a:
		return slotDeclFile
	case 0x3b:
		return slotDeclLine
	case 0x58:
		return slotCallFile
	case 0x59:
		return slotCallLine
	case 0x3c:
		return slotDeclaration
	}
	return 0
}

// unitSlotOf is slotOf for the first entry of a unit.
func unitSlotOf(attr uint64) uint8 {
	switch attr {
	case 0x10:
		return slotStmtList
	case 0x1b:
		return slotCompDir
	case 0x13:
		return slotLanguage
	case 0x72:
		return slotStrOffsetsBase
	case 0x73, 0x2133: // DW_AT_addr_base, DW_AT_GNU_addr_base
		return slotAddrBase
	case 0x74:
		return slotRnglistsBase
	case 0x2132: // DW_AT_GNU_ranges_base
		return slotGNURangesBase
	case 0x76, 0x2130: // DW_AT_dwo_name, DW_AT_GNU_dwo_name
		return slotDWOName
	case 0x2131: // DW_AT_GNU_dwo_id
		return slotDWOID
	}
	return slotOf(attr)
}

func actionOf(tag uint64) uint8 {
	switch tag {
	case tagSubprogram:
		return doFunction
	case tagInlinedSubroutine:
		return doInline
	case tagLexicalBlock, tagModule, tagWithStmt, tagCatchBlock, tagTryBlock, tagNamespace:
		return doPass
	case tagClassType, tagStructureType, tagUnionType, tagInterfaceType, tagVariantPart:
		return doType
	case tagCompileUnit, tagPartialUnit, tagTypeUnit, tagSkeletonUnit:
		return doUnit
	}
	return doSkip
}

// abbrev is a compiled abbreviation. Its ops are table.ops[first:last].
type abbrev struct {
	first, last uint32
	fixed       int32 // size of the entry if that is all to know of it, else -1
	tag         uint16
	action      uint8
	children    bool
}

// table is an abbreviation table. Codes are nearly always 1, 2, 3, …
type table struct {
	dense  []abbrev          // by code; code 0 and gaps have action 0 and tag 0
	sparse map[uint64]abbrev // the others
	ops    []op
}

func (t *table) get(code uint64) *abbrev {
	if code < uint64(len(t.dense)) {
		return &t.dense[code]
	}
	if a, ok := t.sparse[code]; ok {
		return &a
	}
	return nil
}

// tableKey is what a compiled table depends on.
type tableKey struct {
	off     uint64
	version uint16 // 2 or more
	offSize uint8
}

const (
	// maxTables are kept; units that follow one another often share one.
	maxTables = 16
	// maxOps is how many operations those may have together.
	maxOps = 512 << 10
	// maxAbbrevs is the most bytes of .debug_abbrev that one table may take.
	maxAbbrevs = 1 << 20
	// abbrevChunk is how much is read at first.
	abbrevChunk = 16 << 10
)

// abbrevCache is the tables in use last, newest first.
type abbrevCache struct {
	keys   []tableKey
	tables []*table
	parsed uint64 // bytes, of all tables that were ever read
}

// get returns the table for a unit.
func (c *abbrevCache) get(s *section, h *header) (*table, error) {
	key := tableKey{h.abbrev, min(h.version, 3), h.offSize}
	for i, k := range c.keys {
		if k == key {
			t := c.tables[i]
			copy(c.keys[1:i+1], c.keys[:i])
			copy(c.tables[1:i+1], c.tables[:i])
			c.keys[0], c.tables[0] = key, t
			return t, nil
		}
	}
	// Units of hostile files each have a table that begins a byte behind another's.
	if c.parsed/64 > s.size+1<<18 {
		return nil, errTooMuch
	}
	t, err := c.readTable(s, h)
	if err != nil {
		return nil, err
	}
	ops := len(t.ops)
	for i, kept := range c.tables {
		if ops += len(kept.ops); ops > maxOps {
			clear(c.tables[i:])
			c.keys, c.tables = c.keys[:i], c.tables[:i]
			break
		}
	}
	if len(c.keys) < maxTables {
		c.keys, c.tables = append(c.keys, key), append(c.tables, nil)
	}
	copy(c.keys[1:], c.keys)
	copy(c.tables[1:], c.tables)
	c.keys[0], c.tables[0] = key, t
	return t, nil
}

func (c *abbrevCache) readTable(s *section, h *header) (*table, error) {
	for n := uint64(abbrevChunk); ; n *= 4 {
		b, err := s.view(h.abbrev, n)
		if err != nil {
			return nil, err
		}
		t, size, err := parseTable(b, h.version, h.offSize)
		c.parsed += uint64(size)
		// What was cut off may be whole with more bytes.
		if !errors.Is(err, errShort) || h.abbrev+uint64(len(b)) >= s.size || n >= maxAbbrevs {
			return t, err
		}
	}
}

// errShort is errMalformed for data that end too early.
var errShort = errors.Join(errMalformed, hostile.ErrShort)

// parseTable parses an abbreviation table, DWARF 5 §7.5.3. Its end is a zero code or,
// in hostile files, something senseless. size is how many bytes were looked at.
func parseTable(b []byte, version uint16, offSize uint8) (t *table, size int, err error) {
	t = &table{dense: make([]abbrev, 1, 64)}
	c := hostile.NewCursor(b)
	for {
		code := c.Uleb()
		if code == 0 {
			break
		}
		tag := c.Uleb()
		a := abbrev{first: uint32(len(t.ops)), tag: uint16(tag), action: actionOf(tag)}
		a.children = c.Uint8() != 0
		if err := t.parseAttributes(&c, &a, version, offSize); err != nil {
			return nil, c.Off(), err
		}
		switch {
		case code == uint64(len(t.dense)):
			t.dense = append(t.dense, a)
		case code < uint64(len(t.dense)):
			return nil, c.Off(), errMalformed
		default:
			if t.sparse == nil {
				t.sparse = make(map[uint64]abbrev)
			}
			t.sparse[code] = a
		}
	}
	if !c.OK() {
		return nil, len(b), errShort
	}
	return t, c.Off(), nil
}

func (t *table) parseAttributes(c *hostile.Cursor, a *abbrev, version uint16, offSize uint8) error {
	mergeable := false // the last op skips bytes of this entry
	for {
		attr, form := c.Uleb(), c.Uleb()
		if attr == 0 && form == 0 {
			break
		}
		o, ok := compile(form, version, offSize)
		if !ok {
			return errMalformed
		}
		if form == formImplicitConst {
			// Lines and files are all that is used of them.
			o.n = uint32(min(uint64(c.Sleb()), 1<<32-1))
		}
		o.slot = a.slot(attr)
		switch {
		case o.slot == 0 && o.lay == layImplicit:
			continue
		case o.slot == 0 && o.lay == layFixed && mergeable:
			t.ops[len(t.ops)-1].n += o.n
			continue
		}
		mergeable = o.slot == 0 && o.lay == layFixed
		t.ops = append(t.ops, o)
	}
	if !c.OK() {
		return errShort
	}
	a.last = uint32(len(t.ops))
	a.fixed = -1
	switch {
	case a.first == a.last:
		a.fixed = 0
	case a.last == a.first+1 && mergeable:
		a.fixed = int32(t.ops[a.first].n)
	}
	return nil
}

// slot returns where an attribute of an entry goes.
func (a *abbrev) slot(attr uint64) uint8 {
	switch a.action {
	case doFunction, doInline:
		return slotOf(attr)
	case doUnit:
		return unitSlotOf(attr)
	}
	if attr == 0x01 && a.children {
		return slotSibling
	}
	return 0
}
