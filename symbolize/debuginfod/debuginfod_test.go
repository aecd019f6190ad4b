// SPDX-License-Identifier: Apache-2.0

package debuginfod

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	id      = "0123456789abcdef0123456789abcdef01234567"
	otherID = "7777777777777777777777777777777777777777"
)

// debugInfo makes a file of debugging information with a build ID in a new directory.
func debugInfo(t testing.TB, buildID string) (path string) {
	t.Helper()
	dir := t.TempDir()
	script := `cd "$1"; echo 'int main(void) { return 0; }' | gcc -g -xc -Wl,--build-id=0x$2 -o program -
objcopy --only-keep-debug program program.debug; rm program`
	if out, err := exec.CommandContext(t.Context(), "sh", "-ec", script, "sh", dir, buildID).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return filepath.Join(dir, "program.debug")
}

// serve starts Debian's debuginfod on a directory and waits until it has read it.
func serve(t testing.TB, dir, buildID string) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "debuginfod", "-F", "-d", ":memory:", "-t", "0", "-g", "0", "-p", port, dir)
	cmd.Env = append(os.Environ(), "DEBUGINFOD_URLS=", "HOME="+t.TempDir())
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // killed
	})
	url = "http://127.0.0.1:" + port
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		resp, err := http.Get(url + "/buildid/" + buildID + "/debuginfo")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return url
			}
		}
	}
	t.Fatalf("debuginfod does not serve %s:\n%s", buildID, out.String())
	return ""
}

func newClient(t testing.TB, c Config) *Client {
	t.Helper()
	if c.Dir == "" {
		c.Dir = filepath.Join(t.TempDir(), "cache")
	}
	client, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// wantFile checks what Fetch or Cached returned.
func wantFile(t testing.TB, path string) func(*os.File, error) {
	return func(f *os.File, err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		got, err := io.ReadAll(f)
		want, wantErr := os.ReadFile(path)
		if err != nil || wantErr != nil || string(got) != string(want) {
			t.Errorf("got %d bytes, %v; want %d bytes, %v", len(got), err, len(want), wantErr)
		}
	}
}

// wantErr checks that Fetch or Cached returned no file.
func wantErr(t testing.TB, want error) func(*os.File, error) {
	return func(f *os.File, err error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
		if f != nil {
			t.Errorf("got %s", f.Name())
			f.Close()
		}
	}
}

func wantStats(t testing.TB, c *Client, want Stats) {
	t.Helper()
	if diff := cmp.Diff(want, c.Stats()); diff != "" {
		t.Errorf("counted (-want +got):\n%s", diff)
	}
}

// wantClean checks that nothing half received is left.
func wantClean(t testing.TB, c *Client, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(c.c.Dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("in the cache (-want +got):\n%s", diff)
	}
}

// TestServer fetches from Debian's debuginfod.
func TestServer(t *testing.T) {
	path := debugInfo(t, id)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	url := serve(t, filepath.Dir(path), id)
	other := debugInfo(t, otherID)
	otherURL := serve(t, filepath.Dir(other), otherID)
	ctx := t.Context()
	t.Run("fetch", func(t *testing.T) {
		c := newClient(t, Config{URLs: []string{url + "/"}})
		wantErr(t, ErrNotCached)(c.Cached(id))
		wantFile(t, path)(c.Fetch(ctx, id))
		wantFile(t, path)(c.Cached(id))
		wantFile(t, path)(c.Fetch(ctx, id))
		wantStats(t, c, Stats{Requests: 1, Fetched: 1, Bytes: uint64(info.Size())})
		wantClean(t, c, id+".debug")
	})
	t.Run("unknown", func(t *testing.T) {
		dir := t.TempDir()
		c := newClient(t, Config{URLs: []string{url}, Dir: dir})
		for range 3 {
			wantErr(t, ErrUnknown)(c.Fetch(ctx, otherID))
		}
		wantErr(t, fs.ErrNotExist)(c.Cached(otherID))
		wantStats(t, c, Stats{Requests: 1, Unknown: 1})
		wantClean(t, c, otherID+".unknown")
		again := newClient(t, Config{URLs: []string{url}, Dir: dir})
		wantErr(t, ErrUnknown)(again.Fetch(ctx, otherID))
		wantStats(t, again, Stats{})
		yesterday := time.Now().Add(-25 * time.Hour)
		if err := os.Chtimes(filepath.Join(dir, otherID+".unknown"), yesterday, yesterday); err != nil {
			t.Fatal(err)
		}
		wantErr(t, ErrUnknown)(again.Fetch(ctx, otherID))
		wantStats(t, again, Stats{Requests: 1, Unknown: 1})
	})
	t.Run("too large", func(t *testing.T) {
		c := newClient(t, Config{URLs: []string{url}, MaxBytes: info.Size() - 1})
		wantErr(t, ErrTooLarge)(c.Fetch(ctx, id))
		wantErr(t, ErrUnknown)(c.Fetch(ctx, id))
		wantStats(t, c, Stats{Requests: 1, TooLarge: 1})
		wantClean(t, c, id+".unknown")
	})
	t.Run("the second server has it", func(t *testing.T) {
		c := newClient(t, Config{URLs: []string{url, otherURL}})
		wantFile(t, other)(c.Fetch(ctx, otherID))
		wantStats(t, c, Stats{Requests: 2, Unknown: 1, Fetched: 1, Bytes: c.Stats().Bytes})
	})
	t.Run("canceled", func(t *testing.T) {
		c := newClient(t, Config{URLs: []string{url}})
		canceled, cancel := context.WithCancel(ctx)
		cancel()
		wantErr(t, context.Canceled)(c.Fetch(canceled, id))
		wantFile(t, path)(c.Fetch(ctx, id))
	})
	t.Run("cache full", func(t *testing.T) { cacheFull(t, url, path) })
}

// TestBadServer fetches from servers that do what the real one never does.
func TestBadServer(t *testing.T) {
	other, err := os.ReadFile(debugInfo(t, otherID))
	if err != nil {
		t.Fatal(err)
	}
	wrong := func(w http.ResponseWriter, _ *http.Request) { w.Write(other) }
	endless := func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(other); err != nil {
				return
			}
		}
	}
	tests := []struct {
		name    string
		handler http.HandlerFunc
		want    error
		stats   Stats
		kept    []string
	}{
		{"wrong file", wrong, ErrWrongFile, Stats{Requests: 1, WrongFile: 1}, []string{id + ".unknown"}},
		{"a page", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>welcome") },
			ErrWrongFile, Stats{Requests: 1, WrongFile: 1}, []string{id + ".unknown"}},
		{"no end", endless, ErrTooLarge, Stats{Requests: 1, TooLarge: 1}, []string{id + ".unknown"}},
		{"an error", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
			ErrUnavailable, Stats{Requests: 1, Unavailable: 1}, nil},
		{"cut short", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000000")
			w.Write(other)
		}, ErrUnavailable, Stats{Requests: 1, Unavailable: 1}, nil},
		{"redirects to itself", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) },
			ErrUnavailable, Stats{Requests: 1, Unavailable: 1}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := httptest.NewServer(tt.handler)
			defer s.Close()
			c := newClient(t, Config{URLs: []string{s.URL}, MaxBytes: 1 << 20})
			wantErr(t, tt.want)(c.Fetch(t.Context(), id))
			tt.stats.Bytes = c.Stats().Bytes
			wantStats(t, c, tt.stats)
			wantClean(t, c, tt.kept...)
			// Whatever it was, it is not asked again at once.
			if f, err := c.Fetch(t.Context(), id); err == nil {
				f.Close()
				t.Error("fetched after all")
			}
			if got := c.Stats().Requests; got != 1 {
				t.Errorf("%d requests, want 1", got)
			}
		})
	}
}

// listen is a server that takes connections and answers with what it is given, and
// then nothing.
func listen(t *testing.T, answer string) (url string, requests *atomic.Int64) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	requests = new(atomic.Int64)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			requests.Add(1)
			t.Cleanup(func() { conn.Close() })
			io.WriteString(conn, answer)
		}
	}()
	return "http://" + l.Addr().String(), requests
}

func TestSlowServer(t *testing.T) {
	for name, answer := range map[string]string{
		"no answer":       "",
		"half a header":   "HTTP/1.1 200 OK\r\nContent-",
		"header, no body": "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
		"half a body":     "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n\x7fELF",
	} {
		t.Run(name, func(t *testing.T) {
			url, requests := listen(t, answer)
			c := newClient(t, Config{URLs: []string{url}, Stall: 100 * time.Millisecond, Retry: time.Hour})
			began := time.Now()
			wantErr(t, ErrUnavailable)(c.Fetch(t.Context(), id))
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("took %v", took)
			}
			wantErr(t, ErrUnavailable)(c.Fetch(t.Context(), otherID)) // not asked
			if got := requests.Load(); got != 1 {
				t.Errorf("%d connections, want 1", got)
			}
			wantStats(t, c, Stats{Requests: 1, Unavailable: 1, Bytes: c.Stats().Bytes})
			wantClean(t, c)
		})
	}
}

func TestServerDown(t *testing.T) {
	url, _ := listen(t, "")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	down := "http://" + l.Addr().String()
	l.Close()
	c := newClient(t, Config{URLs: []string{down, url}, Retry: 10 * time.Millisecond, Stall: 50 * time.Millisecond})
	wantErr(t, ErrUnavailable)(c.Fetch(t.Context(), id))
	time.Sleep(30 * time.Millisecond)
	wantErr(t, ErrUnavailable)(c.Fetch(t.Context(), id)) // asked again
	if got := c.Stats().Requests; got != 4 {
		t.Errorf("%d requests, want 4", got)
	}
	wantClean(t, c)
}

// TestOneAtATime asks for many files at once, twice each.
func TestOneAtATime(t *testing.T) {
	var now, most, total atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			t.Errorf("request %s", r.Method)
		}
		most.Store(max(most.Load(), now.Add(1)))
		total.Add(1)
		time.Sleep(2 * time.Millisecond)
		now.Add(-1)
		http.NotFound(w, r)
	}))
	defer s.Close()
	c := newClient(t, Config{URLs: []string{s.URL}})
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			wantErr(t, ErrUnknown)(c.Fetch(t.Context(), fmt.Sprintf("%040x", i/2)))
		})
	}
	wg.Wait()
	if most.Load() != 1 || total.Load() > 20 || total.Load() < 10 {
		t.Errorf("%d requests, %d at a time", total.Load(), most.Load())
	}
}
