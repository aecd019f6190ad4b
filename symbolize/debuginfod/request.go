// SPDX-License-Identifier: Apache-2.0

package debuginfod

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/lowflame/lowflame/objfile"
)

var errStall = errors.New("server stalls")

// request asks one server for a file, puts what it sends in the cache, and opens it.
//
// It sends GET /buildid/ID/debuginfo, never HEAD, which debuginfod refuses. See
// "WEBAPI" in debuginfod(8).
func (c *Client) request(ctx context.Context, s *server, buildID string) (*os.File, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.c.Timeout, fmt.Errorf("no answer in %v", c.c.Timeout))
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	stall := time.AfterFunc(c.c.Stall, func() { stop(errStall) })
	defer stall.Stop()

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/buildid/"+buildID+"/debuginfo", http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "lowflame")
	c.stats.requests.Add(1)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, unavailable(ctx, err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return nil, ErrUnknown
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("status %s: %w", resp.Status, ErrUnavailable)
	case resp.ContentLength > c.c.MaxBytes:
		return nil, fmt.Errorf("%d bytes: %w", resp.ContentLength, ErrTooLarge)
	}
	body := &body{r: resp.Body, client: c, progress: func() { stall.Reset(c.c.Stall) }}
	return c.receive(ctx, body, buildID)
}

// unavailable is the error of a request that a server did not finish.
func unavailable(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// receive puts a file in the cache and opens it.
func (c *Client) receive(ctx context.Context, body io.Reader, buildID string) (*os.File, error) {
	p, err := c.cache.begin()
	if err != nil {
		return nil, err
	}
	defer p.abort()
	n, err := io.Copy(p.file, io.LimitReader(body, c.c.MaxBytes+1))
	var ours *os.PathError
	switch {
	case errors.As(err, &ours):
		return nil, err // the disk is full
	case err != nil:
		return nil, unavailable(ctx, err)
	case n > c.c.MaxBytes:
		return nil, fmt.Errorf("more than %d bytes: %w", c.c.MaxBytes, ErrTooLarge)
	}
	if err := verify(p.file, n, buildID); err != nil {
		return nil, err
	}
	if err := c.cache.commit(p, buildID, n); err != nil {
		return nil, err
	}
	return c.cache.get(buildID)
}

func verify(file *os.File, size int64, buildID string) error {
	o, err := objfile.Open(file, size)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrWrongFile, err)
	}
	if o.BuildID.Kind != objfile.BuildIDGNU || o.BuildID.ID != buildID {
		return fmt.Errorf("%w: build ID %s", ErrWrongFile, o.BuildID)
	}
	return nil
}

// body reads what a server sends, telling that it does.
type body struct {
	r        io.Reader
	client   *Client
	progress func()
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if n > 0 {
		b.client.stats.bytes.Add(uint64(n))
		b.progress()
	}
	return n, err
}
