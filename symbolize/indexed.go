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
		out[i] = Line{Name: "??", SystemName: "??"}
		if l.Name != "" {
			out[i] = s.byName(named{kind: indexName, name: l.Name}, func() Line { return s.symbolLine(bin, l.Name) })[0]
		}
		out[i].File, out[i].Line, out[i].StartLine = s.intern(l.File), int64(l.Line), int64(l.StartLine)
	}
	return out, nil
}
