// SPDX-License-Identifier: Apache-2.0

// Symbolize compares lowflame with llvm-symbolizer: how often both say the same of an
// address, and what the answers cost.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/benchmarks/measure"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "symbolize: %v\n", err)
		os.Exit(1)
	}
}

// run compares the files it is given.
func run(ctx context.Context, files []string) error {
	dir, err := os.MkdirTemp("", "lowflame-benchmark-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	lowflame, err := measure.Build(ctx, dir)
	if err != nil {
		return err
	}
	for _, file := range files {
		v, theirs, ours, err := agree(ctx, lowflame, file, 10_000)
		if err != nil {
			return err
		}
		fmt.Printf("%s: %v\n  %s %v, lowflame with its index %v\n", file, v, peer, theirs, ours)
		for _, example := range v.examples {
			fmt.Println(example)
		}
	}
	return nil
}
