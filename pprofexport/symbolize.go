// SPDX-License-Identifier: Apache-2.0

package pprofexport

import (
	"fmt"

	"github.com/google/pprof/profile"

	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/symbolize"
)

// Lookup names the code at an offset of a file, the innermost inlined call first; nil
// if it has no name.
type Lookup func(off stack.FileOff) []symbolize.Line

// Symbolize names the locations of p that have no name or no place, or all with force.
// open is asked for each mapping that has such, and returns nil if it cannot name them;
// done, unless nil, is called with how many of all it named.
func Symbolize(p *profile.Profile, force bool, open func(m Mapping, all int) (l Lookup, done func(named int))) error {
	byMapping := make(map[*profile.Mapping][]*profile.Location)
	for _, l := range p.Location {
		if l.Mapping != nil && l.Address >= l.Mapping.Start && (force || lacks(l)) {
			byMapping[l.Mapping] = append(byMapping[l.Mapping], l)
		}
	}
	names := functions{p: p, byKey: make(map[profileFunction]*profile.Function)}
	for _, f := range p.Function {
		names.last = max(names.last, f.ID)
	}
	for _, m := range p.Mapping {
		all := byMapping[m]
		if len(all) == 0 {
			continue
		}
		lookup, done := open(Mapping{Begin: m.Start, End: m.Limit, Off: m.Offset, File: m.File, BuildID: m.BuildID}, len(all))
		named := 0
		for _, l := range all {
			if lookup == nil {
				break
			}
			if lines := names.lines(lookup(stack.FileOff(l.Address - m.Start + m.Offset))); len(lines) > 0 {
				l.Line = lines
				named++
			}
		}
		if done != nil {
			done(named)
		}
	}
	setFlags(p)
	*p = *p.Compact()
	if err := p.CheckValid(); err != nil {
		return fmt.Errorf("check profile: %w", err)
	}
	return nil
}

func lacks(l *profile.Location) bool {
	return len(l.Line) == 0 || l.Line[0].Function == nil || l.Line[0].Function.Filename == ""
}
