// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestReadBPF(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"0": "pos:\t0\nflags:\t02\n",
		"5": "pos:\t0\nmap_type:\t5\nmemlock:\t4096\nmap_id:\t7\n",
		"6": "pos:\t0\nmap_type:\t5\nmemlock:\t4096\nmap_id:\t7\n", // the same map again
		"7": "map_type:\t1\nmemlock:\t100\nmap_id:\t8\n",
		"8": "prog_type:\t7\nmemlock:\t999\nprog_id:\t7\nrun_time_ns:\t3000\nrun_cnt:\t3\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := BPF{Maps: 2, MapBytes: 4196, Runs: 3, Samples: 3, RunTime: 3 * time.Microsecond}
	if got := readBPF(dir); got != want {
		t.Errorf("readBPF = %+v, want %+v", got, want)
	}
	if got := readBPF(filepath.Join(dir, "none")); got != (BPF{}) {
		t.Errorf("readBPF of a process that ended = %+v, want nothing", got)
	}
}

func TestReportDemand(t *testing.T) {
	var out bytes.Buffer
	r := &Report{Out: &out}
	r.Demand("share", 99, 98, true, "%")
	r.Demand("cost", 3, 3, false, "%")
	dir := t.TempDir()
	if err := r.Save(dir, "x.txt"); err != nil {
		t.Errorf("Save with all demands met: %v", err)
	}
	r.Demand("share", 97.9, 98, true, "%")
	r.Demand("cost", 3.1, 3, false, "%")
	r.Problem("a thing")
	if err := r.Save(dir, "x.txt"); err == nil || !strings.Contains(err.Error(), "3 demands missed") {
		t.Errorf("Save with three demands missed: %v", err)
	}
	saved, err := os.ReadFile(filepath.Join(dir, "x.txt"))
	if err != nil || string(saved) != out.String() {
		t.Errorf("saved %q (%v), printed %q", saved, err, out.String())
	}
}
