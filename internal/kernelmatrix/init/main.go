// SPDX-License-Identifier: Apache-2.0

// Init is the first process of a virtual machine that runs one kernel: it tries
// the BPF program and recordings there, says how it went in lines that begin
// with KMX, and turns the machine off.
//
//	KMX ok NAME DETAIL     a check that passed
//	KMX FAIL NAME DETAIL   one that did not; its output follows
//	KMX value NAME=VALUE   for the table of all kernels
//	KMX DONE fails=N       the last line
//
// What a kernel lacks is a failure: nothing is skipped.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// checksArg makes the program run the checks instead of being init. They run in
// a child because Go packages read /proc once, when they are first used: it has
// to be there when the process starts.
const checksArg = "checks"

func main() {
	if len(os.Args) > 1 {
		if err := runPart(os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, "init:", err)
			os.Exit(1)
		}
		return
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "init: runs as process 1 of a virtual machine; see run.sh")
		os.Exit(2)
	}
	if err := bootAndCheck(); err != nil {
		fmt.Printf("KMX FAIL init %v\n", err)
	}
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Println(err)
	}
}

// runPart does what this program does in processes other than the first.
func runPart(arg string) error {
	switch arg {
	case checksArg:
		if failed := runChecks(); failed > 0 {
			return fmt.Errorf("%d checks failed", failed)
		}
		return nil
	case programsArg:
		return runPrograms()
	case hotplugArg:
		return hotplug()
	case throttleArg:
		return throttle()
	}
	return fmt.Errorf("unexpected argument %q", arg)
}

func bootAndCheck() error {
	if err := mountAll(); err != nil {
		return err
	}
	// The host's patience is longer: a check that hangs is named by its absence.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/init", checksArg)
	cmd.Env = append(os.Environ(), "PATH=/bin", "TMPDIR=/tmp", "HOME=/tmp")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("checks: %w", err)
	}
	return nil
}

// mountAll mounts what a booted system has and lowflame reads. The root is 0755
// already: see run.sh.
func mountAll() error {
	for _, m := range []struct{ kind, dir string }{
		{"proc", "/proc"},
		{"sysfs", "/sys"},
		{"devtmpfs", "/dev"},
		{"tmpfs", "/tmp"},
		{"tracefs", "/sys/kernel/tracing"},
		{"securityfs", "/sys/kernel/security"},
		{"bpf", "/sys/fs/bpf"},
		{"cgroup2", "/sys/fs/cgroup"},
	} {
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	return nil
}

// runChecks runs every check and returns how many failed.
func runChecks() (failed int) {
	var name unix.Utsname
	if err := unix.Uname(&name); err == nil {
		value("release", unix.ByteSliceToString(name.Release[:]))
	}
	log := openKernelLog()
	for _, c := range checks() {
		began := time.Now()
		detail, err := c.try()
		took := time.Since(began).Round(time.Millisecond)
		if err == nil {
			fmt.Printf("KMX ok %s %s (%v)\n", c.name, detail, took)
			continue
		}
		failed++
		first, rest, _ := strings.Cut(err.Error(), "\n")
		fmt.Printf("KMX FAIL %s %s (%v)\n%s\n", c.name, first, took, rest)
	}
	if err := log.complaints(); err != nil {
		failed++
		fmt.Printf("KMX FAIL kernel-log %v\n", err)
	} else {
		fmt.Println("KMX ok kernel-log no complaints")
	}
	fmt.Printf("KMX DONE fails=%d\n", failed)
	return failed
}

func value(name, v string) { fmt.Printf("KMX value %s=%s\n", name, v) }
