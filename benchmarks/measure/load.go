// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// GoBuild runs "go build -a packages" again and again, each time with an empty
// cache, until ctx ends. It returns how many builds came to their end.
func GoBuild(ctx context.Context, packages string) (int, error) {
	for n := 0; ; n++ {
		if err := goBuild(ctx, packages); err != nil {
			if ctx.Err() != nil {
				return n, nil
			}
			return n, err
		}
	}
}

func goBuild(ctx context.Context, packages string) error {
	cache, err := os.MkdirTemp("", "lowflame-gocache-")
	if err != nil {
		return fmt.Errorf("go build: %w", err)
	}
	defer os.RemoveAll(cache)
	cmd := exec.CommandContext(ctx, "go", "build", "-a", packages)
	cmd.Env = append(os.Environ(), "GOCACHE="+cache)
	// Its compilers must end with it, or they write into the removed cache.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build -a %s: %w\n%s", packages, err, out)
	}
	return nil
}

// Start starts n processes of a command, which end with stop.
func Start(ctx context.Context, n int, command ...string) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	var started []*exec.Cmd
	stop = func() {
		cancel()
		for _, cmd := range started {
			_ = cmd.Wait() // killed
		}
	}
	for range n {
		cmd := exec.CommandContext(ctx, command[0], command[1:]...)
		if err := cmd.Start(); err != nil {
			stop()
			return nil, fmt.Errorf("start load: %w", err)
		}
		started = append(started, cmd)
	}
	return stop, nil
}

// NeedRoot returns an error if this process cannot run lowflame record.
func NeedRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("lowflame record needs root")
	}
	return nil
}
