// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/lowflame/lowflame/benchmarks/accuracy"
	"github.com/lowflame/lowflame/benchmarks/workloads"
)

// judgeFolded judges folded stacks. They do not tell the kernel's frames from
// those of the program, so a stack may go on below its leaf.
func (r *recording) judgeFolded(text string, report *workloads.Report) (judgement, error) {
	rec, err := parseFolded(text)
	if err != nil {
		return judgement{}, err
	}
	open := *report
	open.Truth = nil
	for _, t := range report.Truth {
		if t.Chain, err = workloads.ParseChain(append(strings.Split(t.Chain.String(), " → "), "...")); err != nil {
			return judgement{}, err
		}
		open.Truth = append(open.Truth, t)
	}
	return r.judge(rec, &open)
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
