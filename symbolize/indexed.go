// SPDX-License-Identifier: Apache-2.0

package symbolize

import (
	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/symbolize/index"
)

// Index has what debugging information says of the code of a file.
type Index interface {
	// Lookup appends to lines what code at addr is, as index.Index has it.
	Lookup(addr stack.LinkAddr, lines []index.Line) ([]index.Line, error)
}

// indexLines returns what the index of b says.
func (s *Symbolizer) indexLines(b *Binary, bin *binary, addr stack.LinkAddr) ([]Line, error) {
	in, err := b.Index.Lookup(addr, nil)
	if err != nil || len(in) == 0 {
		return nil, err
	}
	out := make([]Line, len(in))
	for i, l := range in {
		named := Line{Name: "??", SystemName: "??"}
		if l.Name != "" {
			named = s.symbolLine(bin, l.Name)
		}
		out[i] = Line{
			Name: s.intern(named.Name), SystemName: s.intern(named.SystemName), File: s.intern(l.File),
			Line: int64(l.Line), StartLine: int64(l.StartLine),
		}
	}
	return out, nil
}
