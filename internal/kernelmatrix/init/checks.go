// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"
)

// check is one thing to try. Its error has a first line for the summary and then
// what is needed to find out why.
type check struct {
	name string
	run  func() (detail string, err error)
}

// try runs a check, a recording again if it fails: an emulated machine on a busy one
// gives a program so little time that chance decides, what is wrong with lowflame is
// wrong again.
func (c *check) try() (detail string, err error) {
	before := total
	detail, err = c.run()
	if err != nil && total != before {
		first, _, _ := strings.Cut(err.Error(), "\n")
		fmt.Printf("KMX again %s %s\n", c.name, first)
		total = before
		detail, err = c.run()
	}
	return detail, err
}

// fullVar asks for the checks that take long and tell of single kernels only. The
// kernel passes it on from its command line.
const fullVar = "KMX_FULL"

func checks() []check {
	list := []check{
		{"unwinder-tests", unwinderTests},
		{"doctor", doctor},
	}
	for _, r := range recordings() {
		list = append(list, check{r.name, r.run})
	}
	list = append(list,
		check{"programs", recordPrograms},
		check{hotplugArg, func() (string, error) { return survives(hotplugArg) }},
	)
	if os.Getenv(fullVar) != "" {
		list = append(list, check{throttleArg, func() (string, error) { return survives(throttleArg, "-F", "4000", "--event", "cpu-clock") }})
	}
	return append(list, check{"end", completeShare})
}

// unwinderTests runs the tests of package bpf/unwinder, in its directory: some
// read its sources. A test that is skipped has not shown anything.
func unwinderTests() (string, error) {
	stdout, stderr, err := run("/bin/unwinder.test", "-test.v", "-test.timeout=5m", "-emulated")
	output := string(stdout) + string(stderr)
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, tail(output, 60000))
	}
	if n := strings.Count(output, "--- SKIP"); n > 0 {
		return "", fmt.Errorf("%d tests skipped\n%s", n, tail(output, 10000))
	}
	passed := strings.Count(output, "\n--- PASS") // not those of subtests, which are indented
	if passed == 0 {
		return "", fmt.Errorf("no test ran\n%s", tail(output, 10000))
	}
	load, err := parseLoad(output)
	if err != nil {
		return "", err
	}
	value("instructions", load.instructions)
	value("load_ms", fmt.Sprint(load.took.Milliseconds()))
	return fmt.Sprintf("%d passed, program loaded in %v, %s verified instructions", passed, load.took, load.instructions), nil
}

// load is what TestLoad logs.
type load struct {
	took         time.Duration
	instructions string // of the sampling program; "-" where the kernel does not say
}

var loadLine = regexp.MustCompile(`loaded in (\S+), verified instructions map\[.*unw_sample:(\d+)`)

func parseLoad(output string) (load, error) {
	m := loadLine.FindStringSubmatch(output)
	if m == nil {
		return load{}, errors.New("TestLoad does not say how long loading took")
	}
	took, err := time.ParseDuration(m[1])
	if err != nil {
		return load{}, fmt.Errorf("parse the log of TestLoad: %w", err)
	}
	l := load{took: took, instructions: m[2]}
	if l.instructions == "0" { // kernel: bpf_prog_info.verified_insns, since 5.16
		l.instructions = "-"
	}
	return l, nil
}

// doctor expects that lowflame finds nothing amiss.
func doctor() (string, error) {
	stdout, stderr, err := run("/bin/lowflame", "doctor", "--json")
	if err != nil {
		return "", fmt.Errorf("%w\n%s%s", err, stdout, stderr)
	}
	var report struct {
		OK     bool `json:"ok"`
		Checks []struct {
			Name, State, Found string
		} `json:"checks"`
	}
	if err := json.Unmarshal(stdout, &report); err != nil {
		return "", fmt.Errorf("parse its JSON: %w\n%s", err, stdout)
	}
	if !report.OK || len(report.Checks) == 0 {
		return "", fmt.Errorf("not ok\n%s", stdout)
	}
	var warned []string
	for _, c := range report.Checks {
		if c.State != "ok" {
			warned = append(warned, c.Name+": "+c.Found)
		}
	}
	return fmt.Sprintf("%d checks, warnings %q", len(report.Checks), warned), nil
}

// commandPatience bounds how long a command may take, and what it runs itself.
const commandPatience = 5 * time.Minute

// run runs a command to its end.
func run(name string, args ...string) (stdout, stderr []byte, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandPatience)
	defer cancel()
	var o, e bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = "/src"
	cmd.Stdout, cmd.Stderr = &o, &e
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return o.Bytes(), e.Bytes(), fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return o.Bytes(), e.Bytes(), nil
}

// tail returns the last n bytes of s.
func tail(s string, n int) string { return s[max(0, len(s)-n):] }
