// SPDX-License-Identifier: Apache-2.0

// Package measure runs lowflame and measures what it costs from outside: CPU
// time and memory as the kernel accounts them, and memory of its BPF maps.
package measure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/google/pprof/profile"
)

// Run is one run of lowflame.
type Run struct {
	Started time.Time
	Wall    time.Duration
	CPU     time.Duration // of the process, user and kernel mode; not of its BPF programs
	RSS     int64         // largest resident memory, bytes
	BPF     BPF           // largest values seen
	// FirstSample is how long after Started the BPF program that samples was seen
	// to have run; 0 without [CountRuns].
	FirstSample time.Duration
	Profile     *profile.Profile
}

// BPF is what the BPF objects a process holds open use.
type BPF struct {
	Maps     int
	MapBytes int64         // memory of maps as charged by the kernel
	Runs     uint64        // of programs; 0 without [CountRuns]
	Samples  uint64        // of these, runs on a perf event
	RunTime  time.Duration // of programs; 0 without [CountRuns]
}

// Build builds lowflame of the module in the current directory into dir and
// returns its path.
func Build(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "lowflame")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", path, "github.com/lowflame/lowflame/cmd/lowflame")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build lowflame: %w\n%s", err, out)
	}
	return path, nil
}

// Record runs "lowflame record" with args, which must not name an output file,
// and waits for it to end. Indexes of symbols are not made, unless args ask for them:
// what that costs depends on what is in the cache.
func Record(ctx context.Context, lowflame string, args ...string) (*Run, error) {
	return RecordDuring(ctx, lowflame, nil, args...)
}

// startUp is how long RecordDuring gives lowflame until it samples.
const startUp = 1500 * time.Millisecond

// RecordDuring runs "lowflame record" like Record and, once it should be sampling,
// calls work and ends the recording when that returns. If work is nil the recording
// ends by itself.
func RecordDuring(ctx context.Context, lowflame string, work func() error, args ...string) (*Run, error) {
	dir, err := os.MkdirTemp("", "lowflame-benchmark-")
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "profile.pb.gz")
	cmd := exec.CommandContext(ctx, lowflame, append([]string{"record", "-q", "--symbols=names", "-o", out}, args...)...)
	cmd.Stderr = os.Stderr
	run := &Run{Started: time.Now()}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	ended := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		run.watch(cmd.Process.Pid, ended)
	}()
	if work != nil {
		time.Sleep(startUp)
		err = errors.Join(work(), cmd.Process.Signal(os.Interrupt))
	}
	err = errors.Join(err, cmd.Wait())
	close(ended)
	<-watched
	run.Wall = time.Since(run.Started)
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	run.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return nil, errors.New("record: no resource usage of the process")
	}
	run.RSS = usage.Maxrss << 10
	run.Profile, err = readProfile(out)
	return run, err
}

func readProfile(path string) (*profile.Profile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read profile: %w", err)
	}
	defer f.Close()
	p, err := profile.Parse(f)
	if err != nil {
		return nil, fmt.Errorf("read profile: %w", err)
	}
	return p, nil
}

// watch looks at the BPF objects of a process until ended, often until it samples
// and four times a second from then on, and keeps the largest numbers.
func (r *Run) watch(pid int, ended <-chan struct{}) {
	const often = 3 * time.Millisecond
	tick := time.NewTicker(often)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return
		case <-tick.C:
		}
		now := readBPF(fmt.Sprintf("/proc/%d/fdinfo", pid))
		if now.Samples > 0 && r.FirstSample == 0 {
			r.FirstSample = time.Since(r.Started)
			tick.Reset(250 * time.Millisecond)
		}
		r.BPF.Maps = max(r.BPF.Maps, now.Maps)
		r.BPF.MapBytes = max(r.BPF.MapBytes, now.MapBytes)
		r.BPF.Runs = max(r.BPF.Runs, now.Runs)
		r.BPF.Samples = max(r.BPF.Samples, now.Samples)
		r.BPF.RunTime = max(r.BPF.RunTime, now.RunTime)
	}
}

// readBPF adds up what dir, the fdinfo directory of a process, says of BPF maps
// and programs (kernel: bpf_map_show_fdinfo, bpf_prog_show_fdinfo). An object
// open twice counts once.
func readBPF(dir string) BPF {
	var b BPF
	seen := make(map[string]bool)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return b // the process has ended
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			continue
		}
		info := parseInfo(string(text))
		if id := info["map_id"]; id != "" && !seen["map"+id] {
			seen["map"+id] = true
			b.Maps++
			b.MapBytes += int64(number(info["memlock"]))
		}
		if id := info["prog_id"]; id != "" && !seen["prog"+id] {
			seen["prog"+id] = true
			b.Runs += number(info["run_cnt"])
			if info["prog_type"] == perfEventProgram {
				b.Samples += number(info["run_cnt"])
			}
			b.RunTime += time.Duration(number(info["run_time_ns"]))
		}
	}
	return b
}

// perfEventProgram is BPF_PROG_TYPE_PERF_EVENT of include/uapi/linux/bpf.h.
const perfEventProgram = "7"

// parseInfo parses "key:\tvalue" lines.
func parseInfo(text string) map[string]string {
	info := make(map[string]string)
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(line, ":"); ok {
			info[key] = strings.TrimSpace(value)
		}
	}
	return info
}

func number(s string) uint64 {
	var n uint64
	fmt.Sscan(s, &n)
	return n
}

const statsSysctl = "/proc/sys/kernel/bpf_stats_enabled"

// CountRuns makes the kernel count runs of BPF programs and their time until
// undo is called. It costs some 20 ns a run.
func CountRuns() (undo func() error, err error) {
	before, err := os.ReadFile(statsSysctl)
	if err != nil {
		return nil, fmt.Errorf("count runs of BPF programs: %w", err)
	}
	if err := os.WriteFile(statsSysctl, []byte("1"), 0); err != nil {
		return nil, fmt.Errorf("count runs of BPF programs: %w", err)
	}
	return func() error { return os.WriteFile(statsSysctl, before, 0) }, nil
}
