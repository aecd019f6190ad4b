// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/agent"
	"github.com/lowflame/lowflame/internal/preflight"
)

// doctorCmd tells what the machine gives a recording, and how to get the rest.
type doctorCmd struct {
	JSON bool `name:"json" help:"Print JSON: an object with ok and a list of checks."`
}

// errUnfit ends doctor with exit code 1 after it has said everything.
var errUnfit = errors.New("this machine does not let lowflame record")

// Run prints the checks and returns errUnfit if one failed.
func (d doctorCmd) Run() error {
	return runDoctor(os.Stdout, d.JSON, preflight.Local().Checks(loadProgram))
}

// loadProgram has the kernel's verifier look at the BPF program.
func loadProgram() preflight.Check {
	c := preflight.Check{Name: "bpf program", Found: "the kernel accepts it"}
	if os.Geteuid() != 0 && preflight.Required() != nil {
		c.State, c.Found = preflight.Warn, "not tried: see the failures above"
		c.Fix = "Mend those first."
		return c
	}
	if err := agent.Probe(); err != nil {
		c.State, c.Found = preflight.Fail, err.Error()
		c.Fix = "If the checks above are fine, this is a kernel lowflame does not know: please report this output."
	}
	return c
}

func runDoctor(w io.Writer, asJSON bool, checks []preflight.Check) error {
	failed := preflight.Failures(checks) != nil
	var err error
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		err = enc.Encode(struct {
			OK     bool              `json:"ok"`
			Checks []preflight.Check `json:"checks"`
		}{!failed, checks})
	} else {
		err = preflight.WriteTable(w, checks, colored(w))
	}
	if err == nil && failed {
		err = errUnfit
	}
	return err
}

// colored reports whether w is a terminal whose user has not asked for plain
// text; see https://no-color.org.
func colored(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
