// SPDX-License-Identifier: Apache-2.0

// Symbolize compares lowflame with llvm-symbolizer: how often both say the same of an
// address, and what the answers cost. It writes benchmarks/results/symbolize.txt.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/benchmarks/measure"
	"github.com/lowflame/lowflame/symbolize/builder"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == builder.Worker {
		os.Exit(builder.Main())
	}
	ok, err := child(os.Args[1:])
	if !ok {
		err = run()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "symbolize: %v\n", err)
		os.Exit(1)
	}
}

// bench is one run.
type bench struct {
	report *measure.Report
	self   string // this binary
	dir    string // for temporary files
}

func run() error {
	java := flag.String("jvm", "/usr/lib/jvm/java-17-openjdk-amd64/lib/server/libjvm.so", "library of openjdk-17, with openjdk-17-dbg installed")
	python := flag.String("python", "/usr/bin/python3.11d", "interpreter of python3-dbg")
	golang := flag.String("go", "", "Go program, the larger the better; otherwise Go's compiler")
	large := flag.String("large", "", "another debug file to measure, such as that of ceph-osd")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "lowflame-benchmark-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{report: &measure.Report{Out: os.Stdout}, self: self, dir: dir}
	b.report.Machine()
	jvm, err := debugOf(*java)
	if err != nil {
		return err
	}
	if err := b.native(ctx, "J", jvm); err != nil {
		return err
	}
	if err := b.native(ctx, "python", *python); err != nil {
		return err
	}
	if *large != "" {
		if err := b.native(ctx, "large", *large); err != nil {
			return err
		}
	}
	if *golang == "" { // the one that is installed has no DWARF for the peer
		*golang = filepath.Join(dir, "compile")
		if out, err := exec.CommandContext(ctx, "go", "build", "-o", *golang, "cmd/compile").CombinedOutput(); err != nil {
			return fmt.Errorf("build Go's compiler: %w\n%s", err, out)
		}
	}
	if err := b.golang(ctx, *golang); err != nil {
		return err
	}
	if err := b.tables(ctx, jvm); err != nil {
		return err
	}
	if err := b.machine(ctx, *java, *python); err != nil {
		return err
	}
	return b.report.Save("benchmarks/results", "symbolize.txt")
}
