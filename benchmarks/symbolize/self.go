// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/objfile/gopclntab"
	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/symbolize/builder"
	"github.com/lowflame/lowflame/symbolize/debugfile"
	"github.com/lowflame/lowflame/symbolize/index"
)

// What is measured runs in processes of its own: this binary, started again with one
// of these words.
const (
	modeBuild = "build-index" // FILE INDEX
	modeQuery = "query-index" // INDEX, addresses on standard input
	modeGo    = "query-go"    // FILE, addresses on standard input
)

// child does what the words ask for, and says how much memory it took. ok is false if
// they are not for it.
func child(args []string) (ok bool, err error) {
	switch {
	case len(args) == 3 && args[0] == modeBuild:
		err = buildIndex(args[1], args[2])
	case len(args) == 2 && args[0] == modeQuery:
		err = queryIndex(args[1])
	case len(args) == 2 && args[0] == modeGo:
		err = queryGo(args[1])
	default:
		return false, nil
	}
	if err == nil {
		err = sayPeak()
	}
	return true, err
}

// sayPeak writes the largest resident memory of this process, or of its children, to
// standard error, in bytes. What wait4(2) says of a process has that of the one that
// started it in it (kernel: exec_mmap), which here is large.
func sayPeak() error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	var own int64
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			if _, err := fmt.Sscan(rest, &own); err != nil {
				return err
			}
		}
	}
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &ru); err != nil {
		return err
	}
	_, err = fmt.Fprintf(os.Stderr, "peak %d\n", max(own, ru.Maxrss)<<10)
	return err
}

// buildIndex builds an index as the agent does: in a worker.
func buildIndex(file, to string) error {
	o, handle, err := objfile.OpenFile(file)
	if err != nil {
		return err
	}
	defer handle.Close()
	found := debugfile.New(debugfile.Config{}).Find(o, file, []string{"/"})
	defer found.Close()
	if found.Debug == nil {
		return fmt.Errorf("%s: no debugging information: %v", file, found.Missing)
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = builder.Run(context.Background(), builder.Job{Object: handle, Found: found, Out: out})
	return errors.Join(err, out.Close())
}

func queryIndex(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	x, err := index.Open(f, st.Size(), index.NewBlocks(index.DefaultBlocks))
	if err != nil {
		return err
	}
	var lines []index.Line
	return answerAll(func(addr stack.LinkAddr, out *bufio.Writer) error {
		if lines, err = x.Lookup(addr, lines[:0]); err != nil {
			return err
		}
		for i := range lines {
			fmt.Fprintf(out, "%s\n%s:%d:0\n", orUnknown(lines[i].Name), orUnknown(lines[i].File), lines[i].Line)
		}
		if len(lines) == 0 {
			fmt.Fprint(out, "??\n??:0:0\n")
		}
		return nil
	})
}

// queryGo answers from the table of a Go program. It says on standard error how long
// the first answer took and how much heap there was at the end.
func queryGo(file string) error {
	began := time.Now()
	o, handle, err := objfile.OpenFile(file)
	if err != nil {
		return err
	}
	defer handle.Close()
	table, err := gopclntab.Open(o)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	var first time.Duration
	err = answerAll(func(addr stack.LinkAddr, out *bufio.Writer) error {
		lines, err := table.Lines(addr)
		if err != nil {
			return err
		}
		if first == 0 {
			first = time.Since(began)
		}
		for i := range lines {
			fmt.Fprintf(out, "%s\n%s:%d:0\n", orUnknown(lines[i].Func), orUnknown(lines[i].File), lines[i].Line)
		}
		if len(lines) == 0 {
			fmt.Fprint(out, "??\n??:0:0\n")
		}
		return nil
	})
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fmt.Fprintf(os.Stderr, "%d %d\n", first.Nanoseconds(), m.HeapInuse)
	runtime.KeepAlive(table)
	return err
}

func orUnknown(s string) string {
	if s == "" {
		return "??"
	}
	return s
}

// answerAll calls answer for each address on standard input.
func answerAll(answer func(addr stack.LinkAddr, out *bufio.Writer) error) error {
	in, out := bufio.NewScanner(io.Reader(os.Stdin)), bufio.NewWriter(os.Stdout)
	for in.Scan() {
		addr, err := strconv.ParseUint(strings.TrimPrefix(in.Text(), "0x"), 16, 64)
		if err != nil {
			return err
		}
		if err := answer(stack.LinkAddr(addr), out); err != nil {
			return fmt.Errorf("look up %#x: %w", addr, err)
		}
		if err := out.WriteByte('\n'); err != nil {
			return err
		}
	}
	return errors.Join(in.Err(), out.Flush())
}
