// SPDX-License-Identifier: Apache-2.0

package accuracy

import (
	"bufio"
	"bytes"
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

	"github.com/lowflame/lowflame/benchmarks/workloads"
)

var oracle = flag.Bool("perf", false, "check the workloads with perf (TestPerf)")

// perfCannot is what perf gets wrong, so that it says nothing about a workload.
var perfCannot = map[string]string{
	"go":              "libunwind does not read .debug_frame of Go here, and frame pointers lose the leaf's caller",
	"go-stripped":     "no .debug_frame, and frame pointers lose the leaf's caller",
	"go-pie":          "as go",
	"cgo":             "as go, and the stack ends where Go changes stacks",
	"cgo-callback":    "as cgo",
	"signal-altstack": "records only the stack in use, not the interrupted one",
	"jit":             "DWARF unwinding ends in anonymous memory",
	"rust":            "no unwind information for most functions",
	"rust-tables":     "no unwind information for the C main that rustc 1.63 makes",
	"static":          "needs .eh_frame_hdr, which gcc -static leaves out",
}

// TestPerf judges recordings made by perf: it proves that the truths of the
// workloads are true, and that the checks accept another profiler's right answer.
func TestPerf(t *testing.T) {
	if !*oracle {
		t.Skip("takes two minutes and says nothing about lowflame; run with -perf")
	}
	if _, err := exec.LookPath("perf"); err != nil {
		t.Skipf("no oracle: %v", err)
	}
	forEachWorkload(t, func(t *testing.T, p workloads.Program) {
		rec, report := perfRecord(t, p)
		result := Check(rec, report)
		t.Log(result)
		if why := perfCannot[p.Name]; why != "" {
			t.Logf("%d problems", len(result.Problems))
			t.Skip(why)
		}
		for _, problem := range result.Problems {
			t.Error(problem)
		}
	})
}

// perfRecord records p with perf. perf 6.1 aborts now and then over a build ID
// longer than it expects ("util/build-id.c", "stack smashing detected"), in record
// or in script, hence the tries.
func perfRecord(t *testing.T, p workloads.Program) (Recording, *workloads.Report) {
	t.Helper()
	const tries = 4
	for range tries {
		rec, report, err := tryPerf(t, p)
		if err == nil {
			return rec, report
		}
		t.Log(err)
	}
	t.Fatalf("perf failed %d times", tries)
	return Recording{}, nil
}

func tryPerf(t *testing.T, p workloads.Program) (Recording, *workloads.Report, error) {
	t.Helper()
	data := filepath.Join(filepath.Dir(p.Path), "perf.data")
	defer os.Remove(data)
	stackBytes := "8192"
	if slices.Contains([]string{"recursion-500", "alloca"}, p.Name) {
		stackBytes = "65528"
	}
	args := append([]string{
		"record", "-q", "-N", "-B", "--no-bpf-event", "-e", "cpu-clock", "-F", strconv.Itoa(rate(p)),
		"--call-graph", "dwarf," + stackBytes, "-o", data, "--",
	}, p.Command(*seconds)...)
	stdout, _, err := try(t, "perf", args...)
	if err != nil {
		return Recording{}, nil, err
	}
	report, err := workloads.ParseReport(stdout)
	if err != nil {
		return Recording{}, nil, err
	}
	t.Cleanup(func() { os.Remove(fmt.Sprintf("/tmp/perf-%d.map", report.PID)) })
	script, _, err := try(t, "perf", "script", "-i", data, "--no-inline", "--max-stack", "2000", "-F", "tid,ip,sym,dso")
	if err != nil {
		return Recording{}, nil, err
	}
	return parsePerfScript(script, time.Second/time.Duration(rate(p))), report, nil
}

// parsePerfScript parses blocks of a line "TID" and lines "IP SYMBOL (DSO)",
// leaf first, separated by empty lines.
func parsePerfScript(script []byte, period time.Duration) Recording {
	rec := Recording{Period: period}
	var s *Sample
	lines := bufio.NewScanner(bytes.NewReader(script))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if strings.TrimSpace(line) == "" {
			s = nil
			continue
		}
		if s == nil {
			rec.Samples = append(rec.Samples, Sample{Count: 1})
			s = &rec.Samples[len(rec.Samples)-1]
			continue
		}
		s.Frames = append([]workloads.Frame{perfFrame(line)}, s.Frames...)
	}
	return rec
}

func perfFrame(line string) workloads.Frame {
	ip, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	var f workloads.Frame
	if i := strings.LastIndex(rest, " ("); i >= 0 {
		f.Function, f.Binary = strings.TrimSpace(rest[:i]), strings.TrimSuffix(rest[i+2:], ")")
	}
	if f.Function == "[unknown]" {
		f.Function = ""
	}
	address, err := strconv.ParseUint(ip, 16, 64)
	f.Kernel = err == nil && address >= kernelBase
	return f
}

func TestParsePerfScript(t *testing.T) {
	rec := parsePerfScript([]byte("   12 \n\tffffffff81000000 irq ([kernel.kallsyms])\n\t    5555 a::hot(int, long) (/tmp/x y/prog)\n"+
		"\t    5556 [unknown] (/lib/libc.so.6)\n\n   13 \n\t    1 main (/p)\n"), time.Millisecond)
	if len(rec.Samples) != 2 || len(rec.Samples[0].Frames) != 3 {
		t.Fatalf("got %+v", rec.Samples)
	}
	want := []workloads.Frame{
		{Binary: "/lib/libc.so.6"},
		{Function: "a::hot(int, long)", Binary: "/tmp/x y/prog"},
		{Function: "irq", Binary: "[kernel.kallsyms]", Kernel: true},
	}
	for i, f := range rec.Samples[0].Frames {
		if f != want[i] {
			t.Errorf("frame %d is %+v, want %+v", i, f, want[i])
		}
	}
}
