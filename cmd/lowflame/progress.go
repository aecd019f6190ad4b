// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/agent"
)

// progress is one line on a terminal, rewritten after every window.
type progress struct{ on, shown bool }

func newProgress(quiet bool) *progress {
	return &progress{on: !quiet && isTerminal(os.Stderr)}
}

func (p *progress) show(now agent.Progress) {
	if !p.on {
		return
	}
	p.shown = true
	fmt.Fprintf(os.Stderr, "\r\x1b[Krecording %.0f s · %d samples", now.Elapsed.Seconds(), now.Samples)
	if now.Samples > 0 {
		// Rounded down: 100.0 means all.
		fmt.Fprintf(os.Stderr, " · %.1f %% complete stacks", float64(now.Complete*1000/now.Samples)/10)
	}
	fmt.Fprintf(os.Stderr, " · %d lost · Ctrl-C ends", now.Lost)
}

func (p *progress) indexing(now agent.IndexProgress) {
	if !p.on {
		return
	}
	p.shown = true
	fmt.Fprintf(os.Stderr, "\r\x1b[Kreading symbols %d of %d · %.60s · Ctrl-C ends", now.Done+1, now.All, printable(filepath.Base(now.Path)))
}

func (p *progress) clear() {
	if p.shown {
		fmt.Fprint(os.Stderr, "\r\x1b[K")
	}
	p.shown = false
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// terminalWidth is the number of columns, or 0 when f is not a terminal.
func terminalWidth(f *os.File) int {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Col)
}
