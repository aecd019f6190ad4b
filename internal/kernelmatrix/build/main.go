// SPDX-License-Identifier: Apache-2.0

// Build compiles the workloads that emulated machines run: static, because there
// is no libc in the machine.
//
//	build ARCH ROOT
//
// It writes ROOT/bin/NAME for each, and their names and arguments to
// ROOT/programs.json.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/lowflame/lowflame/benchmarks/workloads"
)

// chosen are workloads that need no libraries. On arm64 there is no jit: its C keeps
// no frame pointers, and generated code there does not tell by its own where the
// caller's stack pointer was (AAPCS64: a frame record lies anywhere in the frame).
var chosen = []string{
	"recursion-120", "alloca", "exceptions", "threads", "signal-timer", "signal-altstack", "signal-raise",
	"static-pie", "vdso", "jit", "go-stripped",
}

// signed are built once more for arm64: with return addresses signed (PAC), and
// landing pads (BTI).
var signed = []string{"recursion-50", "alloca", "exceptions", "signal-timer"}

// Program is a workload in the machine.
type Program struct {
	Name string   // of the file in /bin
	Args []string // after the number of seconds
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: build ARCH ROOT")
		os.Exit(2)
	}
	if err := build(context.Background(), os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "build:", err)
		os.Exit(1)
	}
}

func build(ctx context.Context, arch, root string) (err error) {
	dir, err := os.MkdirTemp("", "lowflame-workloads-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	src, err := workloads.Extract(dir)
	if err != nil {
		return err
	}
	tools, err := toolchain(arch)
	if err != nil {
		return err
	}
	list, err := choose(tools)
	if err != nil {
		return err
	}
	var programs []Program
	for _, w := range list {
		// GCC takes the startup code of -static where both are given.
		tools.Flags = []string{"-static"}
		if slices.ContainsFunc(w.Build, func(c []string) bool { return slices.Contains(c, "-static-pie") }) {
			tools.Flags = nil
		}
		p, err := w.BuildIn(ctx, tools, src, dir)
		if err != nil {
			return err
		}
		if err := os.Rename(p.Path, filepath.Join(root, "bin", w.Name)); err != nil {
			return err
		}
		programs = append(programs, Program{Name: w.Name, Args: w.Args})
	}
	text, err := json.MarshalIndent(programs, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, "programs.json"), text, 0o644)
}

// toolchain returns Debian's compilers for an architecture.
func toolchain(arch string) (workloads.Toolchain, error) {
	tools := workloads.Native()
	tools.Arch = arch
	tools.Env = []string{"CGO_ENABLED=0", "GOARCH=" + arch}
	if arch == runtime.GOARCH {
		return tools, nil
	}
	machine, ok := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[arch]
	if !ok {
		return tools, fmt.Errorf("no compilers for %s are known", arch)
	}
	tools.CC, tools.CXX = machine+"-linux-gnu-gcc", machine+"-linux-gnu-g++"
	return tools, nil
}

// choose returns the workloads to build.
func choose(tools workloads.Toolchain) ([]workloads.Workload, error) {
	all := workloads.All(tools)
	find := func(name string) (workloads.Workload, error) {
		i := slices.IndexFunc(all, func(w workloads.Workload) bool { return w.Name == name })
		if i < 0 {
			return workloads.Workload{}, fmt.Errorf("there is no workload %s for %s", name, tools.Arch)
		}
		return all[i], nil
	}
	var list []workloads.Workload
	for _, name := range chosen {
		if name == "jit" && tools.Arch == "arm64" {
			continue
		}
		w, err := find(name)
		if err != nil {
			return nil, err
		}
		list = append(list, w)
	}
	if tools.Arch != "arm64" {
		return list, nil
	}
	for _, name := range signed {
		w, err := find(name)
		if err != nil {
			return nil, err
		}
		w.Name, w.Build = "pac-"+name, signedBuild(w.Build)
		list = append(list, w)
	}
	return list, nil
}

func signedBuild(commands [][]string) [][]string {
	var all [][]string
	for _, c := range commands {
		all = append(all, append(slices.Clone(c), "-mbranch-protection=standard"))
	}
	return all
}
