// SPDX-License-Identifier: Apache-2.0

package file

import (
	"bufio"
	"encoding/json"

	"github.com/google/pprof/profile"

	"github.com/lowflame/lowflame/pprofexport"
)

// The types below are those of speedscope's file-format-spec.ts.

type speedscopeFile struct {
	Schema             string              `json:"$schema"`
	Name               string              `json:"name,omitempty"`
	Exporter           string              `json:"exporter"`
	ActiveProfileIndex int                 `json:"activeProfileIndex"`
	Shared             speedscopeShared    `json:"shared"`
	Profiles           []speedscopeProfile `json:"profiles"`
}

type speedscopeShared struct {
	Frames []speedscopeFrame `json:"frames"`
}

type speedscopeFrame struct {
	Name string `json:"name"`
	File string `json:"file,omitempty"`
	Line int64  `json:"line,omitempty"`
}

type speedscopeProfile struct {
	Type       string  `json:"type"`
	Name       string  `json:"name"`
	Unit       string  `json:"unit"`
	StartValue int64   `json:"startValue"`
	EndValue   int64   `json:"endValue"`
	Samples    [][]int `json:"samples"`
	Weights    []int64 `json:"weights"`
}

// speedscope writes p as one profile of type "sampled". A frame's line is
// where its function begins, since speedscope takes each frame for a function.
func speedscope(w *bufio.Writer, p *profile.Profile, o Options) error {
	s := newStacks(p, o.Root)
	name := pprofexport.Clean(o.Title)
	if name == "" {
		name = "CPU profile"
	}
	out := speedscopeProfile{
		Type: "sampled", Name: name, Unit: speedscopeUnit(unitOf(p, s)), Samples: [][]int{}, Weights: []int64{},
	}
	for _, sample := range p.Sample {
		n, _ := s.weight(sample)
		if n == 0 {
			continue
		}
		out.Samples = append(out.Samples, s.of([]int{}, sample))
		out.Weights = append(out.Weights, n)
		out.EndValue += n
	}
	frames := make([]speedscopeFrame, len(s.frames))
	for i, f := range s.frames {
		frames[i] = speedscopeFrame{Name: f.name, File: f.file}
		if f.file != "" {
			frames[i].Line = f.startLine
		}
	}
	exporter := "lowflame"
	if v := pprofexport.Comment(p, "lowflame"); v != "" {
		exporter += " " + v
	}
	return json.NewEncoder(w).Encode(speedscopeFile{
		Schema:   "https://www.speedscope.app/file-format-schema.json",
		Name:     name,
		Exporter: exporter,
		Shared:   speedscopeShared{frames},
		Profiles: []speedscopeProfile{out},
	})
}

func unitOf(p *profile.Profile, s *stacks) string {
	if s.value < 0 {
		return ""
	}
	return p.SampleType[s.value].Unit
}

// speedscopeUnit returns unit if speedscope knows it.
func speedscopeUnit(unit string) string {
	switch unit {
	case "nanoseconds", "microseconds", "milliseconds", "seconds", "bytes":
		return unit
	}
	return "none"
}
