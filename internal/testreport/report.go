// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// event is one line of `go test -json`; see `go doc test2json`.
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build-output and build-fail
	Test        string
	Elapsed     float64
	Output      string
	FailedBuild string // of a package's fail: the ImportPath that did not build
}

// pkg is a package whose result is not known yet.
type pkg struct {
	// output is by test; "" is what no test printed.
	output  map[string]*strings.Builder
	running map[string]bool
	// parents are the tests that ran subtests. Only leaves are counted, so that
	// a failing subtest counts once.
	parents               map[string]bool
	failedBelow           map[string]bool
	passed, failed, skips int
}

type skip struct{ pkg, test, reason string }

type report struct {
	w              io.Writer
	pkgs           map[string]*pkg
	builds         map[string]*strings.Builder
	skips          []skip
	failures       []string
	passed, failed int
}

func newReport(w io.Writer) *report {
	return &report{w: w, pkgs: map[string]*pkg{}, builds: map[string]*strings.Builder{}}
}

// line takes one line of input. What is not JSON is passed on: the go command
// reports some of its own troubles as plain text.
func (r *report) line(b []byte) {
	var e event
	if err := json.Unmarshal(b, &e); err != nil {
		fmt.Fprintf(r.w, "%s\n", b)
		return
	}
	if e.Action == "build-output" {
		appendTo(r.builds, e.ImportPath, e.Output)
		return
	}
	if e.Package == "" {
		return
	}
	p := r.pkgs[e.Package]
	if p == nil {
		p = &pkg{
			output: map[string]*strings.Builder{}, running: map[string]bool{},
			parents: map[string]bool{}, failedBelow: map[string]bool{},
		}
		r.pkgs[e.Package] = p
	}
	switch {
	case e.Action == "output":
		appendTo(p.output, e.Test, e.Output)
	case e.Test == "":
		r.endPackage(p, e)
	default:
		r.test(p, e)
	}
}

func (r *report) test(p *pkg, e event) {
	parent := ""
	if i := strings.LastIndexByte(e.Test, '/'); i >= 0 {
		parent = e.Test[:i]
	}
	switch e.Action {
	case "run":
		p.running[e.Test] = true
		p.parents[parent] = true
		return
	case "pass":
		if !p.parents[e.Test] {
			p.passed++
		}
	case "skip":
		p.skips++
		r.skips = append(r.skips, skip{e.Package, e.Test, reason(p.text(e.Test))})
	case "fail":
		p.failedBelow[parent] = true
		if !p.failedBelow[e.Test] {
			p.failed++
			r.failures = append(r.failures, e.Package+" "+e.Test)
		}
		fmt.Fprintf(r.w, "--- FAIL: %s %s (%.1f s)\n%s", e.Package, e.Test, e.Elapsed, indent(p.text(e.Test)))
	default: // pause, cont, start, bench
		return
	}
	delete(p.running, e.Test)
	delete(p.output, e.Test)
}

// endPackage takes an event of the package itself. A package that fails without
// a failed test did not build, crashed, ran out of time or leaked into TestMain.
func (r *report) endPackage(p *pkg, e event) {
	switch e.Action {
	case "pass":
		fmt.Fprintf(r.w, "ok    %-60s %6.1f s  %d passed, %d skipped\n", e.Package, e.Elapsed, p.passed, p.skips)
	case "skip":
		fmt.Fprintf(r.w, "-     %-60s no tests\n", e.Package)
	case "fail":
		r.failPackage(p, e)
	default:
		return
	}
	r.passed += p.passed
	r.failed += p.failed
	delete(r.pkgs, e.Package)
}

func (r *report) failPackage(p *pkg, e event) {
	if p.failed == 0 {
		p.failed++
		r.failures = append(r.failures, e.Package)
		fmt.Fprintf(r.w, "--- FAIL: %s\n", e.Package)
		if b := r.builds[e.FailedBuild]; b != nil {
			fmt.Fprint(r.w, indent(b.String()))
		}
		for test := range p.running {
			fmt.Fprintf(r.w, "    while running %s:\n%s", test, indent(p.text(test)))
		}
		fmt.Fprint(r.w, indent(p.text("")))
	}
	fmt.Fprintf(r.w, "FAIL  %-60s %6.1f s  %d passed, %d failed, %d skipped\n",
		e.Package, e.Elapsed, p.passed, p.failed, p.skips)
}

// end prints the closing lists and reports whether the run passed.
func (r *report) end() bool {
	for name, p := range r.pkgs {
		r.passed += p.passed
		r.failed += p.failed + 1
		r.failures = append(r.failures, name+" (did not finish)")
		for test := range p.running {
			fmt.Fprintf(r.w, "--- UNFINISHED: %s %s\n%s", name, test, indent(p.text(test)))
		}
	}
	for i, s := range r.skips {
		if i == 0 {
			fmt.Fprintln(r.w, "\nskipped:")
		}
		fmt.Fprintf(r.w, "  %s %s: %s\n", s.pkg, s.test, s.reason)
	}
	for i, f := range r.failures {
		if i == 0 {
			fmt.Fprintln(r.w, "\nfailed:")
		}
		fmt.Fprintf(r.w, "  %s\n", f)
	}
	fmt.Fprintf(r.w, "\n%d passed, %d failed, %d skipped\n", r.passed, r.failed, len(r.skips))
	return r.failed == 0 && r.passed > 0
}

func (p *pkg) text(test string) string {
	if b := p.output[test]; b != nil {
		return b.String()
	}
	return ""
}

func appendTo(m map[string]*strings.Builder, key, text string) {
	b := m[key]
	if b == nil {
		b = &strings.Builder{}
		m[key] = b
	}
	b.WriteString(text)
}

var (
	frame    = regexp.MustCompile(`^\s*(=== |--- )`)
	position = regexp.MustCompile(`^\s*\S+\.go:\d+: `)
)

// reason is what a skipped test said last, without its position.
func reason(output string) string {
	said := "no reason given"
	for line := range strings.Lines(output) {
		line = strings.TrimRight(line, "\n")
		if !frame.MatchString(line) && strings.TrimSpace(line) != "" {
			said = strings.TrimSpace(position.ReplaceAllString(line, ""))
		}
	}
	return said
}

func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "=== RUN") || strings.HasPrefix(line, "=== PAUSE") ||
			strings.HasPrefix(line, "=== CONT") || strings.HasPrefix(line, "=== NAME") {
			continue
		}
		b.WriteString("    " + strings.TrimRight(line, "\n") + "\n")
	}
	return b.String()
}
