// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/lowflame/lowflame/benchmarks/accuracy"
	"github.com/lowflame/lowflame/benchmarks/workloads"
)

// recordFolded has lowflame write folded stacks to standard output, behind
// what the workload prints there.
func recordFolded() (string, error) {
	stdout, stderr, err := run("/bin/lowflame", "record", "-F", hz, "-o", "-", "--format", "folded", "--", "/bin/recursion", "2", "50")
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, stderr)
	}
	quality, err := lossless(stderr)
	if err != nil {
		return "", err
	}
	line, folded, _ := strings.Cut(string(stdout), "\n")
	report, err := workloads.ParseReport([]byte(line))
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, stdout)
	}
	rec, err := parseFolded(folded)
	if err != nil {
		return "", err
	}
	// Folded stacks do not tell the kernel's frames from those of the program.
	var chains []workloads.Chain
	for _, t := range report.Truth {
		chain, err := workloads.ParseChain(append(strings.Split(t.Chain.String(), " → "), "..."))
		if err != nil {
			return "", err
		}
		chains = append(chains, chain)
	}
	j := judge(rec, chains)
	if problems := j.problems(); len(problems) > 0 {
		return "", fmt.Errorf("%s\n%s", strings.Join(problems, "\n"), quality)
	}
	return fmt.Sprintf("%s; %s", j, quality), nil
}

// parseFolded parses lines "process;root;...;leaf COUNT".
func parseFolded(text string) (accuracy.Recording, error) {
	var rec accuracy.Recording
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		i := strings.LastIndexByte(line, ' ')
		if i <= 0 {
			return rec, fmt.Errorf("folded line %q has no count", line)
		}
		count, err := strconv.ParseInt(line[i+1:], 10, 64)
		if err != nil || count < 1 {
			return rec, fmt.Errorf("folded line %q has no count", line)
		}
		s := accuracy.Sample{Count: count}
		process, names, _ := strings.Cut(line[:i], ";")
		s.Comm = process
		for name := range strings.SplitSeq(names, ";") {
			if reason, ok := strings.CutPrefix(name, "[truncated: "); ok {
				s.Truncated = strings.TrimSuffix(reason, "]")
			}
			s.Frames = append(s.Frames, workloads.Frame{Function: name})
		}
		rec.Samples = append(rec.Samples, s)
	}
	return rec, nil
}
