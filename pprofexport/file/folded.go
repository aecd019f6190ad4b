// SPDX-License-Identifier: Apache-2.0

package file

import (
	"bufio"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/google/pprof/profile"
)

// folded writes a line for each stack, sorted, with the number of samples, or
// the value if p has no such number. In names ";" becomes ":", as in perf's
// stackcollapse scripts: the format has no way to quote it.
func folded(w *bufio.Writer, p *profile.Profile, o Options) error {
	s := newStacks(p, o.Root)
	lines := make(map[string]int64)
	var stack []int
	var line []byte
	for _, sample := range p.Sample {
		n, count := s.weight(sample)
		if s.count >= 0 {
			n = count
		}
		if n == 0 {
			continue
		}
		stack, line = s.of(stack[:0], sample), line[:0]
		for _, f := range stack {
			line = append(line, strings.ReplaceAll(s.frames[f].name, ";", ":")...)
			line = append(line, ';')
		}
		if len(line) > 0 {
			lines[string(line[:len(line)-1])] += n
		}
	}
	for _, l := range slices.Sorted(maps.Keys(lines)) {
		if _, err := io.WriteString(w, l+" "+strconv.FormatInt(lines[l], 10)+"\n"); err != nil {
			return err
		}
	}
	return nil
}
