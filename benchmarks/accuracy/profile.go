// SPDX-License-Identifier: Apache-2.0

package accuracy

import (
	"bytes"
	"debug/elf"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/google/pprof/profile"

	"github.com/lowflame/lowflame/pprofexport"
)

// CheckProfile returns what is wrong with p as a profile, a sentence each:
// whatever pprof would reject, and what it would not but readers rely on.
func CheckProfile(p *profile.Profile) []string {
	var problems []string
	add := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if err := p.CheckValid(); err != nil {
		add("profile is not valid: %v", err)
		return problems
	}
	var types []string
	for _, t := range p.SampleType {
		types = append(types, t.Type+"/"+t.Unit)
	}
	if !slices.Equal(types, []string{"samples/count", "cpu/nanoseconds"}) {
		add("sample types are %q, want samples/count and cpu/nanoseconds", types)
		return problems
	}
	if p.Period <= 0 || p.TimeNanos <= 0 || p.DurationNanos <= 0 {
		add("period %d, time %d, duration %d: want all positive", p.Period, p.TimeNanos, p.DurationNanos)
	}
	for _, s := range p.Sample {
		if s.Value[0] <= 0 || s.Value[1] != s.Value[0]*p.Period {
			add("a sample has the values %v with a period of %d", s.Value, p.Period)
			break
		}
	}
	problems = append(problems, checkRoundTrip(p)...)
	problems = append(problems, checkText(p)...)
	for _, m := range p.Mapping {
		problems = append(problems, checkBuildID(m)...)
	}
	return append(problems, checkAddresses(p)...)
}

func checkRoundTrip(p *profile.Profile) []string {
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		return []string{fmt.Sprintf("write profile: %v", err)}
	}
	again, err := profile.Parse(&b)
	if err != nil {
		return []string{fmt.Sprintf("read profile written again: %v", err)}
	}
	if again.String() != p.String() {
		return []string{"the profile changes when written and read again"}
	}
	return nil
}

// checkText finds strings that are no UTF-8: protocol buffers forbid them, and
// strict readers refuse the profile.
func checkText(p *profile.Profile) []string {
	var problems []string
	check := func(what string, values ...string) {
		for _, v := range values {
			if !utf8.ValidString(v) {
				problems = append(problems, fmt.Sprintf("%s %q is not UTF-8", what, v))
			}
		}
	}
	check("comment", p.Comments...)
	for _, m := range p.Mapping {
		check("mapping", m.File, m.BuildID)
	}
	for _, f := range p.Function {
		check("function", f.Name, f.SystemName, f.Filename)
	}
	for _, s := range p.Sample {
		for key, values := range s.Label {
			check("label", key)
			check("value of label "+key, values...)
		}
	}
	slices.Sort(problems)
	return slices.Compact(problems)
}

// checkAddresses finds locations outside their mapping.
func checkAddresses(p *profile.Profile) []string {
	for _, l := range p.Location {
		if m := l.Mapping; m != nil && (l.Address < m.Start || l.Address >= m.Limit) {
			return []string{fmt.Sprintf("address %#x is not in its mapping %#x-%#x of %s", l.Address, m.Start, m.Limit, m.File)}
		}
	}
	return nil
}

// checkBuildID compares the build ID of a mapping with the file's, if there is
// one to read.
func checkBuildID(m *profile.Mapping) []string {
	if !strings.HasPrefix(m.File, "/") || strings.HasPrefix(m.File, "//") {
		return nil
	}
	want, err := gnuBuildID(m.File)
	if err != nil || want == "" || want == m.BuildID {
		return nil
	}
	return []string{fmt.Sprintf("mapping of %s has build ID %q, the file %q", m.File, m.BuildID, want)}
}

// gnuBuildID returns the build ID note of an ELF file in hexadecimal, "" if it
// has none.
func gnuBuildID(path string) (string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return "", fmt.Errorf("read build ID: %w", err)
	}
	defer f.Close()
	s := f.Section(".note.gnu.build-id")
	if s == nil {
		return "", nil
	}
	note, err := s.Data()
	if err != nil || len(note) < 16 {
		return "", fmt.Errorf("read build ID of %s: %d bytes: %w", path, len(note), err)
	}
	return hex.EncodeToString(note[16:]), nil
}

// Accounting is where the fires of the sampling timers went.
type Accounting struct {
	Fired, Samples, Filtered, Dropped int64
	Drops                             map[string]int64 // by reason
}

// ReadAccounting reads the comments "fires" and "drops" of p.
func ReadAccounting(p *profile.Profile) Accounting {
	fires := pprofexport.Counts(p, "fires")
	return Accounting{
		Fired: fires["fired"], Samples: fires["samples"], Filtered: fires["filtered"], Dropped: fires["dropped"],
		Drops: pprofexport.Counts(p, "drops"),
	}
}

// Check returns what does not add up, a sentence each.
func (a Accounting) Check(p *profile.Profile) []string {
	var problems []string
	if got := a.Samples + a.Filtered + a.Dropped; got != a.Fired || a.Fired == 0 {
		problems = append(problems, fmt.Sprintf("timers fired %d times, %d samples + %d filtered + %d dropped are %d",
			a.Fired, a.Samples, a.Filtered, a.Dropped, got))
	}
	var reasons int64
	for _, n := range a.Drops {
		reasons += n
	}
	if reasons != a.Dropped {
		problems = append(problems, fmt.Sprintf("%d dropped, %d by reason", a.Dropped, reasons))
	}
	rec := FromProfile(p, 0)
	if n := rec.Total(); n != a.Samples {
		problems = append(problems, fmt.Sprintf("the profile has %d samples and says %d", n, a.Samples))
	}
	return problems
}
