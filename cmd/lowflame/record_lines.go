// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/lowflame/lowflame/agent"
	"github.com/lowflame/lowflame/symbolize/index"
)

const (
	// linesTime is how long the end of a recording may wait for indexes.
	linesTime = 30 * time.Second
	// cacheBytes bounds the directory of indexes.
	cacheBytes = 1 << 30
)

// addLines gives the recording inlined calls and lines, if asked for. That it cannot
// is worth a word, and not the recording.
func (c *recordCmd) addLines(rec *agent.Recording) {
	if c.Symbols != "full" || rec.Samples() == 0 {
		return
	}
	dir, err := openSymbolCache(c.SymbolCache)
	if err != nil {
		fmt.Fprintf(os.Stderr, "lowflame: no inlined calls and lines of C, C++ and Rust: %v; see --symbol-cache and --symbols\n", err)
		return
	}
	defer dir.Close()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, linesTime)
	defer cancel()
	line := newProgress(c.Quiet)
	done := rec.AddLines(ctx, dir, line.building)
	line.clear()
	if ctx.Err() != nil && !c.Quiet {
		fmt.Fprintf(os.Stderr, "lowflame: not all symbols were read (%v): some functions have no lines and no inlined calls; the next recording goes on with it\n", context.Cause(ctx))
	}
	if done.Failed > 0 && !c.Quiet {
		fmt.Fprintf(os.Stderr, "lowflame: debugging information of %d files could not be read: their functions have no lines; --log-level=debug says why\n", done.Failed)
	}
}

// openSymbolCache opens the directory of indexes; "" is the usual one.
func openSymbolCache(path string) (*index.Dir, error) {
	if path == "" {
		path = "/var/cache/lowflame/symbols"
		if os.Geteuid() != 0 {
			cache, err := os.UserCacheDir()
			if err != nil {
				return nil, errors.Join(errors.New("no directory for indexes of symbols"), err)
			}
			path = filepath.Join(cache, "lowflame", "symbols")
		}
	}
	return index.OpenDir(path, cacheBytes)
}
