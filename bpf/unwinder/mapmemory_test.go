// SPDX-License-Identifier: GPL-2.0

package unwinder

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
)

// accounted is what the kernel says the maps of this process take (kernel:
// bpf_map_show_fdinfo), each map once.
func accounted(t *testing.T) int64 {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fdinfo")
	if err != nil {
		t.Fatal(err)
	}
	maps := map[string]int64{}
	for _, f := range files {
		info, err := os.ReadFile("/proc/self/fdinfo/" + f.Name())
		if err != nil {
			continue // the directory's own
		}
		fields := map[string]string{}
		for line := range strings.Lines(string(info)) {
			name, value, _ := strings.Cut(line, ":")
			fields[name] = strings.TrimSpace(value)
		}
		if id := fields["map_id"]; id != "" {
			if maps[id], err = strconv.ParseInt(fields["memlock"], 10, 64); err != nil {
				t.Fatal(err)
			}
		}
	}
	total := int64(0)
	for _, n := range maps {
		total += n
	}
	return total
}

// accountsMemory reports whether the kernel says what maps really take (kernel:
// 90a5527d7686 "bpf: add new map ops ->map_mem_usage").
func accountsMemory(t *testing.T) bool {
	t.Helper()
	const version6_4 = 6<<16 | 4<<8
	v, err := features.LinuxVersionCode()
	if err != nil {
		t.Fatal(err)
	}
	return v >= version6_4
}

// TestMapMemory holds the formula to what the kernel accounts, and says what it
// gives for other machines.
func TestMapMemory(t *testing.T) {
	online, err := OnlineCPUs()
	if err != nil {
		t.Fatal(err)
	}
	possible, err := ebpf.PossibleCPU()
	if err != nil {
		t.Fatal(err)
	}
	for _, cfg := range []Config{{}, {Frequency: 19, Window: 10 * time.Second, MaxProcesses: 1000}} {
		t.Run(fmt.Sprintf("%d Hz", cfg.withDefaults().Frequency), func(t *testing.T) {
			before := accounted(t)
			u := open(t, cfg)
			got := accounted(t) - before
			want, err := MapMemory(u.cfg, len(online), possible, 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("the formula says %d bytes, the kernel %d", want, got)
			if !accountsMemory(t) {
				t.Log("not compared: before Linux 6.4 the kernel counts keys and values only, of one CPU")
				return
			}
			if d := max(want-got, got-want); got < 1<<20 || d > got/10 {
				t.Errorf("the formula says %d bytes, the kernel %d", want, got)
			}
		})
	}
	for _, m := range []struct {
		name           string
		cpus           int
		cfg            Config
		shards, chunks int
	}{
		{"this machine at 199 Hz, 100 processes, 8 MiB of tables", len(online), Config{}, 8, 1},
		{"256 CPUs at 19 Hz, 10 000 processes of 40 mappings, 64 MiB of tables", 256, Config{Frequency: 19}, 64, 25},
		{"256 CPUs at 199 Hz, 10 000 processes of 40 mappings, 64 MiB of tables", 256, Config{}, 64, 25},
	} {
		n, err := MapMemory(m.cfg, m.cpus, m.cpus, m.shards, m.chunks)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %.1f MiB", m.name, float64(n)/(1<<20))
	}
}
