// SPDX-License-Identifier: Apache-2.0

// Package workloads holds programs that know the truth about themselves: the
// stacks they run on and the share of CPU time of their functions. They print it
// when they end, and a profiler is right when its profile says the same.
//
// The sources are in testdata and carry a comment each that says what makes them
// hard and what their truth is.
package workloads

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

//go:embed testdata
var sources embed.FS

// Workload is one program and how to build and run it.
type Workload struct {
	Name  string     // unique; letters, digits and dashes
	About string     // what a profiler may get wrong here
	Build [][]string // commands, run in the directory of sources; see expand
	Args  []string   // after the number of seconds
	// Hz is the rate to sample at, 0 for the default. Lower for programs that
	// keep many threads busy.
	Hz int
	// Times is how many times as long as others it must run to be judged, 0 for
	// once. A count of n samples whose units are cut into time slices has a
	// standard error of up to sqrt(p(1-p)/n).
	Times int
	// Threads are prefixes of thread names; each thread label begins with one,
	// and each is the beginning of one.
	Threads []string
	// Stops are the reasons for which its stacks may be cut off, since what is
	// missing cannot be found.
	Stops []string
	// MaxStopped is the largest share of its stacks that may be, 0 for any.
	MaxStopped float64
	Arch       []string // GOARCH values it builds for, nil for all
}

// Program is a built workload.
type Program struct {
	Workload
	Path string // of the executable
}

// Toolchain is the compilers to build with. Builds for another architecture set
// cross compilers and GOARCH in Env.
type Toolchain struct {
	CC, CXX, Musl, Rustc, Go string   // Musl compiles C against musl
	Arch                     string   // GOARCH of the programs
	Flags                    []string // to CC and CXX, after all others
	Env                      []string // additions to the environment
}

// Native returns the host's compilers: gcc, g++, musl-gcc, Debian's rustc where there is
// one (its standard library is built like those of programs in the field), else
// the rustc in PATH, and go.
func Native() Toolchain {
	t := Toolchain{CC: "gcc", CXX: "g++", Musl: "musl-gcc", Rustc: "/usr/bin/rustc", Go: "go", Arch: runtime.GOARCH}
	if _, err := os.Stat(t.Rustc); err != nil {
		t.Rustc = "rustc"
	}
	return t
}

// All returns the workloads t can build, in a fixed order.
func All(t Toolchain) []Workload {
	return slices.DeleteFunc(table(), func(w Workload) bool {
		return w.Arch != nil && !slices.Contains(w.Arch, t.Arch)
	})
}

// Extract writes the sources below dir and returns their directory.
func Extract(dir string) (string, error) {
	sub, err := fs.Sub(sources, "testdata")
	if err != nil {
		return "", err
	}
	src := filepath.Join(dir, "src")
	if err := os.CopyFS(src, sub); err != nil {
		return "", fmt.Errorf("write sources of workloads: %w", err)
	}
	for _, module := range []string{"goroutines", "cgo"} {
		mod := filepath.Join(src, module, "go.mod")
		if err := os.WriteFile(mod, []byte("module "+module+"workload\n\ngo 1.26\n"), 0o644); err != nil {
			return "", fmt.Errorf("write sources of workloads: %w", err)
		}
	}
	return src, nil
}

// BuildIn builds w from the sources in src, a directory made by [Extract], into a
// directory of its own below out. Programs built into the same out do not clash.
func (w Workload) BuildIn(ctx context.Context, t Toolchain, src, out string) (Program, error) {
	dir := filepath.Join(out, w.Name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Program{}, fmt.Errorf("build workload %s: %w", w.Name, err)
	}
	p := Program{Workload: w, Path: filepath.Join(dir, w.Name)}
	for _, command := range w.Build {
		args := t.expand(command, p.Path)
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Dir = src
		cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off", "GOTOOLCHAIN=local", "CC="+t.CC)
		cmd.Env = append(cmd.Env, t.Env...)
		if output, err := cmd.CombinedOutput(); err != nil {
			return Program{}, fmt.Errorf("build workload %s: %s: %w\n%s", w.Name, strings.Join(args, " "), err, output)
		}
	}
	return p, nil
}

// expand replaces CC, CXX, MUSL, RUSTC and GO as first word, and $OUT and $DIR, the
// program and its directory, anywhere.
func (t Toolchain) expand(command []string, path string) []string {
	args := slices.Clone(command)
	switch args[0] {
	case "CC":
		args = slices.Concat([]string{t.CC}, cflags, args[1:], t.Flags)
	case "CXX":
		args = slices.Concat([]string{t.CXX}, cflags, args[1:], t.Flags)
	case "MUSL":
		args = slices.Concat([]string{t.Musl}, cflags, args[1:], t.Flags)
	case "RUSTC":
		args[0] = t.Rustc
	case "GO":
		args[0] = t.Go
	}
	r := strings.NewReplacer("$OUT", path, "$DIR", filepath.Dir(path))
	for i := range args {
		args[i] = r.Replace(args[i])
	}
	return args
}

// Command returns the command line that runs p for that many seconds.
func (p Program) Command(seconds float64) []string {
	return append([]string{p.Path, strconv.FormatFloat(seconds, 'g', -1, 64)}, p.Args...)
}

// Run runs p for that many seconds without a profiler and returns what it says
// of itself.
func (p Program) Run(ctx context.Context, seconds float64) (*Report, error) {
	args := p.Command(seconds)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("run workload %s: %w\n%s", p.Name, err, stderr.Bytes())
	}
	return ParseReport(stdout)
}
