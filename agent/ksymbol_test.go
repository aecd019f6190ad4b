// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bufio"
	"context"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lowflame/lowflame/bpf/unwinder"
	"github.com/lowflame/lowflame/stack"
)

// bpfPrograms returns the programs in kallsyms, by address.
func bpfPrograms(t *testing.T) map[stack.Addr]string {
	t.Helper()
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	found := map[stack.Addr]string{}
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if p := strings.Fields(sc.Text()); len(p) == 4 && p[3] == "[bpf]" && strings.HasPrefix(p[2], "bpf_prog_") {
			addr, err := strconv.ParseUint(p[0], 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			found[stack.Addr(addr)] = p[2]
		}
	}
	return found
}

// TestNewBPFProgramHasName loads programs while a session runs: events name them,
// kallsyms is not read again.
func TestNewBPFProgramHasName(t *testing.T) {
	s := openSession(t, Config{Frequency: 19, Window: time.Second})
	s.symbols.Kernel(0xffffffff81000000) // reads kallsyms
	loads := s.symbols.Stats().Kernel.Loads
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	started := make(chan struct{})
	go func() { done <- s.Run(ctx, func() { close(started) }, func(Window) {}) }()
	select {
	case <-started:
	case err := <-done:
		t.Fatal(err)
	}
	before := bpfPrograms(t)
	u, err := unwinder.Open(unwinder.Config{})
	if err != nil {
		t.Fatal(err)
	}
	loaded := time.Now()
	fresh := map[stack.Addr]string{}
	for addr, name := range bpfPrograms(t) {
		if before[addr] != name && strings.Contains(name, "unw") {
			fresh[addr] = name
		}
	}
	if len(fresh) == 0 {
		t.Error("no new program in kallsyms")
	}
	var late time.Duration
	for addr, name := range fresh {
		for {
			module, lines := s.symbols.Kernel(addr + 1)
			late = max(late, time.Since(loaded))
			if module == "[bpf]" && len(lines) == 1 && lines[0].Name == name {
				break
			}
			if time.Since(loaded) > 5*time.Second {
				t.Errorf("%#x is %s %v, not %s", addr, module, lines, name)
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	t.Logf("%d programs, named after %v, kallsyms read %d times", len(fresh), late, s.symbols.Stats().Kernel.Loads)
	if late > 2*time.Second { // one second, on a machine that is busy with other things
		t.Errorf("named after %v", late)
	}
	if n := s.symbols.Stats().Kernel.Loads; n != loads {
		t.Errorf("kallsyms was read %d times, not %d", n, loads)
	}
	if err := u.Close(); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
