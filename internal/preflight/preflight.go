// SPDX-License-Identifier: Apache-2.0

// Package preflight finds out what a machine lets the profiler do, and says of
// each thing missing how to get it.
package preflight

import (
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// State is how much a check matters to a recording.
type State uint8

// OK asks for nothing. Warn: recording works, with less in it or at more cost.
// Fail: recording cannot start.
const (
	OK State = iota
	Warn
	Fail
)

func (s State) String() string {
	return [...]string{"ok", "warn", "fail"}[s]
}

// MarshalText makes State its name in JSON.
func (s State) MarshalText() ([]byte, error) {
	return []byte(s.String()), nil
}

// A Check is one thing looked at.
type Check struct {
	Name  string `json:"name"`
	State State  `json:"state"`
	// Found is the value found, as the machine gives it.
	Found string `json:"found"`
	// Fix says in whole sentences, with the command, what to do. It is empty
	// when State is OK.
	Fix string `json:"fix,omitempty"`
}

// A Probe tries something and tells how it went.
type Probe func() Check

// A Machine is where the checks look.
type Machine struct {
	// Files is the file system from its root, with proc and sys in it. Reading
	// links needs fs.ReadLinkFS.
	Files fs.FS
	// Exe is the program that needs the rights, as named in the advice.
	Exe string
	// BPF creates and drops a BPF map; PerfEvent opens and closes the sampling
	// event on one CPU. They return the error of the system call.
	BPF, PerfEvent func() error
}

// Local is the machine this process runs on, as far as the process sees it.
func Local() Machine {
	exe, err := os.Executable()
	if err != nil || strings.Contains(exe, "/go-build") {
		// `go run` builds into a directory that is gone when it ends.
		exe = "bin/lowflame"
	}
	return Machine{Files: os.DirFS("/"), Exe: exe, BPF: createMap, PerfEvent: openEvent}
}

// Checks looks at everything and then runs extra, in order.
func (m Machine) Checks(extra ...Probe) []Check {
	h := look(m)
	checks := slices.Concat(
		h.kernel(),
		h.capabilities(),
		h.sysctls(),
		h.surroundings(),
		h.trials(),
	)
	for _, probe := range extra {
		checks = append(checks, probe())
	}
	return checks
}

// Required returns nil if recording can start on this machine, and otherwise an
// *Error with the failed checks of Local and of extra.
func Required(extra ...Probe) error {
	return Failures(Local().Checks(extra...))
}

// Failures returns nil if none of checks failed, and an *Error otherwise.
func Failures(checks []Check) error {
	var failed []Check
	for _, c := range checks {
		if c.State == Fail {
			failed = append(failed, c)
		}
	}
	if failed == nil {
		return nil
	}
	return &Error{failed}
}

// Error says why recording cannot start. Its text has several lines.
type Error struct {
	Failed []Check
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("this machine does not let lowflame record")
	for _, c := range e.Failed {
		fmt.Fprintf(&b, "\n  %s: %s", c.Name, c.Found)
	}
	for _, a := range advise(e.Failed) {
		fmt.Fprintf(&b, "\n%s", a.fix)
	}
	return b.String()
}

// advice is one fix and the checks it mends.
type advice struct {
	names []string
	fix   string
}

// advise groups checks by their fix, in order of first appearance: six missing
// capabilities take one command.
func advise(checks []Check) []advice {
	var list []advice
	for _, c := range checks {
		if c.Fix == "" {
			continue
		}
		i := slices.IndexFunc(list, func(a advice) bool { return a.fix == c.Fix })
		if i < 0 {
			list = append(list, advice{fix: c.Fix})
			i = len(list) - 1
		}
		list[i].names = append(list[i].names, c.Name)
	}
	return list
}
