// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/agent"
)

// ending decides when a recording is over: when its command or its processes
// end, after a duration, or when the caller's context is done (Ctrl-C).
type ending struct {
	pids     []uint32
	cmd      *child // nil without a command
	duration time.Duration
	stop     context.CancelFunc

	wg     sync.WaitGroup
	exited chan struct{}
	// Set before exited is closed.
	status int
	err    error
}

// begin is called when sampling has begun.
func (e *ending) begin(ctx context.Context) {
	if e.cmd != nil {
		e.exited = make(chan struct{})
		e.wg.Go(e.runCommand)
	}
	if len(e.pids) > 0 {
		e.wg.Go(func() { e.watchPIDs(ctx) })
	}
	if e.duration > 0 {
		timer := time.AfterFunc(e.duration, e.stop)
		context.AfterFunc(ctx, func() { timer.Stop() })
	}
}

func (e *ending) runCommand() {
	defer e.stop()
	defer close(e.exited)
	released := e.cmd.run()
	status, err := e.cmd.wait()
	e.status, e.err = status, errors.Join(released, err)
}

// watchPIDs ends the recording when no process of those asked for is left.
func (e *ending) watchPIDs(ctx context.Context) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		alive := false
		for _, pid := range e.pids {
			alive = alive || agent.CheckPID(pid) == nil
		}
		if !alive {
			e.stop()
			return
		}
	}
}

// How long a command may take to end: by itself on the SIGINT that a terminal
// sends it too, and on our SIGTERM.
const (
	interruptGrace = 2 * time.Second
	commandGrace   = 5 * time.Second
)

// finish waits for everything begin started and returns the command's status.
// A command that still runs is ended; one that was interrupted with us is given
// the time to end by itself first.
func (e *ending) finish(interrupted bool) (int, error) {
	e.stop()
	switch {
	case e.cmd == nil:
	case e.exited == nil: // sampling never began
		e.cmd.abandon()
	default:
		e.endCommand(interrupted)
	}
	e.wg.Wait()
	return e.status, e.err
}

func (e *ending) endCommand(interrupted bool) {
	grace := time.Duration(0)
	if interrupted {
		grace = interruptGrace
	}
	select {
	case <-e.exited:
		return
	case <-time.After(grace):
	}
	// Errors mean that it has ended by itself meanwhile.
	_ = unix.Kill(int(e.cmd.pid()), unix.SIGTERM)
	select {
	case <-e.exited:
	case <-time.After(commandGrace):
		_ = unix.Kill(int(e.cmd.pid()), unix.SIGKILL)
	}
}
