// SPDX-License-Identifier: Apache-2.0

package objfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestOpenFile opens what is no ELF file: none of it may be waited for, and the
// error says which file it is of.
func TestOpenFile(t *testing.T) {
	dir := t.TempDir()
	pipe, text := filepath.Join(dir, "pipe"), filepath.Join(dir, "text")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(text, []byte("not ELF"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		path string
		want error // that is wrapped, if any
	}{
		{pipe, nil}, {dir, nil}, {text, ErrNotELF}, {filepath.Join(dir, "none"), fs.ErrNotExist},
	} {
		o, f, err := OpenFile(tt.path)
		if err == nil || o != nil || f != nil || !strings.Contains(err.Error(), tt.path) || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.path, err, tt.want)
		}
	}
	o, f, err := OpenFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil || o.Entry == 0 {
		t.Errorf("entry point %#x, %v", o.Entry, err)
	}
}
