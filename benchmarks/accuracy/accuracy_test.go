// SPDX-License-Identifier: Apache-2.0

package accuracy

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/lowflame/lowflame/benchmarks/workloads"
)

var (
	seconds = flag.Float64("seconds", 3, "how long each workload runs")
	keep    = flag.String("keep", "", "directory to keep programs and profiles in")
)

const defaultHz = 499

// TestWorkloads records every workload and compares the profile with what the
// workload says of itself.
func TestWorkloads(t *testing.T) {
	if testing.Short() {
		t.Skip("records every workload for 3 s")
	}
	if os.Geteuid() != 0 {
		t.Skip("sampling needs root")
	}
	lowflame := filepath.Join(directory(t), "lowflame")
	buildLowflame(t, lowflame)
	forEachWorkload(t, func(t *testing.T, p workloads.Program) {
		testWorkload(t, lowflame, p)
	})
}

// buildLowflame takes as long as it takes: minutes where nothing is compiled yet.
func buildLowflame(t *testing.T, path string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, "../../cmd/lowflame").CombinedOutput(); err != nil {
		t.Fatalf("build lowflame: %v\n%s", err, out)
	}
}

func testWorkload(t *testing.T, lowflame string, p workloads.Program) {
	problems := judge(t, lowflame, p)
	if len(problems) != 0 {
		// What is wrong with lowflame is wrong again; what the machine did beside it is not.
		t.Logf("once more, after: %s", strings.Join(problems, "; "))
		problems = judge(t, lowflame, p)
	}
	for _, problem := range problems {
		t.Error(problem)
	}
}

// judge records p and returns what is wrong with the recording.
func judge(t *testing.T, lowflame string, p workloads.Program) (problems []string) {
	t.Helper()
	prof, report := recordEnough(t, lowflame, p)
	problems = append(CheckProfile(prof), ReadAccounting(prof).Check(prof)...)
	pid := report.PID
	if report.Family {
		pid = 0
	}
	rec := FromProfile(prof, pid)
	result := Check(rec, report, p.Stops...)
	t.Log(result)
	problems = append(problems, result.Problems...)
	if p.MaxStopped > 0 && float64(result.Stopped) > p.MaxStopped*float64(result.User) {
		problems = append(problems, fmt.Sprintf("%d of %d stacks end in %v, want at most %.1f %%",
			result.Stopped, result.User, p.Stops, 100*p.MaxStopped))
	}
	return append(problems, CheckThreads(rec, p.Threads)...)
}

// minCPU is how much CPU time a run must have had to be judged, as a share of its
// wall time. On a machine busy with other things the handful of samples at the
// beginning and the end of a program would weigh too much.
const minCPU = 0.6

// recordEnough records p, again and twice as long if it got too little CPU time.
func recordEnough(t *testing.T, lowflame string, p workloads.Program) (*profile.Profile, *workloads.Report) {
	t.Helper()
	out := filepath.Join(filepath.Dir(p.Path), "profile.pb.gz")
	want := *seconds * float64(max(1, p.Times))
	for try, long := 0, want; ; try, long = try+1, 2*long {
		report := record(t, lowflame, out, p, long)
		used := float64(report.CPUNS) / 1e9
		if used >= minCPU*want || try == 2 {
			return readProfile(t, out), report
		}
		t.Logf("%.1f s of CPU in %v s: the machine is busy, once more", used, long)
	}
}

// record runs p under lowflame and returns the report p printed.
func record(t *testing.T, lowflame, out string, p workloads.Program, long float64) *workloads.Report {
	t.Helper()
	args := append([]string{"record", "--symbols=names", "-F", strconv.Itoa(rate(p)), "-o", out, "--"}, p.Command(long)...)
	stdout, stderr := run(t, lowflame, args...)
	report, err := workloads.ParseReport(stdout)
	if err != nil {
		t.Fatalf("%v\nstdout: %s\nstderr: %s", err, stdout, stderr)
	}
	t.Cleanup(func() { os.Remove(fmt.Sprintf("/tmp/perf-%d.map", report.PID)) })
	return report
}

// run runs a command to its end, which must come within three minutes.
func run(t *testing.T, name string, args ...string) (stdout, stderr []byte) {
	t.Helper()
	stdout, stderr, err := try(t, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return stdout, stderr
}

// try is run for a command that may fail.
func try(t *testing.T, name string, args ...string) (stdout, stderr []byte, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var o, e bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &o, &e
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return nil, nil, fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, e.Bytes())
	}
	return o.Bytes(), e.Bytes(), nil
}

func rate(p workloads.Program) int {
	if p.Hz != 0 {
		return p.Hz
	}
	return defaultHz
}

func readProfile(t *testing.T, path string) *profile.Profile {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := profile.Parse(f)
	if err != nil {
		t.Fatalf("parse %s: %v", path, err)
	}
	return p
}

// directory returns where programs and profiles go.
func directory(t *testing.T) string {
	t.Helper()
	if *keep == "" {
		return t.TempDir()
	}
	dir, err := filepath.Abs(*keep)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// forEachWorkload builds each workload and runs test on it as a subtest. One at a
// time: two would take CPU time and caches from each other.
func forEachWorkload(t *testing.T, test func(*testing.T, workloads.Program)) {
	tools := workloads.Native()
	for _, tool := range []string{tools.CC, tools.CXX, tools.Musl, tools.Rustc, tools.Go} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("no compiler: %v", err)
		}
	}
	dir := directory(t)
	src, err := workloads.Extract(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range workloads.All(tools) {
		t.Run(w.Name, func(t *testing.T) {
			p, err := w.BuildIn(t.Context(), tools, src, dir)
			if err != nil {
				t.Fatal(err)
			}
			test(t, p)
		})
	}
}

// CheckThreads returns what is wrong with thread names: names are the expected
// prefixes of thread labels, nil if any will do.
func CheckThreads(rec Recording, names []string) []string {
	if names == nil {
		return nil
	}
	counts := make(map[string]int64)
	var all, named int64
	for _, s := range rec.Samples {
		all += s.Count
		i := slices.IndexFunc(names, func(name string) bool { return strings.HasPrefix(s.Thread, name) })
		if i >= 0 {
			counts[names[i]] += s.Count
			named += s.Count
		}
	}
	var problems []string
	for _, name := range names {
		if counts[name] == 0 {
			problems = append(problems, fmt.Sprintf("no sample has a thread label that begins with %q", name))
		}
	}
	// The rest is main and threads that have not named themselves yet.
	if float64(named) < 0.97*float64(all) {
		problems = append(problems, fmt.Sprintf("%d of %d samples have one of the thread labels %q", named, all, names))
	}
	return problems
}
