// SPDX-License-Identifier: Apache-2.0

package main

import (
	"debug/elf"
	"errors"
	"io/fs"
	"strings"

	"github.com/google/pprof/profile"

	"github.com/lowflame/lowflame/benchmarks/accuracy"
	"github.com/lowflame/lowflame/benchmarks/measure"
)

// completeness returns the percentage of samples with a user stack whose stack is
// complete, and counts the incomplete stacks by the frames next to the gap.
func completeness(p *profile.Profile) (percent float64, truncated map[string]int64) {
	truncated = make(map[string]int64)
	rec := accuracy.FromProfile(p, 0)
	var all, lost int64
	for _, s := range rec.Samples {
		if s.Truncated == "" && s.Frames[0].Kernel {
			continue // a kernel thread
		}
		all += s.Count
		if s.Truncated != "" {
			lost += s.Count
			next := s.Frames[:min(3, len(s.Frames))]
			truncated[s.Comm+": "+accuracy.Format(next)+" in "+next[len(next)-1].Binary] += s.Count
		}
	}
	if all == 0 {
		return 0, truncated
	}
	return 100 * (1 - float64(lost)/float64(all)), truncated
}

// symbols says what names the file of a frame has.
type symbols string

const (
	full     symbols = "with a symbol table"            // .symtab or .gopclntab, the kernel, the vDSO
	dynamic  symbols = "with dynamic symbols only"      // stripped: only exported functions have names
	none     symbols = "without symbols"                // also anonymous memory
	gone     symbols = "in files that are gone"         // cannot tell
	notFound symbols = "whose address is in no mapping" // nothing to look up
)

type named struct{ all, named int64 }

// judgeNames adds lines about the share of frames that have names, by what names
// there are to find.
func judgeNames(report *measure.Report, p *profile.Profile) {
	files := make(map[string]symbols)
	counts := make(map[symbols]*named)
	nameless := make(map[string]int64)
	for _, s := range p.Sample {
		for _, l := range s.Location {
			if madeUp(l) {
				continue
			}
			have := symbolsAt(l, files)
			n := counts[have]
			if n == nil {
				n = new(named)
				counts[have] = n
			}
			n.all += s.Value[0]
			if len(l.Line) > 0 {
				n.named += s.Value[0]
			} else if have == full {
				nameless["in "+l.Mapping.File] += s.Value[0]
			}
		}
	}
	for _, have := range []symbols{full, dynamic, none, gone, notFound} {
		n := counts[have]
		if n == nil {
			continue
		}
		percent := 100 * float64(n.named) / float64(n.all)
		if have == full {
			report.Demand("named, of frames in binaries "+string(full), percent, minNamed, true, "%")
		} else {
			report.Line("%-44s %12.3f %% of %d", "named, of frames "+string(have), percent, n.all)
		}
	}
	report.Line("frames without a name in binaries %s:%s", full, accuracy.Top(nameless, 5))
}

func madeUp(l *profile.Location) bool { return l.Mapping != nil && l.Mapping.File == "[lowflame]" }

// symbolsAt returns what names the file of l has; files is what is known already.
func symbolsAt(l *profile.Location, files map[string]symbols) symbols {
	if l.Mapping == nil {
		return notFound
	}
	path := l.Mapping.File
	if have, ok := files[path]; ok {
		return have
	}
	have := none
	switch {
	case strings.HasPrefix(path, "["):
		have = full // kernel, its modules, vDSO
	case strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "//"):
		have = symbolsOf(path)
	}
	files[path] = have
	return have
}

func symbolsOf(path string) symbols {
	f, err := elf.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return gone
	}
	if err != nil {
		return none
	}
	defer f.Close()
	if f.Section(".gopclntab") != nil || f.Section(".data.rel.ro.gopclntab") != nil || f.Section(".symtab") != nil {
		return full
	}
	if f.Section(".dynsym") != nil {
		return dynamic
	}
	return none
}
