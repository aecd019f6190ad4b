// SPDX-License-Identifier: Apache-2.0

package file

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/pprof/profile"
)

type topRow struct {
	name      string
	flat, cum int64
}

// Top writes a table of the n functions with the most time of their own, as go
// tool pprof -top counts it: flat is time in the function itself, cum in it and
// all it called. Frames of the profiler's own are no functions. Lines are at
// most width columns, long names cut; 0 is no limit. n ≤ 0 is all functions.
func Top(w io.Writer, p *profile.Profile, n, width int) error {
	rows, total := topRows(p)
	unit := ""
	if len(p.SampleType) > 0 {
		unit = unitOf(p, newStacks(p, RootNone))
	}
	shown := rows
	if n > 0 && n < len(rows) {
		shown = rows[:n]
	}
	table := [][4]string{{"flat", "flat%", "cum", "cum%"}}
	for _, r := range shown {
		table = append(table, [4]string{
			amount(r.flat, unit), share(r.flat, total), amount(r.cum, unit), share(r.cum, total)})
	}
	var widths [4]int
	for _, row := range table {
		for c, cell := range row {
			widths[c] = max(widths[c], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for i, row := range table {
		name := "name"
		if i > 0 {
			name = shown[i-1].name
		}
		head := fmt.Sprintf("%*s  %*s  %*s  %*s  ", widths[0], row[0], widths[1], row[1], widths[2], row[2], widths[3], row[3])
		if width > 0 {
			name = shorten(name, max(8, width-utf8.RuneCountInString(head)))
		}
		b.WriteString(head + name + "\n")
	}
	if left := len(rows) - len(shown); left > 0 {
		fmt.Fprintf(&b, "… and %d more\n", left)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// topRows returns a row for each name, most flat time first, and the total.
func topRows(p *profile.Profile) (rows []topRow, total int64) {
	s := newStacks(p, RootNone)
	index := make(map[string]int)
	last := make(map[int]int) // row → last sample that counted to cum, from 1
	var stack []int
	for i, sample := range p.Sample {
		value, _ := s.weight(sample)
		total += value
		stack = s.of(stack[:0], sample)
		for at, f := range stack {
			if s.frames[f].kind == kindMarker {
				continue
			}
			r, ok := index[s.frames[f].name]
			if !ok {
				r = len(rows)
				index[s.frames[f].name] = r
				rows = append(rows, topRow{name: s.frames[f].name})
			}
			if last[r] != i+1 { // once, however often it calls itself
				last[r] = i + 1
				rows[r].cum += value
			}
			if at == len(stack)-1 {
				rows[r].flat += value
			}
		}
	}
	slices.SortFunc(rows, func(a, b topRow) int {
		return cmp.Or(cmp.Compare(b.flat, a.flat), cmp.Compare(b.cum, a.cum), cmp.Compare(a.name, b.name))
	})
	return rows, total
}

func share(part, total int64) string {
	if total == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f%%", 100*float64(part)/float64(total))
}

func amount(v int64, unit string) string {
	if unit != "nanoseconds" {
		return fmt.Sprint(v)
	}
	switch d := time.Duration(v); {
	case d == 0:
		return "0"
	case d < time.Second:
		return fmt.Sprintf("%.1fms", float64(d)/1e6)
	case d < time.Minute:
		return fmt.Sprintf("%.2fs", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%.2fmin", d.Minutes())
	default:
		return fmt.Sprintf("%.2fh", d.Hours())
	}
}

// shorten cuts s to width runes; the end of a name says more than its middle.
func shorten(s string, width int) string {
	n := utf8.RuneCountInString(s)
	if n <= width {
		return s
	}
	r := []rune(s)
	tail := (width - 1) / 3
	return string(r[:width-1-tail]) + "…" + string(r[n-tail:])
}
