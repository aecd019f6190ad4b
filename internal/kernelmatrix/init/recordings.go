// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/pprof/profile"

	"github.com/lowflame/lowflame/benchmarks/accuracy"
	"github.com/lowflame/lowflame/benchmarks/workloads"
)

// What every recording must reach. An emulated CPU spends much of a short run in
// the kernel and in starting up, so shares are lower than on a real one and need
// a least number of samples beside them.
const (
	minOnChain  = 0.90 // of the samples with a user stack have an expected stack
	minComplete = 0.95 // of the same walk to the outermost frame
	minSamples  = 20
	minKernel   = 0.50 // of samples in a system call are below its entry, by name

	hz      = "199"
	seconds = "3"
)

// recording records one workload and judges the profile by what the workload
// says of itself.
type recording struct {
	name    string
	command []string
	// kernel are user functions at or below which the kernel works, and parts of
	// names of kernel functions one of which is in its stack.
	kernel []string
	calls  []string
}

func recordings() []recording {
	return []recording{
		{name: "c-chain", command: []string{"/bin/recursion", seconds, "50"}},
		{name: "go-chain", command: []string{"/bin/goroutines", seconds}},
		{
			name: "kernel", command: []string{"/bin/syscalls", seconds},
			kernel: []string{"_start", "...", "main", "run", "unit_copy", "copy_block", "...", "[kernel]"},
			calls:  []string{"sys_read", "sys_write"},
		},
	}
}

// total counts samples with a user stack, over all recordings.
var total struct{ user, complete int64 }

func (r *recording) run() (string, error) {
	out := filepath.Join("/tmp", r.name+".pb.gz")
	args := append([]string{"record", "-F", hz, "-o", out, "--"}, r.command...)
	stdout, stderr, err := run("/bin/lowflame", args...)
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, stderr)
	}
	quality, err := lossless(stderr)
	if err != nil {
		return "", err
	}
	report, err := workloads.ParseReport(stdout)
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, stdout)
	}
	prof, err := readProfile(out)
	if err != nil {
		return "", err
	}
	problems := accuracy.CheckProfile(prof)
	if accounting, err := accuracy.ReadAccounting(prof); err != nil {
		problems = append(problems, err.Error())
	} else {
		problems = append(problems, accounting.Check(prof)...)
	}
	chains := report.Present
	for _, t := range report.Truth {
		chains = append(chains, t.Chain)
	}
	j := judge(accuracy.FromProfile(prof, report.PID), chains)
	problems = append(problems, j.problems()...)
	if r.kernel != nil {
		problems = append(problems, r.checkKernel(accuracy.FromProfile(prof, report.PID))...)
	}
	total.user += j.user
	total.complete += j.complete
	if len(problems) > 0 {
		return "", fmt.Errorf("%s\n%s\n%s", problems[0], strings.Join(problems[1:], "\n"), quality)
	}
	return fmt.Sprintf("%s; %s", j, quality), nil
}

// judgement counts the samples of a workload that have a user stack.
type judgement struct {
	user, complete, onChain int64
	others                  map[string]int64 // stacks that are none of the expected
}

func judge(rec accuracy.Recording, chains []workloads.Chain) judgement {
	j := judgement{others: make(map[string]int64)}
	for _, s := range rec.Samples {
		if !hasUser(s) {
			continue
		}
		j.user += s.Count
		if s.Truncated == "" {
			j.complete += s.Count
		}
		on := false
		for _, c := range chains {
			on = on || c.Match(s.Frames)
		}
		if on {
			j.onChain += s.Count
		} else {
			j.others[s.Truncated+" "+accuracy.Format(s.Frames)] += s.Count
		}
	}
	return j
}

// hasUser reports whether a sample was taken where there is a user stack.
func hasUser(s accuracy.Sample) bool {
	if s.Truncated != "" {
		return true
	}
	for _, f := range s.Frames {
		if !f.Kernel {
			return true
		}
	}
	return false
}

func (j judgement) String() string {
	return fmt.Sprintf("%d user stacks, %s complete, %s as expected", j.user, percent(j.complete, j.user), percent(j.onChain, j.user))
}

func (j judgement) problems() []string {
	var problems []string
	if j.onChain < minSamples || float64(j.onChain) < minOnChain*float64(j.user) {
		problems = append(problems, fmt.Sprintf("%v: want %d and %.0f %% as expected%s", j, minSamples, 100*minOnChain, accuracy.Top(j.others, 5)))
	}
	if float64(j.complete) < minComplete*float64(j.user) {
		problems = append(problems, fmt.Sprintf("%v: want %.0f %% complete%s", j, 100*minComplete, accuracy.Top(j.others, 5)))
	}
	return problems
}

// checkKernel expects samples taken in system calls: kernel frames with names,
// the call among them, above the user stack of the call.
func (r *recording) checkKernel(rec accuracy.Recording) []string {
	chain, err := workloads.ParseChain(r.kernel)
	if err != nil {
		return []string{err.Error()}
	}
	var in, named int64
	others := make(map[string]int64)
	for _, s := range rec.Samples {
		if !chain.Match(s.Frames) {
			continue
		}
		in += s.Count
		if r.inCall(s.Frames) {
			named += s.Count
		} else {
			others[accuracy.Format(s.Frames)] += s.Count
		}
	}
	if in < minSamples || float64(named) < minKernel*float64(in) {
		return []string{fmt.Sprintf("%d samples in the kernel below %v, %d of them in %q: want %d, and %.0f %%%s",
			in, chain, named, r.calls, minSamples, 100*minKernel, accuracy.Top(others, 5))}
	}
	return nil
}

func (r *recording) inCall(frames []workloads.Frame) bool {
	for _, f := range frames {
		for _, call := range r.calls {
			if f.Kernel && strings.Contains(f.Function, call) {
				return true
			}
		}
	}
	return false
}

// completeShare is for the table: stacks that reach the outermost frame.
func completeShare() (string, error) {
	if total.user == 0 {
		return "", errors.New("no recording has a user stack")
	}
	value("end", percent(total.complete, total.user))
	return fmt.Sprintf("%d of %d user stacks", total.complete, total.user), nil
}

// lossless returns the quality line, the last that record prints. It is an error
// if samples were lost.
func lossless(stderr []byte) (string, error) {
	text := bytes.TrimSpace(stderr)
	line := string(text[bytes.LastIndexByte(text, '\n')+1:])
	if !strings.Contains(line, " · 0 lost · ") {
		return "", fmt.Errorf("no quality line without loss: %q\n%s", line, stderr)
	}
	return line, nil
}

func readProfile(path string) (*profile.Profile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p, err := profile.Parse(f)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", path, err)
	}
	return p, nil
}

func percent(part, whole int64) string {
	if whole == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", float64(part*1000/whole)/10)
}
