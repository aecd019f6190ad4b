// SPDX-License-Identifier: Apache-2.0

package workloads

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// Report is what a workload says of itself.
type Report struct {
	PID int `json:"pid"`
	// CPUNS is the CPU time the process used, in user and kernel mode.
	CPUNS uint64 `json:"cpu_ns"`
	// Family: the report is of all processes of the program, PID and its children.
	Family bool    `json:"family"`
	Truth  []Truth `json:"truth"`
	// Present are further stacks that occur, though how often is not known.
	Present []Chain `json:"present"`
}

// Truth is the share of the process's CPU time of one function.
type Truth struct {
	Function string `json:"function"`
	// Under: the time at and below Function. Otherwise only the time in
	// Function itself, and what the kernel does meanwhile.
	Under bool    `json:"under"`
	Share float64 `json:"share"`
	// Chain is the stack of every moment that counts.
	Chain Chain `json:"chain"`
}

// ErrNoReport is the error for output that ends without a report.
var ErrNoReport = errors.New("no report on the last line of output")

// ParseReport returns the report on the last line of a workload's output.
func ParseReport(stdout []byte) (*Report, error) {
	stdout = bytes.TrimSpace(stdout)
	line := stdout[bytes.LastIndexByte(stdout, '\n')+1:]
	if len(line) == 0 || line[0] != '{' {
		return nil, ErrNoReport
	}
	var r Report
	if err := json.Unmarshal(line, &r); err != nil {
		return nil, fmt.Errorf("parse report of workload: %w", err)
	}
	if r.PID <= 0 || r.CPUNS == 0 || len(r.Truth) == 0 {
		return nil, fmt.Errorf("parse report of workload: pid %d, cpu_ns %d, %d truths", r.PID, r.CPUNS, len(r.Truth))
	}
	return &r, nil
}

// Hottest returns the truth with the largest share.
func (r *Report) Hottest() Truth {
	hottest := r.Truth[0]
	for _, t := range r.Truth {
		if t.Share > hottest.Share {
			hottest = t
		}
	}
	return hottest
}
