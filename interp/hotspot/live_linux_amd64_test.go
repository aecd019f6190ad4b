// SPDX-License-Identifier: Apache-2.0

package hotspot

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lowflame/lowflame/internal/testutil"
	"github.com/lowflame/lowflame/stack"
)

const spin = `
public class Spin {
    static long down(int n) { return n == 0 ? System.nanoTime() : down(n - 1) + 1; }
    public static void main(String[] args) {
        long s = 0;
        for (int i = 0; i < 200_000; i++) s += down(10);
        System.out.println("warm " + s);
        while (true) s += down(10);
    }
}
`

// startJava runs a Java program until the test ends, and returns when it is warm.
func startJava(t *testing.T) int {
	t.Helper()
	if _, err := exec.LookPath("java"); err != nil {
		t.Skipf("no Java: %v", err)
	}
	src := filepath.Join(t.TempDir(), "Spin.java")
	if err := os.WriteFile(src, []byte(spin), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "java", "-Xmx256m", src)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatalf("java said %q: %v", line, err)
	}
	return cmd.Process.Pid
}

// libjvm finds the library in a process.
func libjvm(t *testing.T, pid int) (Symbols, uint64) {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(maps)) {
		var begin, end, off uint64
		if !strings.Contains(line, "libjvm.so") {
			continue
		}
		if n, _ := fmt.Sscanf(line, "%x-%x r-xp %x", &begin, &end, &off); n != 3 {
			continue
		}
		path := strings.Fields(line)[5]
		o := testutil.OpenObject(t, path)
		bias, ok := o.Bias(stack.Addr(begin), stack.Addr(end), stack.FileOff(off))
		symbols, found := FindSymbols(o)
		if !ok || !found {
			t.Fatalf("no symbols in %s", path)
		}
		return symbols, bias
	}
	t.Fatal("no libjvm.so")
	return nil, 0
}

// TestLive reads a real virtual machine: every compiled method is understood, and the
// interpreter and the stubs for the most part.
func TestLive(t *testing.T) {
	pid := startJava(t)
	symbols, bias := libjvm(t, pid)
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Skipf("memory of another process cannot be read: %v", err)
	}
	defer mem.Close()
	v, err := Open(symbols, bias, mem)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	chunks, ranges, err := v.Refresh()
	if err != nil || len(chunks) == 0 || len(ranges) == 0 {
		t.Fatalf("%d pieces of code in %v: %v", len(chunks), ranges, err)
	}
	t.Logf("%d pieces of code read in %v", len(v.known), time.Since(began))
	methods, bad := 0, 0
	for _, k := range v.known {
		name, lost, size := v.blobNames[k.name], uint64(0), k.end-k.begin
		for i, r := range k.rows[:len(k.rows)-1] {
			if r.Rule == v.code.Lost() {
				lost += k.rows[i+1].PC - r.PC
			}
		}
		switch {
		case strings.HasSuffix(name, "nmethod"):
			methods++
			if lost > uint64(max(k.complete, 0))+96 { // entries written over; what never returns
				bad++
				t.Logf("%s at %#x: %d of %d bytes are not understood", name, k.begin, lost, size)
			}
		case name == "Interpreter", strings.HasPrefix(name, "StubRoutines"):
			if 4*lost > size {
				t.Errorf("%s: %d of %d bytes are not understood", name, lost, size)
			}
		}
	}
	if methods < 50 || 50*bad > methods {
		t.Errorf("%d of %d compiled methods are not understood", bad, methods)
	}
}
