// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/pprof/profile"

	"github.com/lowflame/lowflame/benchmarks/accuracy"
	"github.com/lowflame/lowflame/benchmarks/workloads"
)

// What every recording must reach. An emulated CPU spends much of a short run in
// the kernel and in starting up, so shares are lower than on a real one and need
// a least number of samples beside them.
const (
	minComplete = 0.99 // of the samples with a user stack reach the outermost frame, over all programs
	minEach     = 0.95 // the same of one program: a dozen of its 400 samples are of how it starts
	minExpected = 0.90 // of those in the workload's functions have an expected stack
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
	folded  bool // folded stacks on standard output instead of a profile in a file
	// calls are parts of names of kernel functions: one of them is in samples
	// taken in the system calls of copy_block. Without calls there are none.
	calls []string
}

func recordings() []recording {
	return []recording{
		{name: "c-chain", command: []string{"/bin/recursion", seconds, "50"}, folded: true},
		{name: "go-chain", command: []string{"/bin/goroutines", seconds}},
		{name: "kernel", command: []string{"/bin/syscalls", seconds}, calls: []string{"sys_read", "sys_write"}},
	}
}

// total counts samples with a user stack, over all recordings.
var total shareOfAll

type shareOfAll struct{ user, complete int64 }

func (s *shareOfAll) add(j judgement) {
	s.user += j.user
	s.complete += j.complete
}

func (r *recording) run() (string, error) {
	out, format := filepath.Join("/tmp", r.name+".pb.gz"), "pprof"
	if r.folded {
		out, format = filepath.Join("/tmp", r.name+".folded"), "folded"
	}
	args := append([]string{"record", "--symbols=names", "-F", hz, "-o", out, "--format", format, "--"}, r.command...)
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
	var j judgement
	var problems []string
	if r.folded {
		var folded []byte
		if folded, err = os.ReadFile(out); err == nil {
			j, err = r.judgeFolded(string(folded), report)
		}
	} else {
		j, problems, err = r.judgeProfile(out, report)
	}
	if err != nil {
		return "", err
	}
	total.add(j)
	if problems = append(j.problems(), problems...); len(problems) > 0 {
		return "", fmt.Errorf("%s\n%s", strings.Join(problems, "\n"), quality)
	}
	return fmt.Sprintf("%s; %s", j, quality), nil
}

func (r *recording) judgeProfile(path string, report *workloads.Report) (judgement, []string, error) {
	prof, err := readProfile(path)
	if err != nil {
		return judgement{}, nil, err
	}
	problems := accuracy.CheckProfile(prof)
	problems = append(problems, accuracy.ReadAccounting(prof).Check(prof)...)
	rec := accuracy.FromProfile(prof, report.PID)
	if r.calls != nil {
		problems = append(problems, r.checkKernel(rec)...)
	}
	j, err := r.judge(rec, report)
	return j, problems, err
}

// judgement counts the samples of a workload that have a user stack.
type judgement struct {
	user     int64
	complete int64            // reach the outermost frame
	within   int64            // are in a function of the report, or cut off
	expected int64            // with a stack of the report, or on the way to its leaf
	exact    int64            // with a stack of the report
	others   map[string]int64 // stacks that are not expected
}

// truth is what a workload says of itself.
type truth struct {
	exact    []workloads.Chain
	onTheWay []workloads.Chain // to the leaf of an exact one
	within   map[string]bool   // functions of these but the root
}

func newTruth(report *workloads.Report) (truth, error) {
	t := truth{exact: slices.Clone(report.Present), within: make(map[string]bool)}
	for _, part := range report.Truth {
		t.exact = append(t.exact, part.Chain)
		// Anything below the caller of the leaf: it reads the clock, a system call
		// that is slow here.
		words := strings.Split(strings.TrimSuffix(part.Chain.String(), arrow+"..."), arrow)
		caller, err := workloads.ParseChain(append(words[:len(words)-1:len(words)-1], "..."))
		if err != nil {
			return t, err
		}
		t.onTheWay = append(t.onTheWay, caller)
		for _, word := range words[1:] {
			name, _, _ := strings.Cut(word, "*")
			name, _, _ = strings.Cut(name, "@")
			for name := range strings.FieldsSeq(strings.Trim(name, "()")) {
				t.within[name] = true
			}
		}
	}
	return t, nil
}

// arrow is between the words of Chain.String.
const arrow = " → "

// judge leaves out how the process began and ended, which takes long in an
// emulated machine: it is lowflame's own until it becomes the workload, C programs
// have a libc to set up, and Go programs have threads that run the runtime.
func (r *recording) judge(rec accuracy.Recording, report *workloads.Report) (judgement, error) {
	j := judgement{others: make(map[string]int64)}
	t, err := newTruth(report)
	if err != nil {
		return j, err
	}
	for _, s := range rec.Samples {
		user := slices.ContainsFunc(s.Frames, func(f workloads.Frame) bool { return !f.Kernel })
		if s.Comm != comm(r.command[0]) || s.Truncated == "" && !user {
			continue
		}
		j.user += s.Count
		if s.Truncated == "" {
			j.complete += s.Count
			if !slices.ContainsFunc(s.Frames, func(f workloads.Frame) bool { return t.within[f.Function] }) {
				continue
			}
		}
		j.within += s.Count
		switch matches := func(c workloads.Chain) bool { return c.Match(s.Frames) }; {
		case slices.ContainsFunc(t.exact, matches):
			j.exact += s.Count
			j.expected += s.Count
		case slices.ContainsFunc(t.onTheWay, matches):
			j.expected += s.Count
		default:
			j.others[s.Truncated+" "+accuracy.Format(s.Frames)] += s.Count
		}
	}
	return j, nil
}

// comm is what the kernel calls the process of a program: 15 bytes at most.
func comm(path string) string {
	name := filepath.Base(path)
	return name[:min(len(name), 15)]
}

func (j judgement) String() string {
	return fmt.Sprintf("%d user stacks, %s complete; %d of the workload, %s as expected, %s to the leaf",
		j.user, percent(j.complete, j.user), j.within, percent(j.expected, j.within), percent(j.exact, j.within))
}

func (j judgement) problems() []string {
	if j.exact >= minSamples && float64(j.expected) >= minExpected*float64(j.within) &&
		float64(j.complete) >= minEach*float64(j.user) {
		return nil
	}
	return []string{fmt.Sprintf("%v; want %.0f %% complete, %.0f %% as expected, %d to the leaf%s",
		j, 100*minEach, 100*minExpected, minSamples, accuracy.Top(j.others, 8))}
}

// checkKernel expects samples taken in system calls: kernel frames with names,
// the call among them, above the user stack of the call.
func (r *recording) checkKernel(rec accuracy.Recording) []string {
	chain, err := workloads.ParseChain([]string{"_start", "...", "main", "run", "unit_copy", "copy_block", "...", "[kernel]"})
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
	if float64(total.complete) < minComplete*float64(total.user) {
		return "", fmt.Errorf("%d of %d user stacks are complete, want %.0f %%", total.complete, total.user, 100*minComplete)
	}
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
