// SPDX-License-Identifier: Apache-2.0

// Testreport reads the output of `go test -json` and prints what a person
// wants of it: a line per package as it ends, the output of what failed, every
// skip with its reason, and how many passed, failed and were skipped.
//
//	go test -json ./... | testreport
//
// It exits 1 when something failed, when a package did not finish, or when no
// test ran at all: an empty run is not a passing one.
package main

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"os"
)

func main() {
	log.SetFlags(0)
	ok, err := run(os.Stdin, os.Stdout)
	if err != nil {
		log.Fatal(err)
	}
	if !ok {
		os.Exit(1)
	}
}

// run reports whether everything that was started passed or was skipped.
func run(r io.Reader, w io.Writer) (bool, error) {
	out := bufio.NewWriter(w)
	rep := newReport(out)
	in := bufio.NewScanner(r)
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		rep.line(in.Bytes())
		if err := out.Flush(); err != nil {
			return false, err
		}
	}
	if err := in.Err(); err != nil {
		return false, fmt.Errorf("read test output: %w", err)
	}
	ok := rep.end()
	return ok, out.Flush()
}
