// SPDX-License-Identifier: Apache-2.0

package accuracy

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/lowflame/lowflame/benchmarks/workloads"
)

// minThroughJIT is the share of samples whose stacks pass through code made at run
// time to their root.
const minThroughJIT = 0.97

// minRooted is the share of whole stacks that must have the true root. The rest is for
// stubs that a virtual machine written in C++ calls itself, without entering Java.
const minRooted = 0.98

// TestRuntimes records programs whose code is made at run time, from their start, and
// looks whether stacks pass through it to the true root.
func TestRuntimes(t *testing.T) {
	if testing.Short() {
		t.Skip("records for 3 s each")
	}
	if os.Geteuid() != 0 {
		t.Skip("sampling needs root")
	}
	dir := directory(t)
	lowflame := filepath.Join(dir, "lowflame")
	buildLowflame(t, lowflame)
	src, err := workloads.Extract(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	java := func(flags ...string) []string {
		return append(append([]string{"java", "-Xmx256m", "-cp", dir}, flags...), "Work", "3", "map")
	}
	node := func(flags ...string) []string {
		return append(append([]string{"node"}, flags...), filepath.Join(src, "node", "work.js"), "3")
	}
	tests := []struct {
		name    string
		command []string
		named   string // a function that must be in many stacks
		amd64   bool
	}{
		{"java", java(), "Work.", true},
		{"java-frame-pointers", java("-XX:+PreserveFramePointer"), "Work.", false},
		{"java-interpreted", java("-Xint"), "Interpreter", true},
		{"java-c1", java("-XX:TieredStopAtLevel=1"), "Work.", true},
		{"node", node(), "", false},
		{"node-named", node("--perf-basic-prof", "--logfile="+filepath.Join(dir, "v8.log")), "leaf", false},
		{"node-native-stack", node("--interpreted-frames-native-stack"), "", false},
	}
	compiled := false
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.amd64 && runtime.GOARCH != "amd64" {
				t.Skip("walked by frame pointers here")
			}
			if _, err := exec.LookPath(test.command[0]); err != nil {
				t.Skipf("not installed: %v", err)
			}
			if test.command[0] == "java" && !compiled {
				run(t, "javac", "-d", dir, filepath.Join(src, "java", "Work.java"))
				compiled = true
			}
			judge := func() []string {
				out := filepath.Join(dir, test.name+".pb.gz")
				run(t, lowflame, append([]string{"record", "--symbols=names", "-F", "199", "-o", out, "--"}, test.command...)...)
				prof := readProfile(t, out)
				return append(CheckProfile(prof), checkRuntime(t, FromProfile(prof, 0), test.command[0], test.named)...)
			}
			problems := judge()
			if len(problems) != 0 {
				t.Logf("once more, after: %s", strings.Join(problems, "; ")) // as testWorkload
				problems = judge()
			}
			for _, problem := range problems {
				t.Error(problem)
			}
		})
	}
}

// checkRuntime returns what is wrong with a recording of a runtime.
func checkRuntime(t *testing.T, rec Recording, program, named string) (problems []string) {
	t.Helper()
	var user, whole, made, rooted, withName int64
	stops := map[string]int64{}
	for i := range rec.Samples {
		s := &rec.Samples[i]
		if !s.user() {
			continue
		}
		user += s.Count
		if s.Truncated != "" {
			stops[s.Truncated] += s.Count
			continue
		}
		whole += s.Count
		if !madeAtRunTime(s) {
			continue
		}
		made += s.Count
		if trueRoot(s, program) {
			rooted += s.Count
		}
		if named != "" && mentions(s, named) {
			withName += s.Count
		}
	}
	t.Logf("%d samples, %.2f %% complete (%v); %d with code made at run time, %.2f %% of them with the true root, %d named",
		user, 100*float64(whole)/float64(max(user, 1)), stops, made, 100*float64(rooted)/float64(max(made, 1)), withName)
	switch {
	case user < 100 || made < user/4:
		return []string{fmt.Sprintf("%d samples, %d with code made at run time: too few to judge", user, made)}
	case float64(whole) < minThroughJIT*float64(user):
		return []string{fmt.Sprintf("%d of %d stacks are complete, want %v", whole, user, minThroughJIT)}
	case float64(rooted) < minRooted*float64(made):
		return []string{fmt.Sprintf("%d of %d complete stacks have the true root", rooted, made)}
	case named != "" && withName < made/4:
		return []string{fmt.Sprintf("%d of %d stacks have a function called %s", withName, made, named)}
	}
	return nil
}

// madeAtRunTime reports whether code in no file is in the stack, but for the kernel's.
func madeAtRunTime(s *Sample) bool {
	for _, f := range s.Frames {
		if !f.Kernel && (strings.HasPrefix(f.Binary, "//anon") || strings.HasPrefix(f.Binary, "[anon")) {
			return true
		}
	}
	return false
}

// trueRoot reports whether a complete stack begins where threads do, in the C library
// or in the program, and enters Java code as the virtual machine does.
func trueRoot(s *Sample, program string) bool {
	root := s.Frames[0]
	if !strings.Contains(root.Binary, "libc.so") && !strings.Contains(root.Binary, "/"+program) {
		return false
	}
	return program != "java" || mentions(s, "JavaCalls::call_helper")
}

func mentions(s *Sample, name string) bool {
	for _, f := range s.Frames {
		if strings.Contains(f.Function, name) {
			return true
		}
	}
	return false
}
