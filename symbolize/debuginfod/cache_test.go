// SPDX-License-Identifier: Apache-2.0

package debuginfod

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// cacheFull fetches a file into a cache that has room for two.
func cacheFull(t *testing.T, url, path string) {
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for i, name := range []string{"aa.debug", "bb.debug"} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, info.Size()), 0o600); err != nil {
			t.Fatal(err)
		}
		used := time.Now().Add(-time.Duration(1+i) * time.Hour) // bb before aa
		if err := os.Chtimes(filepath.Join(dir, name), used, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	c := newClient(t, Config{URLs: []string{url}, Dir: dir, CacheBytes: 2*info.Size() + 100})
	wantFile(t, path)(c.Fetch(t.Context(), id))
	wantClean(t, c, id+".debug", "aa.debug")
	if got := c.Stats().Evicted; got != 1 {
		t.Errorf("%d evicted, want 1", got)
	}
	small := newClient(t, Config{URLs: []string{url}, CacheBytes: 100})
	wantErr(t, ErrTooLarge)(small.Fetch(t.Context(), id))
}

// TestSweep opens a cache in which one process died and another receives a file.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	c := newClient(t, Config{Dir: dir})
	p, err := c.cache.begin()
	if err != nil {
		t.Fatal(err)
	}
	defer p.abort()
	if err := os.WriteFile(filepath.Join(dir, "dead.part"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantClean(t, newClient(t, Config{Dir: dir}), filepath.Base(p.name))
}

func TestConfig(t *testing.T) {
	for _, url := range []string{"", "ftp://a", "http://", "file:///etc", "http://a/?q", "http://[", "a:80"} {
		if _, err := New(Config{URLs: []string{url}, Dir: t.TempDir()}); err == nil {
			t.Errorf("%q was taken", url)
		}
	}
	c := newClient(t, Config{URLs: []string{"http://127.0.0.1:1"}})
	for _, id := range []string{"", "12", "../../../../etc/passwd", "0123456789ABCDEF", "012345678", strings.Repeat("ab", 65), "01234567/.."} {
		wantErr(t, ErrNotCached)(c.Fetch(t.Context(), id))
	}
	wantStats(t, c, Stats{})
}
