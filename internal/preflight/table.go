// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// WriteTable writes checks for a person: a line each, then the fixes, then a
// count. With color it marks the states by ANSI colors.
func WriteTable(w io.Writer, checks []Check, color bool) error {
	width := 0
	count := [3]int{}
	for _, c := range checks {
		width = max(width, len(c.Name))
		count[c.State]++
	}
	out := bufio.NewWriter(w)
	for _, c := range checks {
		fmt.Fprintf(out, "%s  %-*s  %s\n", label(c.State, color), width, c.Name, c.Found)
	}
	for i, a := range advise(checks) {
		if i == 0 {
			fmt.Fprintln(out, "\nTo mend:")
		}
		fmt.Fprintf(out, "  %s\n    %s\n", strings.Join(a.names, ", "), a.fix)
	}
	fmt.Fprintf(out, "\n%d ok, %d warnings, %d failures\n", count[OK], count[Warn], count[Fail])
	return out.Flush()
}

func label(s State, color bool) string {
	text := fmt.Sprintf("%-4s", s)
	if !color {
		return text
	}
	return [...]string{"\x1b[32m", "\x1b[33m", "\x1b[1;31m"}[s] + text + "\x1b[0m"
}
