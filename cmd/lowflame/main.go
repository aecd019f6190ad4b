// SPDX-License-Identifier: Apache-2.0

// Lowflame profiles the CPU time of every program on a Linux machine.
package main

import "github.com/alecthomas/kong"

type cli struct {
	Doctor doctorCmd `cmd:"" help:"Tell what this machine lets lowflame do, and how to get the rest."`
}

func main() {
	var c cli
	ctx := kong.Parse(&c, kong.Name("lowflame"),
		kong.Description("A CPU profiler for every program on a Linux machine."),
		kong.UsageOnError())
	ctx.FatalIfErrorf(ctx.Run())
}
