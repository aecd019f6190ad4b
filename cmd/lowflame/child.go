// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
)

// execWhenReleased is the hidden command that becomes the profiled command: it
// waits until sampling has begun, so that not a moment of the command is missed.
const execWhenReleased = "exec-when-released"

// releaseFD is the pipe the hidden command waits on.
const releaseFD = 3

// child is a command that is started but held before its first instruction.
type child struct {
	path    string
	cmd     *exec.Cmd
	release *os.File
}

// startChild finds a command and starts a process that will become it. The
// error is an exitStatus of 126 or 127 when there is nothing to run.
//
// With quiet its standard output goes to standard error.
func startChild(command []string, quiet bool) (*child, error) {
	path, err := exec.LookPath(command[0])
	if err != nil {
		fmt.Fprintf(os.Stderr, "lowflame: %v\n", err)
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EISDIR) {
			return nil, exitStatus(exitCannotRun)
		}
		return nil, exitStatus(exitNotFound)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("hold the command: %w", err)
	}
	defer r.Close()
	// The command is ended by record's own rules, not by a context.
	cmd := exec.Command("/proc/self/exe", append([]string{execWhenReleased, path}, command...)...) //nolint:noctx // see above
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if quiet {
		cmd.Stdout = os.Stderr
	}
	cmd.ExtraFiles = []*os.File{r}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", command[0], err), w.Close())
	}
	return &child{path: path, cmd: cmd, release: w}, nil
}

// pid is the command's process ID.
func (c *child) pid() uint32 { return uint32(c.cmd.Process.Pid) }

// run lets the command go.
func (c *child) run() error {
	if _, err := c.release.Write([]byte{1}); err != nil {
		return fmt.Errorf("release the command: %w", err)
	}
	return c.release.Close()
}

// abandon ends a command that was never let go.
func (c *child) abandon() {
	c.release.Close()
	_ = c.cmd.Wait() // it exits by itself when the pipe closes
}

// wait returns the command's exit status, as a shell gives it.
func (c *child) wait() (int, error) {
	err := c.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, fmt.Errorf("wait for the command: %w", err)
	}
	status := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return exitSignalShift + int(status.Signal()), nil
	}
	return status.ExitStatus(), nil
}

// runReleased is the child's side: args are the path and the command line.
func runReleased(args []string) int {
	pipe := os.NewFile(releaseFD, "release")
	var b [1]byte
	if n, _ := pipe.Read(b[:]); n != 1 || len(args) < 2 {
		return exitOwnFailure // the recording never began
	}
	pipe.Close()
	err := syscall.Exec(args[0], args[1:], os.Environ())
	fmt.Fprintf(os.Stderr, "lowflame: run %s: %v\n", args[0], err)
	return exitCannotRun
}
