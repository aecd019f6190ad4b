// SPDX-License-Identifier: Apache-2.0

package jit

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lowflame/lowflame/stack"
)

// firstAddr returns an address inside a function in the perf map of pid whose
// line contains text, waiting for it.
func firstAddr(t *testing.T, path, text string) stack.Addr {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for sc := bufio.NewScanner(strings.NewReader(string(b))); sc.Scan(); {
			if start, size, name, ok := parseLine(sc.Bytes()); ok && size > 4 && strings.Contains(string(name), text) {
				return stack.Addr(start) + 1
			}
		}
	}
	t.Fatalf("no line with %q in %s", text, path)
	return 0
}

func TestNode(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("needs node")
	}
	script := filepath.Join(t.TempDir(), "fib.js")
	if err := os.WriteFile(script, []byte("function fib(n){return n<2?n:fib(n-1)+fib(n-2)}\nfor(;;)fib(20)\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(node, "--perf-basic-prof", script)
	cmd.Dir = t.TempDir() // node leaves a log there
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := Process{PID: uint32(cmd.Process.Pid)}
	path := perfMapPath(p.PID)
	t.Cleanup(func() { os.Remove(path) })
	m := New(Config{})
	addr := firstAddr(t, path, "fib "+script)
	if err := m.Refresh(p); err != nil {
		t.Error(err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if name, ok, err := m.Lookup(p, addr); !ok || !strings.Contains(name.Name, "fib "+script) {
		t.Errorf("Lookup after exit = %q, %v, %v", name.Name, ok, err)
	}
	t.Logf("%+v", m.Stats())
}

func perfMapPath(pid uint32) string {
	return fmt.Sprintf("/tmp/perf-%d.map", pid)
}

// TestJavaMapWrittenAtExit asks while the process lives, when there is no map
// yet, and again after it wrote one on its way out.
func TestJavaMapWrittenAtExit(t *testing.T) {
	java, err := exec.LookPath("java")
	if err != nil {
		t.Skip("needs java")
	}
	src := filepath.Join(t.TempDir(), "J.java")
	code := `public class J {
	static long hot(long n) { long s = 0; for (long i = 0; i < n; i++) s += i ^ s; return s; }
	public static void main(String[] a) throws Exception {
		long s = 0;
		for (int i = 0; i < 50000; i++) s += hot(1000);
		System.out.println("ready " + s);
		System.in.read();
	}
}
`
	if err := os.WriteFile(src, []byte(code), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(java, "-XX:+UnlockDiagnosticVMOptions", "-XX:+DumpPerfMapAtExit", src)
	stdin, _ := cmd.StdinPipe()
	stdout, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatalf("java said %q: %v", line, err)
	}
	p := Process{PID: uint32(cmd.Process.Pid)}
	t.Cleanup(func() { os.Remove(perfMapPath(p.PID)) })
	m := New(Config{})
	if _, ok, _ := m.Lookup(p, 0x1000); ok {
		t.Error("a name from nowhere")
	}
	stdin.Write([]byte("\n"))
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	addr := firstAddr(t, perfMapPath(p.PID), "J.hot(long)")
	if err := m.Refresh(p); err != nil {
		t.Error(err)
	}
	if name, ok, err := m.Lookup(p, addr); !ok || !strings.Contains(name.Name, "J.hot(long)") {
		t.Errorf("Lookup after exit = %q, %v, %v", name.Name, ok, err)
	}
}
