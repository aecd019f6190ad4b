// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/google/pprof/profile"

	"github.com/lowflame/lowflame/benchmarks/measure"
)

func location(id uint64, file, function string) *profile.Location {
	l := &profile.Location{ID: id, Address: id, Mapping: &profile.Mapping{ID: id, File: file}}
	if file == "" {
		l.Mapping = nil
	}
	if function != "" {
		l.Line = []profile.Line{{Function: &profile.Function{ID: id, Name: function}}}
	}
	return l
}

func TestJudgeNames(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &profile.Profile{Sample: []*profile.Sample{
		{Value: []int64{985, 1}, Location: []*profile.Location{location(1, self, "main.main"), location(2, "", "")}},
		{Value: []int64{15, 1}, Location: []*profile.Location{location(3, self, "")}},
		{Value: []int64{50, 1}, Location: []*profile.Location{location(4, "/no/such/file", ""), location(5, "[lowflame]", "x")}},
	}}
	var out bytes.Buffer
	judgeNames(&measure.Report{Out: &out}, p)
	for _, want := range []string{
		"98.500 %        (at least 99) MISSED", "0.000 % of 50", "0.000 % of 985", "15 × in " + self,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

func TestCompleteness(t *testing.T) {
	kernel := location(9, "[kernel.kallsyms]", "worker")
	kernel.Address = 1 << 63
	p := &profile.Profile{Sample: []*profile.Sample{
		{Value: []int64{90, 1}, Location: []*profile.Location{location(1, "/p", "main")}},
		{Value: []int64{10, 1}, Location: []*profile.Location{location(1, "/p", "main"), location(2, "[lowflame]", "[truncated: NO_RULE]")}},
		{Value: []int64{500, 1}, Location: []*profile.Location{kernel}},
	}}
	percent, truncated := completeness(p)
	if percent != 90 || len(truncated) != 1 {
		t.Errorf("completeness = %v, %v; want 90 and one incomplete stack", percent, truncated)
	}
}
