// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

const peer = "llvm-symbolizer-19"

// cost is what a program and its children took.
type cost struct {
	cpu time.Duration
	rss int64 // largest resident memory of one of them, bytes
}

func (c cost) String() string {
	return fmt.Sprintf("%.3f s, %.1f MiB", c.cpu.Seconds(), float64(c.rss)/(1<<20))
}

// runTool runs a program with addresses, one a line, as its input.
func runTool(ctx context.Context, addrs []uint64, command ...string) (out []byte, c cost, err error) {
	out, _, c, err = runToolSaying(ctx, addrs, command...)
	return out, c, err
}

// runToolSaying is runTool, and returns what was written to standard error too.
func runToolSaying(ctx context.Context, addrs []uint64, command ...string) (out []byte, said string, c cost, err error) {
	var in, stdout, stderr bytes.Buffer
	for _, a := range addrs {
		fmt.Fprintf(&in, "%#x\n", a)
	}
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = &in, &stdout, &stderr
	// A server of debugging information would answer for one of the two only.
	cmd.Env = append(os.Environ(), "DEBUGINFOD_URLS=")
	if err := cmd.Run(); err != nil {
		return nil, "", c, fmt.Errorf("%s: %w\n%s", strings.Join(command, " "), err, stderr.Bytes())
	}
	c.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if ru, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		c.rss = ru.Maxrss << 10
	}
	said, peak, ok := strings.Cut(stderr.String(), "peak ")
	if ok { // of this binary, which knows better
		_, err = fmt.Sscan(peak, &c.rss)
	}
	return stdout.Bytes(), said, c, err
}

// askLLVM asks llvm-symbolizer.
func askLLVM(ctx context.Context, file string, addrs []uint64) ([]answer, cost, error) {
	out, c, err := runTool(ctx, addrs, peer, "--no-demangle", "--inlines", "--obj="+file)
	if err != nil {
		return nil, c, err
	}
	all, err := parseAnswers(out, len(addrs))
	return all, c, err
}

// askLowflame asks lowflame, which builds an index first.
func askLowflame(ctx context.Context, lowflame, file string, addrs []uint64) ([]answer, cost, error) {
	out, c, err := runTool(ctx, addrs, lowflame, "debug", "symbol", "--no-demangle", file)
	if err != nil {
		return nil, c, err
	}
	all, err := parseAnswers(out, len(addrs))
	return all, c, err
}
