// SPDX-License-Identifier: Apache-2.0

package accuracy

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What Go's runtime has its own stack for: it calls closures there, which are named
// after the function that does.
const systemstackSource = `package main

import (
	"runtime"
	"strconv"
	"time"
)

func main() {
	var stats runtime.MemStats
	text := make([]byte, 1<<16)
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		for range 50 {
			runtime.ReadMemStats(&stats)
			runtime.Stack(text, true)
		}
		blocks := map[string][]byte{}
		for i := range 100 {
			blocks[strconv.Itoa(i)] = make([]byte, 40000)
		}
	}
}
`

var closure = regexp.MustCompile(`\.func\d+$`)

// TestSystemstack holds that no frame is lost, or put in, where Go's runtime changes
// to its own stack.
func TestSystemstack(t *testing.T) {
	if testing.Short() {
		t.Skip("records for 2 s")
	}
	if os.Geteuid() != 0 {
		t.Skip("sampling needs root")
	}
	dir := t.TempDir()
	source, program, lowflame, out := filepath.Join(dir, "main.go"), filepath.Join(dir, "program"), filepath.Join(dir, "lowflame"), filepath.Join(dir, "p.pb.gz")
	if err := os.WriteFile(source, []byte(systemstackSource), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, source).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	buildLowflame(t, lowflame)
	run(t, lowflame, "record", "-F", "997", "-o", out, "--", program)
	var calls, whole, all int64
	wrong := make(map[string]int64)
	rec := FromProfile(readProfile(t, out), 0)
	for _, s := range rec.Samples {
		if !s.user() || s.Comm != "program" {
			continue
		}
		all += s.Count
		if s.Truncated == "" {
			whole += s.Count
		}
		for i := 1; i < len(s.Frames)-1; i++ {
			caller, callee := s.Frames[i-1].Function, s.Frames[i+1].Function
			short := caller[strings.LastIndex(caller, ".")+1:]
			if s.Frames[i].Function != "runtime.systemstack" || !closure.MatchString(callee) || closure.MatchString(caller) {
				continue
			}
			calls += s.Count
			if !strings.Contains(callee, "."+short+".") {
				wrong[fmt.Sprintf("%s calls %s", caller, callee)] += s.Count
			}
		}
	}
	t.Logf("%d calls on the runtime's stack; %d of %d stacks are complete", calls, whole, all)
	if calls < 50 || len(wrong) != 0 || float64(whole) < MinComplete*float64(all) {
		t.Errorf("%d calls on the runtime's stack, of others than who makes them:%s\n%d of %d stacks are complete", calls, Top(wrong, 5), whole, all)
	}
}
