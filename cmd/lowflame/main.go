// SPDX-License-Identifier: Apache-2.0

// Lowflame is a CPU profiler for Linux: see README.md.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/lowflame/lowflame/symbolize/builder"
)

// Exit codes: 0 ok, 1 error, 2 usage; record -- CMD gives the command's, or one
// of the last three, which are env(1)'s.
const (
	exitError       = 1
	exitUsage       = 2
	exitOwnFailure  = 125
	exitCannotRun   = 126
	exitNotFound    = 127
	exitSignalShift = 128
)

// exitStatus is an error that is not a message: the code to leave with.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// usageError is a mistake in the command line.
type usageError struct{ error }

type cli struct {
	Record    recordCmd        `cmd:"" help:"Record a CPU profile of a command, of processes, or of the whole machine."`
	Symbolize symbolizeCmd     `cmd:"" help:"Name the functions of a profile after the fact, from its build IDs."`
	Doctor    doctorCmd        `cmd:"" help:"Say what this machine lets lowflame do, and how to get what is missing."`
	Debug     debugCmd         `cmd:"" help:"Look into what lowflame works with."`
	Version   kong.VersionFlag `env:"-" help:"Print the version and exit."`
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == execWhenReleased {
		os.Exit(runReleased(os.Args[2:]))
	}
	if len(os.Args) == 2 && os.Args[1] == builder.Worker {
		os.Exit(builder.Main())
	}
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	var c cli
	parser, err := kong.New(&c,
		kong.Name("lowflame"),
		kong.Description("Continuous CPU profiler for Linux. Flags can be set as LOWFLAME_… variables too."),
		kong.DefaultEnvars("LOWFLAME"),
		kong.Vars{"version": version()},
		kong.UsageOnError(),
	)
	if err != nil {
		panic(err) // the command line's own description is wrong
	}
	ctx, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "lowflame: %v\nRun \"lowflame %s--help\" for usage.\n", err, commandOf(args))
		return exitUsage
	}
	return exitCode(ctx.Run())
}

func commandOf(args []string) string {
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		return args[0] + " "
	}
	return ""
}

func exitCode(err error) int {
	var status exitStatus
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	case errors.As(err, &usage):
		fmt.Fprintf(os.Stderr, "lowflame: %v\n", err)
		return exitUsage
	}
	fmt.Fprintf(os.Stderr, "lowflame: %v\n", err)
	return exitError
}
