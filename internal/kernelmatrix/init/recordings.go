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
	minExpected = 0.90 // of the samples with a user stack have an expected stack
	minComplete = 0.95 // of the same reach the outermost frame
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
	golang  bool
	// calls are parts of names of kernel functions: one of them is in samples
	// taken in the system calls of copy_block. Without calls there are none.
	calls []string
}

func recordings() []recording {
	return []recording{
		{name: "c-chain", command: []string{"/bin/recursion", seconds, "50"}, folded: true},
		{name: "go-chain", command: []string{"/bin/goroutines", seconds}, golang: true},
		{name: "kernel", command: []string{"/bin/syscalls", seconds}, calls: []string{"sys_read", "sys_write"}},
	}
}

// total counts samples with a user stack, over all recordings.
var total struct{ user, complete int64 }

func (r *recording) run() (string, error) {
	out, format := filepath.Join("/tmp", r.name+".pb.gz"), "pprof"
	if r.folded {
		out, format = "-", "folded"
	}
	args := append([]string{"record", "-F", hz, "-o", out, "--format", format, "--"}, r.command...)
	stdout, stderr, err := run("/bin/lowflame", args...)
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, stderr)
	}
	quality, err := lossless(stderr)
	if err != nil {
		return "", err
	}
	said, folded, _ := strings.Cut(string(stdout), "\n") // the workload prints its line and ends
	report, err := workloads.ParseReport([]byte(said))
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, stdout)
	}
	var j judgement
	var problems []string
	if r.folded {
		j, err = r.judgeFolded(folded, report)
	} else {
		j, problems, err = r.judgeProfile(out, report)
	}
	if err != nil {
		return "", err
	}
	total.user += j.user
	total.complete += j.complete
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
	complete int64            // walked to the outermost frame
	expected int64            // with a stack of the report, or on the way to its leaf
	exact    int64            // with a stack of the report
	others   map[string]int64 // stacks that are not expected
}

func (r *recording) judge(rec accuracy.Recording, report *workloads.Report) (judgement, error) {
	j := judgement{others: make(map[string]int64)}
	exact := slices.Clone(report.Present)
	var onTheWay []workloads.Chain
	for _, t := range report.Truth {
		exact = append(exact, t.Chain)
		caller, err := callerOf(t.Chain)
		if err != nil {
			return j, err
		}
		onTheWay = append(onTheWay, caller)
	}
	for _, s := range rec.Samples {
		if !r.concerns(s) {
			continue
		}
		j.user += s.Count
		if s.Truncated == "" {
			j.complete += s.Count
		}
		switch matches := func(c workloads.Chain) bool { return c.Match(s.Frames) }; {
		case slices.ContainsFunc(exact, matches):
			j.exact += s.Count
			j.expected += s.Count
		case slices.ContainsFunc(onTheWay, matches):
			j.expected += s.Count
		default:
			j.others[s.Truncated+" "+accuracy.Format(s.Frames)] += s.Count
		}
	}
	return j, nil
}

// callerOf returns the chain of everything below the caller of a chain's leaf,
// such as the clock that the caller reads, a system call that is slow here.
func callerOf(c workloads.Chain) (workloads.Chain, error) {
	words := strings.Split(strings.TrimSuffix(c.String(), " → ..."), " → ")
	return workloads.ParseChain(append(words[:len(words)-1], "..."))
}

// concerns reports whether a sample is of the workload and was taken where it
// has a user stack. The process is lowflame's own until it becomes the workload,
// and a Go program has threads that only run its runtime.
func (r *recording) concerns(s accuracy.Sample) bool {
	if s.Comm != filepath.Base(r.command[0]) {
		return false
	}
	return s.Truncated != "" || slices.ContainsFunc(s.Frames, func(f workloads.Frame) bool {
		return !f.Kernel && (!r.golang || strings.HasPrefix(f.Function, "main."))
	})
}

func (j judgement) String() string {
	return fmt.Sprintf("%d user stacks, %s complete, %s expected, %s to the leaf",
		j.user, percent(j.complete, j.user), percent(j.expected, j.user), percent(j.exact, j.user))
}

func (j judgement) problems() []string {
	ok := j.exact >= minSamples && float64(j.expected) >= minExpected*float64(j.user) &&
		float64(j.complete) >= minComplete*float64(j.user)
	if ok {
		return nil
	}
	return []string{fmt.Sprintf("%v; want %.0f %% complete, %.0f %% expected, %d to the leaf%s",
		j, 100*minComplete, 100*minExpected, minSamples, accuracy.Top(j.others, 8))}
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
