// SPDX-License-Identifier: Apache-2.0

// Package debuginfod fetches debugging information by build ID from debuginfod
// servers and keeps it in a directory.
//
// A server is asked for what the kernel and compilers call a build ID and for nothing
// else; what it sends counts only if it has that build ID. A server that is slow,
// down, or sends too much costs time of the caller of Fetch and nothing else; Cached
// never waits for a network.
package debuginfod

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

var (
	// ErrUnknown says that no server has a file, by what they said less than
	// Config.Forget ago, or just now. It wraps fs.ErrNotExist.
	ErrUnknown = fmt.Errorf("not known to debuginfod servers: %w", os.ErrNotExist)
	// ErrNotCached says that nobody has asked for a file. It wraps fs.ErrNotExist.
	ErrNotCached = fmt.Errorf("not fetched from debuginfod servers: %w", os.ErrNotExist)
	// ErrTooLarge says that a file is larger than Config.MaxBytes.
	ErrTooLarge = errors.New("larger than the limit")
	// ErrWrongFile says that a server sent something else than what was asked for.
	ErrWrongFile = errors.New("not the file that was asked for")
	// ErrUnavailable says that servers did not answer, or not in time, or are not
	// asked for some time because of that.
	ErrUnavailable = errors.New("debuginfod server unavailable")
)

// Config says whom to ask. Zero values but for URLs and Dir are fit for use.
type Config struct {
	// URLs are the servers, tried in order: http or https, with a path if need be.
	// DEBUGINFOD_URLS of the environment is not looked at.
	URLs []string
	// Dir is the directory of the cache, made if there is none. Several processes
	// may use it.
	Dir string
	// MaxBytes is the largest file fetched; 0 means 2 GiB.
	MaxBytes int64
	// CacheBytes is how much the cache holds, what has not been used for longest
	// going first; 0 means 4 GiB.
	CacheBytes int64
	// Timeout bounds one request, 0 meaning 10 minutes, and Stall the time without
	// a byte in it, 0 meaning 30 seconds.
	Timeout, Stall time.Duration
	// Forget is how long it counts that no server has a file; 0 means 24 hours.
	Forget time.Duration
	// Retry is how long a server that was unavailable is left alone, twice as long
	// each time up to an hour; 0 means one minute.
	Retry time.Duration
}

// Stats counts what became of calls of Fetch and of requests.
type Stats struct {
	Requests    uint64
	Bytes       uint64 // received
	Fetched     uint64 // files
	Unknown     uint64 // 404
	TooLarge    uint64
	WrongFile   uint64
	Unavailable uint64 // server down, stalled, or any other status
	Evicted     uint64 // files
}

// Client fetches and caches. It is safe for concurrent use.
type Client struct {
	c       Config
	cache   cache
	servers []*server
	http    *http.Client
	stats   stats
}

type stats struct {
	requests, bytes, fetched, unknown, tooLarge, wrongFile, unavailable atomic.Uint64
}

// server is one URL. Requests to one host wait for each other.
type server struct {
	url  string
	host *host
}

type host struct {
	turn chan struct{} // capacity 1

	mu    sync.Mutex // guards what follows
	after time.Time  // not to be asked before
	wait  time.Duration
}

// New returns a Client, having removed what processes that died left in the cache.
func New(c Config) (*Client, error) {
	c.MaxBytes = cmp.Or(c.MaxBytes, 2<<30)
	c.CacheBytes = cmp.Or(c.CacheBytes, 4<<30)
	c.Timeout = cmp.Or(c.Timeout, 10*time.Minute)
	c.Stall = cmp.Or(c.Stall, 30*time.Second)
	c.Forget = cmp.Or(c.Forget, 24*time.Hour)
	c.Retry = cmp.Or(c.Retry, time.Minute)
	client := &Client{c: c, cache: cache{dir: c.Dir, limit: c.CacheBytes, forget: c.Forget}}
	hosts := make(map[string]*host)
	for _, s := range c.URLs {
		u, err := url.Parse(s)
		if err != nil {
			return nil, fmt.Errorf("debuginfod server: %w", err)
		}
		if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
			return nil, fmt.Errorf("debuginfod server %q: not an http or https URL of a directory", u.Redacted())
		}
		h := hosts[u.Host]
		if h == nil {
			h = &host{turn: make(chan struct{}, 1)}
			hosts[u.Host] = h
		}
		client.servers = append(client.servers, &server{strings.TrimSuffix(s, "/"), h})
	}
	if err := client.cache.open(); err != nil {
		return nil, fmt.Errorf("open cache of debuginfod: %w", err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableCompression = true // what is fetched is compressed where it pays
	transport.MaxConnsPerHost = 1
	transport.ResponseHeaderTimeout = c.Stall
	transport.MaxResponseHeaderBytes = 64 << 10
	client.http = &http.Client{Transport: transport, CheckRedirect: checkRedirect}
	return client, nil
}

// checkRedirect follows a server to where it keeps its files, but not out of TLS.
func checkRedirect(req *http.Request, via []*http.Request) error {
	switch {
	case len(via) > 3:
		return errors.New("too many redirects")
	case via[0].URL.Scheme == "https" && req.URL.Scheme != "https":
		return errors.New("redirect from https to http")
	}
	return nil
}

// Close gives up idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Stats returns the counts so far.
func (c *Client) Stats() Stats {
	s := &c.stats
	return Stats{
		Requests: s.requests.Load(), Bytes: s.bytes.Load(), Fetched: s.fetched.Load(), Unknown: s.unknown.Load(),
		TooLarge: s.tooLarge.Load(), WrongFile: s.wrongFile.Load(), Unavailable: s.unavailable.Load(),
		Evicted: c.cache.evicted.Load(),
	}
}

// Cached opens the file with a build ID, hexadecimal, if it is in the cache. The
// caller closes it. The error wraps ErrUnknown, with the reason, or ErrNotCached.
func (c *Client) Cached(buildID string) (*os.File, error) {
	if !isBuildID(buildID) {
		return nil, fmt.Errorf("build ID %.80q: %w", buildID, ErrNotCached)
	}
	return c.cache.get(buildID)
}

// isBuildID reports whether id is fit for a path and a URL.
func isBuildID(id string) bool {
	if len(id) < 2*minBuildID || len(id) > 2*maxBuildID || len(id)%2 != 0 {
		return false
	}
	return strings.Trim(id, "0123456789abcdef") == ""
}

// A build ID has 8 to 32 bytes, of all linkers there are.
const (
	minBuildID = 4
	maxBuildID = 64
)

// Fetch is Cached, but asks the servers for what is not in the cache and not known to
// be unknown to them, one after the other. It waits for other requests to the same
// host.
//
// The error wraps ErrUnknown, ErrTooLarge, ErrWrongFile, ErrUnavailable, or that of
// ctx; the first three are remembered for Config.Forget.
func (c *Client) Fetch(ctx context.Context, buildID string) (*os.File, error) {
	file, err := c.Cached(buildID)
	if err == nil || !errors.Is(err, ErrNotCached) || !isBuildID(buildID) {
		return file, err
	}
	if len(c.servers) == 0 {
		return nil, err
	}
	var errs []error
	final := true
	for _, s := range c.servers {
		file, err := c.fetchFrom(ctx, s, buildID)
		if err == nil {
			return file, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", s.redacted(), err))
		final = final && isFinal(err)
		if ctx.Err() != nil {
			break
		}
	}
	err = fmt.Errorf("fetch debug file %s: %w", buildID, errors.Join(errs...))
	if final {
		err = errors.Join(err, c.cache.putUnknown(buildID, err.Error()))
	}
	return nil, err
}

// isFinal reports whether a server would answer the same if asked again soon.
func isFinal(err error) bool {
	return errors.Is(err, ErrUnknown) || errors.Is(err, ErrTooLarge) || errors.Is(err, ErrWrongFile)
}

func (s *server) redacted() string {
	u, err := url.Parse(s.url)
	if err != nil {
		return "server"
	}
	return u.Redacted()
}

// fetchFrom fetches a file from one server when it is its turn.
func (c *Client) fetchFrom(ctx context.Context, s *server, buildID string) (*os.File, error) {
	select {
	case s.host.turn <- struct{}{}:
		defer func() { <-s.host.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	// The one before may have fetched the same.
	if file, err := c.cache.get(buildID); err == nil || errors.Is(err, ErrUnknown) {
		return file, err
	}
	if wait := s.host.left(time.Now()); wait > 0 {
		return nil, fmt.Errorf("not asked for %v: %w", wait.Round(time.Second), ErrUnavailable)
	}
	file, err := c.request(ctx, s, buildID)
	switch {
	case ctx.Err() != nil:
		// Says nothing of the server.
	case errors.Is(err, ErrUnavailable):
		s.host.failed(time.Now(), c.c.Retry)
	default:
		s.host.answered()
	}
	c.count(err)
	return file, err
}

func (c *Client) count(err error) {
	s := &c.stats
	switch {
	case err == nil:
		s.fetched.Add(1)
	case errors.Is(err, ErrUnknown):
		s.unknown.Add(1)
	case errors.Is(err, ErrTooLarge):
		s.tooLarge.Add(1)
	case errors.Is(err, ErrWrongFile):
		s.wrongFile.Add(1)
	case errors.Is(err, ErrUnavailable):
		s.unavailable.Add(1)
	}
}

const maxWait = time.Hour

func (h *host) left(now time.Time) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.after.Sub(now)
}

func (h *host) failed(now time.Time, first time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wait = min(max(2*h.wait, first), maxWait)
	h.after = now.Add(h.wait)
}

func (h *host) answered() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wait, h.after = 0, time.Time{}
}
