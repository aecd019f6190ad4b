// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/lowflame/lowflame/agent"
)

// indexFlags say where symbol indexes are.
type indexFlags struct {
	SymbolCache     string   `placeholder:"DIR" help:"Directory of symbol indexes, by build ID; otherwise /var/cache/lowflame/symbols for root, and lowflame/symbols in the directory of caches for others."`
	SymbolCacheSize int64    `default:"1024" placeholder:"MIB" help:"Size of that directory in MiB: what was used longest ago is deleted (${default})."`
	DebugDir        []string `placeholder:"DIR" type:"existingdir" help:"Look for debug files in DIR first, laid out as /usr/lib/debug is. May be given more than once."`
	Debuginfod      []string `sep:"," placeholder:"URL,…" help:"Ask these debuginfod servers for debug files that are not on this machine; otherwise none is asked."`
}

func (f *indexFlags) open() (*agent.Indexes, error) {
	if f.SymbolCacheSize < 1 || f.SymbolCacheSize > 1<<20 {
		return nil, usageError{fmt.Errorf("--symbol-cache-size %d: give 1 to %d MiB", f.SymbolCacheSize, 1<<20)}
	}
	return agent.OpenIndexes(agent.IndexConfig{Dir: f.SymbolCache, MaxBytes: f.SymbolCacheSize << 20, DebugDirs: f.DebugDir, Debuginfod: f.Debuginfod})
}

// index gives what was recorded lines and inlined calls. That is no reason to lose the
// recording: if it fails, frames have names alone.
func (c *recordCmd) index(rec *agent.Recording, line *progress) {
	indexes, err := c.open()
	if err != nil {
		fmt.Fprintf(os.Stderr, "lowflame: no lines and inlined calls: %v\n", err)
		return
	}
	defer func() { _ = indexes.Close() }()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, c.SymbolsWait)
	defer cancel()
	result := rec.Symbolize(ctx, indexes, line.indexing)
	line.clear()
	switch {
	case c.Quiet:
	case result.Skipped > 0:
		fmt.Fprintf(os.Stderr, "symbols: %d files have names alone, without lines and inlined calls: their indexes were not made in time\n", result.Skipped)
	case result.Failed > 0:
		fmt.Fprintf(os.Stderr, "symbols: the debugging information of %d files could not be indexed (--log-level debug says why)\n", result.Failed)
	}
}
