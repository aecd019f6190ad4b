// SPDX-License-Identifier: Apache-2.0

package dwarf

import (
	"errors"
	"sort"

	"github.com/lowflame/lowflame/objfile"
)

const (
	// maxUnits bounds the list of units that references across units need.
	maxUnits = 1 << 20
	// maxContexts bounds the units remembered for references into them.
	maxContexts = 256
	// maxName is the longest name that is read.
	maxName = objfile.MaxName
)

// file is the debug sections of one ELF file: of the file itself, of a package
// file, of a .dwo, or of a dwz supplement.
type file struct {
	info, abbrev, str, lineStr, strOffsets section
	addr, ranges, rnglists, line           section

	others   []section // more of .debug_info.dwo
	alt      *file     // the supplement, nil if none
	dwo      bool
	strings  *interned
	abbrevs  abbrevCache
	units    []uint64         // offsets of units, ascending
	listed   bool             // units is made
	contexts map[uint64]*unit // by offset
}

// openFile opens the sections of o; of a .dwo or package file those with that ending.
func openFile(o *objfile.Object, dwo bool, c *Config) (f *file, err error) {
	f = &file{dwo: dwo, strings: newInterned()}
	ending := ""
	if dwo {
		ending = ".dwo"
	}
	for _, s := range []struct {
		to   *section
		name string
	}{
		{&f.info, "info"}, {&f.abbrev, "abbrev"}, {&f.str, "str"}, {&f.lineStr, "line_str"},
		{&f.strOffsets, "str_offsets"}, {&f.addr, "addr"}, {&f.ranges, "ranges"},
		{&f.rnglists, "rnglists"}, {&f.line, "line"},
	} {
		if *s.to, err = openSection(o, s.name+ending, c); err != nil {
			return nil, errors.Join(err, f.close())
		}
	}
	if dwo {
		if err := f.openOthers(o, c); err != nil {
			return nil, errors.Join(err, f.close())
		}
	}
	return f, nil
}

// openOthers opens all sections .debug_info.dwo but the first. A .dwo file is not
// linked: each type unit of DWARF 5 has its own.
func (f *file) openOthers(o *objfile.Object, c *Config) error {
	first := true
	for _, s := range o.Sections {
		if s.Name != ".debug_info.dwo" {
			continue
		}
		if first {
			first = false
			continue
		}
		info, err := openHeader(o, s, c)
		if err != nil {
			return err
		}
		f.others = append(f.others, info)
	}
	return nil
}

func (f *file) close() error {
	if f == nil {
		return nil
	}
	var errs []error
	for i := range f.others {
		errs = append(errs, f.others[i].close())
	}
	for _, s := range []*section{&f.info, &f.abbrev, &f.str, &f.lineStr, &f.strOffsets, &f.addr, &f.ranges, &f.rnglists, &f.line} {
		errs = append(errs, s.close())
	}
	return errors.Join(errs...)
}

// list makes the list of units.
func (f *file) list() error {
	if f.listed {
		return nil
	}
	f.listed = true
	units := make([]uint64, 0, 64)
	for off := uint64(0); off < f.info.size; {
		var b [maxHeader]byte
		raw, err := f.info.copyAt(b[:0], off, maxHeader)
		if err != nil {
			return err
		}
		h, err := parseHeader(raw, off, f.info.size)
		if h.end <= off || len(units) == maxUnits {
			break // what was found serves
		}
		if err == nil {
			units = append(units, off)
		}
		off = h.end
	}
	f.units = units
	return nil
}

// unitAt returns the unit that holds the entry at off of .debug_info. The unit has
// no bytes; entries are read one at a time.
func (f *file) unitAt(off uint64) (*unit, error) {
	if err := f.list(); err != nil {
		return nil, err
	}
	i := sort.Search(len(f.units), func(i int) bool { return f.units[i] > off }) - 1
	if i < 0 {
		return nil, errMalformed
	}
	at := f.units[i]
	u, ok := f.contexts[at]
	if !ok {
		var err error
		if u, err = f.context(at); err != nil {
			return nil, err
		}
		if f.contexts == nil || len(f.contexts) >= maxContexts {
			f.contexts = make(map[uint64]*unit)
		}
		f.contexts[at] = u
	}
	if off < at+uint64(u.first) || off >= u.end {
		return nil, errMalformed
	}
	return u, nil
}

func (f *file) context(at uint64) (*unit, error) {
	var b [maxHeader]byte
	raw, err := f.info.copyAt(b[:0], at, maxHeader)
	if err != nil {
		return nil, err
	}
	h, err := parseHeader(raw, at, f.info.size)
	if err != nil {
		return nil, err
	}
	u := &unit{header: h, f: f, addrs: f}
	var d die
	if err := u.entry(at+uint64(h.first), &d); err != nil {
		return nil, err
	}
	u.setBases(&d)
	return u, nil
}

// interned keeps strings by where they lie, up to a number of bytes; then it
// begins anew.
type interned struct {
	m     map[uint64]string
	bytes int
	buf   []byte
}

const (
	maxInterned = 12 << 20
	// internedCost is what an entry costs besides its bytes.
	internedCost = 48
)

func newInterned() *interned { return &interned{m: make(map[uint64]string)} }

// get returns the string at off of s; tag keeps sections apart.
func (n *interned) get(s *section, tag, off uint64) string {
	key := off<<1 | tag
	if v, ok := n.m[key]; ok {
		return v
	}
	if off >= s.size {
		return ""
	}
	var err error
	if n.buf, err = s.random().AppendCString(n.buf[:0], int64(off), maxName); err != nil {
		return ""
	}
	if n.bytes > maxInterned {
		n.m, n.bytes = make(map[uint64]string), 0
	}
	v := string(n.buf)
	n.m[key] = v
	n.bytes += len(v) + internedCost
	return v
}
