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
	"slices"
	"strconv"
	"strings"

	"github.com/lowflame/lowflame/benchmarks/accuracy"
	"github.com/lowflame/lowflame/benchmarks/workloads"
)

// programsArg makes the program run the workloads of programs.json one after the
// other, so that one recording holds them all.
const programsArg = "programs"

// programSeconds is how long each runs, and again twice as long if it had less than
// programCPU of that: the handful of samples at its beginning and its end would weigh
// too much.
const (
	programSeconds = 2
	programCPU     = 0.6
)

// program is a workload of programs.json, see ../build.
type program struct {
	Name string
	Args []string
}

func readPrograms() ([]program, error) {
	text, err := os.ReadFile("/programs.json")
	if err != nil {
		return nil, err
	}
	var list []program
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("parse /programs.json: %w", err)
	}
	if len(list) == 0 {
		return nil, errors.New("/programs.json has no programs")
	}
	return list, nil
}

// runPrograms prints the report of each, a line each.
func runPrograms() error {
	list, err := readPrograms()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), commandPatience)
	defer cancel()
	for _, p := range list {
		report, line, err := p.run(ctx, programSeconds)
		if err == nil && float64(report.CPUNS) < programCPU*programSeconds*1e9 {
			_, line, err = p.run(ctx, 2*programSeconds)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
		fmt.Printf("%s\n", line)
	}
	return nil
}

// run runs p for so many seconds and returns its report, and the line that is.
func (p *program) run(ctx context.Context, seconds int) (*workloads.Report, []byte, error) {
	var stdout bytes.Buffer
	cmd := exec.CommandContext(ctx, "/bin/"+p.Name, append([]string{strconv.Itoa(seconds)}, p.Args...)...)
	cmd.Stdout, cmd.Stderr = &stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, nil, err
	}
	lines := bytes.Split(bytes.TrimSpace(stdout.Bytes()), []byte("\n"))
	line := lines[len(lines)-1]
	report, err := workloads.ParseReport(line)
	return report, line, err
}

// recordPrograms records the workloads and judges the stacks of each.
func recordPrograms() (string, error) {
	list, err := readPrograms()
	if err != nil {
		return "", err
	}
	const out = "/tmp/programs.pb.gz"
	stdout, stderr, err := run("/bin/lowflame", "record", "--symbols=names", "-F", hz, "-o", out, "--", "/init", programsArg)
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, stderr)
	}
	quality, err := lossless(stderr)
	if err != nil {
		return "", err
	}
	prof, err := readProfile(out)
	if err != nil {
		return "", err
	}
	problems := accuracy.CheckProfile(prof)
	problems = append(problems, accuracy.ReadAccounting(prof).Check(prof)...)
	reports := strings.Split(strings.TrimSpace(string(stdout)), "\n")
	if len(reports) != len(list) {
		return "", fmt.Errorf("%d reports of %d programs\n%s", len(reports), len(list), stdout)
	}
	var shares []string
	for i, p := range list {
		report, err := workloads.ParseReport([]byte(reports[i]))
		if err != nil {
			return "", fmt.Errorf("%s: %w", p.Name, err)
		}
		r := recording{name: p.Name, command: []string{"/bin/" + p.Name}}
		j, err := r.judge(accuracy.FromProfile(prof, report.PID), static(report))
		if err != nil {
			return "", fmt.Errorf("%s: %w", p.Name, err)
		}
		total.add(j)
		for _, problem := range j.problems() {
			problems = append(problems, p.Name+": "+problem)
		}
		shares = append(shares, fmt.Sprintf("%s %s", p.Name, percent(j.complete, j.user)))
	}
	if len(problems) > 0 {
		return "", fmt.Errorf("%s\n%s", strings.Join(problems, "\n"), quality)
	}
	return fmt.Sprintf("complete: %s; %s", strings.Join(shares, ", "), quality), nil
}

// static returns a report as it is of a program that has its libraries in itself:
// their functions are in another file then, and have names.
func static(report *workloads.Report) *workloads.Report {
	r := *report
	r.Truth = slices.Clone(report.Truth)
	for i := range r.Truth {
		r.Truth[i].Chain = staticChain(r.Truth[i].Chain)
	}
	r.Present = nil
	for _, c := range report.Present {
		r.Present = append(r.Present, staticChain(c))
	}
	return &r
}

func staticChain(c workloads.Chain) workloads.Chain {
	var words []string
	for _, word := range strings.Split(c.String(), arrow) {
		name, file, _ := strings.Cut(word, "@")
		if strings.HasPrefix(file, "lib") {
			word = name
			if name == "?" {
				word = "..."
			}
		}
		if word == "..." && len(words) > 0 && words[len(words)-1] == word {
			continue
		}
		words = append(words, word)
	}
	parsed, err := workloads.ParseChain(words)
	if err != nil {
		panic(err) // it was one before, and has fewer words now
	}
	return parsed
}
