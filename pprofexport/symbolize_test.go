// SPDX-License-Identifier: Apache-2.0

package pprofexport

import (
	"testing"

	"github.com/google/pprof/profile"

	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/symbolize"
)

// late is a profile of two mappings: of one location nothing is known, of one the name,
// of one all.
func late() *profile.Profile {
	known := &profile.Function{ID: 7, Name: "known", SystemName: "known", Filename: "known.c"}
	named := &profile.Function{ID: 9, Name: "old", SystemName: "old"}
	m := &profile.Mapping{ID: 1, Start: 0x401000, Limit: 0x402000, Offset: 0x1000, File: "/bin/one", BuildID: "abcd"}
	other := &profile.Mapping{ID: 2, Start: 0x1000, Limit: 0x2000, File: "/bin/other", BuildID: "ef01"}
	locations := []*profile.Location{
		{ID: 1, Mapping: m, Address: 0x401010},
		{ID: 2, Mapping: m, Address: 0x401020, Line: []profile.Line{{Function: named}}},
		{ID: 3, Mapping: m, Address: 0x401030, Line: []profile.Line{{Function: known, Line: 3}}},
		{ID: 4, Mapping: other, Address: 0x1010},
		{ID: 5, Mapping: m, Address: 0x400000}, // before its mapping
	}
	return &profile.Profile{
		SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}},
		Sample:     []*profile.Sample{{Location: locations, Value: []int64{1}}},
		Mapping:    []*profile.Mapping{m, other}, Location: locations, Function: []*profile.Function{known, named},
	}
}

func TestSymbolize(t *testing.T) {
	for _, force := range []bool{false, true} {
		p := late()
		var offs []stack.FileOff
		done := -1
		err := Symbolize(p, force, func(m Mapping, all int) (Lookup, func(int)) {
			if m.BuildID != "abcd" {
				return nil, nil
			}
			return func(off stack.FileOff) []symbolize.Line {
				offs = append(offs, off)
				if off == 0x1020 && !force {
					return nil
				}
				return []symbolize.Line{{Name: "inner", File: "x.h", Line: 5, StartLine: 4}, {Name: "outer", SystemName: "_outer", File: "x.c", Line: 9}}
			}, func(n int) { done = n }
		})
		if err != nil {
			t.Fatal(err)
		}
		wantOffs, wantNamed := 2, 1
		if force {
			wantOffs, wantNamed = 3, 3
		}
		if len(offs) != wantOffs || offs[0] != 0x1010 || done != wantNamed {
			t.Errorf("force %v: looked up %#x, named %d", force, offs, done)
		}
		l := p.Sample[0].Location
		if len(l[0].Line) != 2 || l[0].Line[0].Function.Name != "inner" || l[0].Line[1].Line != 9 || l[0].Line[1].Function.SystemName != "_outer" {
			t.Errorf("force %v: lines %+v", force, l[0].Line)
		}
		if got := l[1].Line[0].Function.Name; got != map[bool]string{false: "old", true: "inner"}[force] {
			t.Errorf("force %v: what had a name is %s", force, got)
		}
		if got := l[2].Line[0].Function.Name; got != map[bool]string{false: "known", true: "inner"}[force] {
			t.Errorf("force %v: what was known is %s", force, got)
		}
		if len(l[3].Line) != 0 || len(l[4].Line) != 0 {
			t.Errorf("force %v: named what it cannot", force)
		}
		if m := p.Mapping[0]; !m.HasFunctions || !m.HasInlineFrames || m.HasFilenames != force {
			t.Errorf("force %v: mapping %+v", force, m)
		}
	}
}
