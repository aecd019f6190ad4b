// SPDX-License-Identifier: Apache-2.0

// Oracle tells what the runtime knows about addresses in its own code: it reads
// file offsets in hexadecimal, a line each, and writes a JSON line for each.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"text/template"
)

type line struct {
	Func, File      string
	Line, StartLine int
}

type answer struct {
	Off   uint64
	Skip  bool `json:",omitempty"` // the runtime cannot be asked about this address
	Loop  bool `json:",omitempty"` // the runtime would not end
	Entry uint64
	Lines []line `json:",omitempty"`
}

// mapping is the executable mapping of this program.
var mapping struct{ begin, end, off uint64 }

func findMapping() error {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	for _, l := range strings.Split(string(maps), "\n") {
		if f := strings.Fields(l); len(f) == 6 && f[5] == exe && strings.Contains(f[1], "x") {
			_, err := fmt.Sscanf(f[0]+" "+f[2], "%x-%x %x", &mapping.begin, &mapping.end, &mapping.off)
			return err
		}
	}
	return fmt.Errorf("no executable mapping of %s", exe)
}

// sentinel is an address after which CallersFrames has nothing more to say about
// the one before.
//
//go:noinline
func sentinel() uintptr {
	var pcs [1]uintptr
	runtime.Callers(1, pcs[:])
	return pcs[0]
}

func ask(off uint64, end uintptr) answer {
	a := answer{Off: off}
	pc := uintptr(off - mapping.off + mapping.begin)
	here, next := runtime.FuncForPC(pc), runtime.FuncForPC(pc+1)
	if here == nil || next == nil || here.Entry() != next.Entry() {
		a.Skip = true
		return a
	}
	a.Entry = uint64(here.Entry()) - mapping.begin + mapping.off
	frames := runtime.CallersFrames([]uintptr{pc + 1, end})
	for {
		frame, more := frames.Next()
		if !more {
			return a // the sentinel
		}
		if len(a.Lines) > 100 {
			a.Loop = true
			return a
		}
		a.Lines = append(a.Lines, line{symbolName(&frame), frame.File, frame.Line, startLine(&frame)})
	}
}

func main() {
	if err := findMapping(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	use()
	in, out := bufio.NewScanner(os.Stdin), bufio.NewWriter(os.Stdout)
	enc, end := json.NewEncoder(out), sentinel()
	for in.Scan() {
		off, err := strconv.ParseUint(in.Text(), 16, 64)
		if err == nil {
			err = enc.Encode(ask(off, end))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	if err := out.Flush(); err != nil {
		os.Exit(1)
	}
}

// What follows is there to have all kinds of functions in the program.

type shape interface{ area() float64 }

type square struct{ side float64 }

func (s square) area() float64 { return s.side * s.side }

type named struct {
	square // its method becomes a wrapper of named and *named
	name   string
}

func add(a, b int) int    { return a + b }
func twice(a int) int     { return add(a, a) }
func fourTimes(a int) int { return twice(twice(a)) }

func use() {
	shapes := []shape{square{2}, &named{square{3}, "three"}, named{square{1}, "one"}}
	sort.Slice(shapes, func(i, j int) bool { return shapes[i].area() < shapes[j].area() })
	word := regexp.MustCompile(`(\w+)`).FindString("some words")
	t := template.Must(template.New("t").Parse("{{.}}"))
	var b strings.Builder
	if err := t.Execute(&b, fourTimes(len(word))); err != nil || b.Len() == 0 || native() != 42 {
		fmt.Fprintln(os.Stderr, "unexpected:", err, b.String())
		os.Exit(1)
	}
}
