// SPDX-License-Identifier: GPL-2.0

package unwinder

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// OnlineCPUs lists the CPUs that can be sampled now.
func OnlineCPUs() ([]int, error) {
	const path = "/sys/devices/system/cpu/online"
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var cpus []int
	for part := range strings.SplitSeq(strings.TrimSpace(string(text)), ",") {
		low, high, ranged := strings.Cut(part, "-")
		if !ranged {
			high = low
		}
		first, err1 := strconv.Atoi(low)
		last, err2 := strconv.Atoi(high)
		if err := errors.Join(err1, err2); err != nil || last-first > 1<<16 {
			return nil, fmt.Errorf("%s: unexpected %q", path, part)
		}
		for cpu := first; cpu <= last; cpu++ {
			cpus = append(cpus, cpu)
		}
	}
	return cpus, nil
}

// maxSampleRate reads the rate above which perf_event_open gives EINVAL. The
// kernel lowers it by itself when interrupts take too long.
func maxSampleRate() (int, error) {
	const path = "/proc/sys/kernel/perf_event_max_sample_rate"
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	rate, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || rate < 1 {
		return 0, fmt.Errorf("%s: unexpected %q", path, text)
	}
	return rate, nil
}

// busyTimes reads how long each CPU that is online has not been idle since boot.
func busyTimes() (map[int]time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return nil, err
	}
	return parseBusy(string(text)), nil
}

// parseBusy reads the lines "cpuN user nice system idle iowait irq softirq steal …"
// of /proc/stat (proc(5)). Steal is time that others had.
func parseBusy(text string) map[int]time.Duration {
	const tick = time.Second / 100 // USER_HZ, the same everywhere lowflame runs
	busy := make(map[int]time.Duration)
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 8 || !strings.HasPrefix(fields[0], "cpu") {
			continue
		}
		cpu, err := strconv.Atoi(fields[0][len("cpu"):])
		if err != nil { // the sum of all
			continue
		}
		var ticks uint64
		for _, i := range []int{1, 2, 3, 6, 7} {
			n, err := strconv.ParseUint(fields[i], 10, 64)
			if err != nil {
				break
			}
			ticks += n
		}
		busy[cpu] = time.Duration(ticks) * tick
	}
	return busy
}
