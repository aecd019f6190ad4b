// SPDX-License-Identifier: Apache-2.0

package file

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/pprof/profile"
)

// names returns what is in dir, hidden files too.
func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}

func TestWriteReplaces(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.folded")
	link := filepath.Join(dir, "link.folded")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("a.folded", link); err != nil {
		t.Fatal(err)
	}
	if err := Write(link, scene(t), Options{Format: Folded}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, encode(t, scene(t), Options{Format: Folded})) {
		t.Errorf("file holds %.40q, %v", got, err)
	}
	if n := names(t, dir); n != "a.folded link.folded" {
		t.Errorf("directory holds %s", n)
	}
}

func TestWriteFailureLeavesOldFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.pb.gz")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := Write(path, scene(t), Options{Format: "nonsense"})
	if err == nil || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), ".tmp") {
		t.Errorf("error is %v", err)
	}
	if got, _ := os.ReadFile(path); string(got) != "old" {
		t.Errorf("file holds %.40q", got)
	}
	if n := names(t, dir); n != "a.pb.gz" {
		t.Errorf("directory holds %s", n)
	}
}

func TestWriteErrors(t *testing.T) {
	dir := t.TempDir()
	err := Write(filepath.Join(dir, "none", "a.pb.gz"), scene(t), Options{Format: Pprof})
	if !errors.Is(err, os.ErrNotExist) || strings.Contains(err.Error(), ".tmp") {
		t.Errorf("no directory: %v", err)
	}
	if err := Write(dir, scene(t), Options{Format: Pprof}); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("directory: %v", err)
	}
	if err := Write("/dev/full", scene(t), Options{Format: Pprof}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("full device: %v", err)
	}
	if st, err := os.Stat("/dev/full"); err != nil || st.Mode().IsRegular() {
		t.Errorf("the device was replaced: %v", err)
	}
}

func TestWriteStdout(t *testing.T) {
	var b bytes.Buffer
	if err := Write("-", scene(t), Options{Format: Pprof, Stdout: &b}); err != nil {
		t.Fatal(err)
	}
	if _, err := profile.Parse(&b); err != nil {
		t.Error(err)
	}
}
