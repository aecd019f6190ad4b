// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/benchmarks/accuracy"
	"github.com/lowflame/lowflame/benchmarks/workloads"
	"github.com/lowflame/lowflame/pprofexport"
)

// What makes a kernel stop a sampling event for good. Each runs as the recorded
// command, and then a program that depends on the event.
const (
	hotplugArg  = "hotplug"
	throttleArg = "throttle"

	hotplugCycles = 20
	// restartTime is how long an event may be dead, with patience for the machine.
	// A recording promises ten seconds.
	restartTime = 5 * time.Second
	maxGap      = 10 * time.Second
)

// hotplug takes CPU 1 off and on again and runs a program there.
func hotplug() error {
	for range hotplugCycles {
		for _, state := range []string{"0", "1"} {
			if err := os.WriteFile("/sys/devices/system/cpu/cpu1/online", []byte(state), 0); err != nil {
				return err
			}
			time.Sleep(200 * time.Millisecond)
		}
	}
	time.Sleep(restartTime)
	return runOn(1)
}

// throttle has the kernel allow one sample a tick, fewer than there are, which
// stops a cpu-clock event on Linux 6.16 to 6.18.
func throttle() error {
	const path = "/proc/sys/kernel/perf_event_max_sample_rate"
	before, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte("200"), 0); err != nil {
		return err
	}
	// It dies within seconds.
	time.Sleep(4*time.Second + restartTime)
	return errors.Join(runOn(1), os.WriteFile(path, before, 0))
}

// runOn runs a workload on one CPU only.
func runOn(cpu int) error {
	runtime.LockOSThread() // the child has this thread's CPUs
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("run on CPU %d: %w", cpu, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), commandPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/recursion", seconds, "50")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

// survives records while an event stops, and expects the program that runs then in
// the profile, and the gap.
func survives(arg string, flags ...string) (string, error) {
	out := "/tmp/" + arg + ".pb.gz"
	args := append([]string{"record", "-o", out}, flags...)
	stdout, stderr, err := run("/bin/lowflame", append(args, "--", "/init", arg)...)
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, stderr)
	}
	report, err := workloads.ParseReport(stdout)
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, stdout)
	}
	r := recording{name: arg, command: []string{"/bin/recursion"}}
	j, problems, err := r.judgeProfile(out, report)
	if err != nil {
		return "", err
	}
	problems = append(problems, j.problems()...)
	prof, err := readProfile(out)
	if err != nil {
		return "", err
	}
	gaps := pprofexport.Counts(prof, "gaps")
	if arg == hotplugArg && gaps["restarted"] == 0 {
		problems = append(problems, "no event was restarted")
	}
	if gaps["restarted"] > 0 && gaps["unsampled_ns"]/gaps["restarted"] > maxGap.Nanoseconds() {
		problems = append(problems, fmt.Sprintf("events were dead for more than %v each", maxGap))
	}
	said := pprofexport.Comment(prof, "gaps")
	if len(problems) > 0 {
		return "", fmt.Errorf("%s\n%s\n%s", strings.Join(problems, "\n"), said, accuracy.Top(j.others, 8))
	}
	return fmt.Sprintf("%s; %s; %s", j, said, pprofexport.Comment(prof, "quality")), nil
}
