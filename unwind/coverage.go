// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"errors"

	"github.com/lowflame/lowflame/objfile"
)

// Coverage says how much of the code that has call frame information rules can
// express. All numbers are bytes of code.
type Coverage struct {
	// Code has an entry in .eh_frame, or without that in .debug_frame.
	Code uint64
	// Lost is the part of it whose rows no rule expresses, by the reason. Walks end
	// there with UNSUPPORTED_RULE.
	Lost map[string]uint64
	// Registers is the part whose CFA is relative to another register than stack
	// and frame pointer: only interrupted frames can be walked there.
	Registers uint64
}

// Represent measures the coverage of o's call frame information. It wraps ErrNoCFI
// if there is none; a *CFIError names the first malformed entry, and comes with
// what the rest says.
func Represent(o *objfile.Object) (Coverage, error) {
	c := Coverage{Lost: map[string]uint64{}}
	src, err := openCFI(o)
	if err != nil {
		return c, err
	}
	if src.eh == nil {
		return c, c.section(src, src.debug, ".debug_frame")
	}
	return c, c.section(src, src.eh, ".eh_frame")
}

// BuildCFI is Build from call frame information alone, without what code tells:
// the part of the table that can be compared with .eh_frame and .debug_frame.
func BuildCFI(o *objfile.Object) (*Table, error) {
	src, err := openCFI(o)
	if err != nil {
		return nil, err
	}
	f, err := src.first(gap{})
	return f.table, err
}

// openCFI reads the call frame information of o.
func openCFI(o *objfile.Object) (*sources, error) {
	arch, err := archOf(o)
	if err != nil {
		return nil, err
	}
	src := &sources{arch: arch, segs: executable(o)}
	err = errors.Join(src.openEH(o), src.openDebug(o))
	if src.eh == nil && src.debug == nil {
		return nil, errors.Join(ErrNoCFI, err)
	}
	return src, nil
}

// section adds what a section covers.
func (c *Coverage) section(src *sources, s *section, name string) error {
	m := src.arch.machine()
	if s != nil {
		m.data = s.data
	}
	var covered, registers bool
	var reason string
	last := uint64(0)
	if s == nil {
		return nil
	}
	parser := s.reader(src, name, func(pc uint64, st *frameState) {
		if covered {
			c.add(pc-last, registers, reason)
		}
		covered, last = st != nil, pc
		if covered {
			registers, reason = m.expressible(st)
		}
	})
	parser.run(parseHdr(s.hdr, s.hdrAddr, s.addr))
	if parser.err != nil {
		return parser.err
	}
	return nil
}

// add adds n bytes of code.
func (c *Coverage) add(n uint64, registers bool, lost string) {
	c.Code += n
	if registers {
		c.Registers += n
	}
	if lost != "" {
		c.Lost[lost] += n
	}
}

// expressible says whether the CFA of s is relative to another register than stack
// and frame pointer, and why no rule expresses s, "" if one does.
func (m *machine) expressible(s *frameState) (registers bool, lost string) {
	if _, ok := m.usual(s); ok {
		return false, ""
	}
	r, w := m.rare(s, m.data)
	switch {
	case r.Kind() != KindWide:
		return false, ""
	case w.RA == WhereUnknown:
		return false, m.whyLost(s)
	}
	return uint32(w.Reg) != m.spReg && uint32(w.Reg) != m.fpReg, ""
}

// whyLost says why no rule expresses s.
func (m *machine) whyLost(s *frameState) string {
	switch _, ok := parseCFA(s, m.data); {
	case !s.cfaExpr.set() && s.cfaReg == noReg:
		return "no CFA is defined"
	case s.cfaExpr.set() && !ok:
		return "the CFA is an expression of more than one register, an index and one load"
	case !ok:
		return "the CFA's register or offset is out of range"
	}
	switch s.ra.how {
	case placeDefault, placeSame:
		return "the return address has no rule"
	case placeExpr, placeValExpr:
		return "the return address is an expression"
	case placeValCFA:
		return "the return address is relative to the CFA"
	}
	return "the return address is out of range"
}
