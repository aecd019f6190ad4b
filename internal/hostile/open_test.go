// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestInRoot resolves paths in a root by openat2 and without.
func TestInRoot(t *testing.T) {
	top := t.TempDir()
	root := filepath.Join(top, "root")
	secret := filepath.Join(top, "secret")
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	in := func(path string) string { return filepath.Join(root, path) }
	must(os.MkdirAll(in("a/b"), 0o755), os.WriteFile(secret, []byte("outside"), 0o600),
		os.WriteFile(in("secret"), []byte("inside"), 0o600), os.WriteFile(in("a/b/file"), []byte("file"), 0o600),
		unix.Mkfifo(in("fifo"), 0o600))
	for name, to := range map[string]string{
		"absolute": "/secret", "relative": "a/b/file", "up": strings.Repeat("../", 50) + "secret", "out": secret,
		"dir": "/a/../a/b", "a/back": "..", "self": "self", "ring": "gnir", "gnir": "/ring", "none": "/nothing",
		"slash": "/a/b/", "here": ".", "tofifo": "fifo", "long": strings.Repeat("./", 2000) + "secret",
	} {
		must(os.Symlink(to, in(name)))
	}
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(err)
	defer unix.Close(dir)

	for path, want := range map[string]string{
		"secret": "inside", "/secret": "inside", "../secret": "inside", "../../../../secret": "inside",
		"a/b/file": "file", "a//b/./file": "file", "a/b/../../secret": "inside", "absolute": "inside", "relative": "file",
		"up": "inside", "dir/file": "file", "dir/../../secret": "inside", "dir/../b/file": "file", "a/back/secret": "inside",
		"a/back/a/back/dir/file": "file", "slash/file": "file", "slash//file": "file", "here/here/secret": "inside", "long": "inside",
		"out": "", "none": "", "self": "", "ring": "", "nothing": "", "secret/x": "", "secret/": "", "absolute/x": "", "fifo": "",
		"tofifo": "", "dir": "", "a/b/": "", ".": "", "/": "", "..": "", "a/b/file/..": "", "self/x": "",
		strings.Repeat("a/back/", 30) + "secret": "inside", strings.Repeat("a/back/", 50) + "secret": "",
	} {
		got := [2]string{}
		fd, _, err := OpenRegular(dir, path, InRoot)
		got[0] = content(t, fd)
		if want == "" && err == nil {
			t.Errorf("%.40s was opened", path)
		}
		hold, walkErr := walkInRoot(dir, path)
		if walkErr == nil {
			var st unix.Stat_t
			must(unix.Fstat(hold, &st))
			if st.Mode&unix.S_IFMT == unix.S_IFREG {
				fd, _, err := OpenRegular(unix.AT_FDCWD, filepath.Join("/proc/self/fd", strconv.Itoa(hold)), 0)
				must(err)
				got[1] = content(t, fd)
			}
			unix.Close(hold)
		} else if !errors.Is(err, ErrNotRegular) && !errors.Is(err, walkErr) {
			t.Errorf("%.40s: %v by openat2, %v without", path, err, walkErr)
		}
		if got[0] != want || got[1] != want {
			t.Errorf("%.40s leads to %q, without openat2 to %q, want %q", path, got[0], got[1], want)
		}
	}
	if left := openBelow(t, top); left != 1 {
		t.Errorf("%d files open, want that of the root", left)
	}
}

func content(t *testing.T, fd int) string {
	if fd < 0 {
		return ""
	}
	f := os.NewFile(uintptr(fd), "file")
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		t.Error(err)
	}
	return string(data)
}

func openBelow(t *testing.T, dir string) (n int) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(to, dir) {
			n++
		}
	}
	return n
}

// TestWalkDepth goes deeper than the walk holds directories open.
func TestWalkDepth(t *testing.T) {
	root := t.TempDir()
	deep := strings.Repeat("d/", 200)
	if err := os.MkdirAll(filepath.Join(root, deep), 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dir)
	if fd, err := walkInRoot(dir, deep); !errors.Is(err, unix.ENAMETOOLONG) {
		t.Errorf("descriptor %d, %v", fd, err)
	}
	if left := openBelow(t, root); left != 1 {
		t.Errorf("%d directories open, want that of the root", left)
	}
}
