// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lowflame/lowflame/objfile"
)

// TestRecordDebuginfod records a program whose debug file a real server has.
func TestRecordDebuginfod(t *testing.T) {
	for _, tool := range []string{"debuginfod", "gcc", "objcopy"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	dir := t.TempDir()
	source, program, served := filepath.Join(dir, "sum.c"), filepath.Join(dir, "sum"), filepath.Join(dir, "served")
	if err := os.WriteFile(source, []byte(sumSource), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(served, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{
		{"gcc", "-O1", "-g", "-o", program, source},
		{"objcopy", "--only-keep-debug", program, filepath.Join(served, "sum.debug")},
		{"strip", "-g", program},
	} {
		if out, err := exec.CommandContext(t.Context(), command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", command, err, out)
		}
	}
	url := serve(t, served)
	record := func(name string, args ...string) string {
		out := filepath.Join(dir, name+".pb.gz")
		args = append([]string{"record", "-q", "--symbol-cache", filepath.Join(dir, name), "-o", out}, args...)
		if said, err := lowflame(t, append(args, "--", program)...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, said)
		}
		return raw(t, out)
	}
	if text := record("alone"); strings.Contains(text, "sum.c") {
		t.Errorf("lines without a server:\n%s", text)
	}
	if text := record("asked", "--debuginfod", url); !strings.Contains(text, "step "+source+":2") {
		t.Errorf("no lines of inlined calls with one:\n%s", text)
	}
}

// serve runs debuginfod on the files of a directory, until the test ends, and returns
// its URL once it has read them.
func serve(t *testing.T, dir string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	cmd := exec.CommandContext(t.Context(), "debuginfod", "-p", fmt.Sprint(port), "-d", ":memory:", "-F", dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Wait() }) // the test's context has ended it
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	id := buildID(t, filepath.Join(dir, "sum.debug"))
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		response, err := http.Get(url + "/buildid/" + id + "/debuginfo")
		if err != nil {
			continue
		}
		response.Body.Close()
		if response.StatusCode == http.StatusOK {
			return url
		}
	}
	t.Fatal("debuginfod does not serve")
	return ""
}

func buildID(t *testing.T, path string) string {
	t.Helper()
	o, f, err := objfile.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return o.BuildID.String()
}
