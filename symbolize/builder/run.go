// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/symbolize/debugfile"
)

// Limits bound one build. Zero values mean the defaults.
type Limits struct {
	MemoryBytes int64         // resident; 0 means 256 MiB
	CPU         time.Duration // 0 means 2 minutes
	Time        time.Duration // 0 means 5 minutes
	// TempFiles bounds how many temporary files there are, each as large as a
	// section at most; 0 means 64.
	TempFiles int
}

// Job is one index to build. The files stay the caller's.
type Job struct {
	Object *os.File
	// Found is what was found for Object.
	Found *debugfile.Found
	// Out is empty and open for writing; what is in it after an error is no index.
	Out     *os.File
	TempDir string // "" means os.TempDir
	Limits  Limits
}

// LimitError says that a worker was killed because it took too much.
type LimitError struct{ What string }

func (e *LimitError) Error() string { return "took more than " + e.What }

// ErrStart says that there was no process to build with.
var ErrStart = errors.New("start builder of symbol indexes")

// poll is how often a worker's memory is looked at.
const poll = 100 * time.Millisecond

// Run builds an index in a process of its own and waits for it. The error is ctx's,
// a *LimitError, or says what the worker said, or what ended it: it is about these
// files, and comes again if they are tried again, unless it is ctx's or wraps
// ErrStart.
func Run(ctx context.Context, j Job) (Result, error) {
	runtime.LockOSThread() // at its end the worker would be killed: see attributes
	defer runtime.UnlockOSThread()
	j.Limits.MemoryBytes = cmp.Or(j.Limits.MemoryBytes, 256<<20)
	j.Limits.CPU = cmp.Or(j.Limits.CPU, 2*time.Minute)
	j.Limits.Time = cmp.Or(j.Limits.Time, 5*time.Minute)
	j.Limits.TempFiles = cmp.Or(j.Limits.TempFiles, 64)
	w, err := start()
	if err != nil {
		return Result{}, fmt.Errorf("%w: %w", ErrStart, err)
	}
	defer unix.Close(w.socket)
	err = j.hand(w.socket)
	var done *outcome
	if err == nil {
		done, err = w.serve(ctx, &j)
	}
	if done == nil {
		_ = w.cmd.Process.Kill() // it may have ended
	}
	ended := w.cmd.Wait()
	switch {
	case done != nil && done.Err != "":
		return done.Result, errors.New(done.Err)
	case done != nil:
		return done.Result, nil
	case errors.Is(err, io.EOF), errors.Is(err, unix.EPIPE):
		if err = w.why(ended, &j.Limits); !w.ready {
			err = fmt.Errorf("%w: %w", ErrStart, err)
		}
	}
	return Result{}, err
}

// worker is a process that builds.
type worker struct {
	cmd    *exec.Cmd
	socket int
	ready  bool         // it has confined itself
	stderr bytes.Buffer // what it said before it ended
}

func start() (*worker, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	theirs := os.NewFile(uintptr(pair[1]), "socket")
	defer theirs.Close()
	timeout := unix.NsecToTimeval(int64(poll))
	if err := unix.SetsockoptTimeval(pair[0], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		unix.Close(pair[0])
		return nil, err
	}
	w := &worker{socket: pair[0]}
	as := nobody()
	if err = w.exec(theirs, as); as != nil && errors.Is(err, unix.EPERM) {
		err = w.exec(theirs, nil)
	}
	if err != nil {
		unix.Close(pair[0])
		return nil, err
	}
	return w, nil
}

func (w *worker) exec(socket *os.File, as *syscall.Credential) error {
	//nolint:noctx // serve has the context, and why it ends matters
	w.cmd = exec.Command("/proc/self/exe", Worker)
	w.cmd.Env = []string{"GOGC=50", "GOMAXPROCS=1"}
	w.cmd.Dir = "/"
	w.cmd.ExtraFiles = []*os.File{socket}
	w.cmd.Stderr = &limitedBuffer{&w.stderr}
	w.cmd.SysProcAttr = attributes(as)
	return w.cmd.Start()
}

// attributes are a process group of its own, for the nice value, which also keeps
// Ctrl-C to us; and death when we die.
func attributes(as *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: as}
}

// nobody is a user that owns nothing, where we may become one. Others are without
// capabilities, or give them up.
func nobody() *syscall.Credential {
	if os.Geteuid() != 0 {
		return nil
	}
	return &syscall.Credential{Uid: 65534, Gid: 65534}
}

// hand sends the task.
func (j *Job) hand(socket int) error {
	t := task{MemoryBytes: j.Limits.MemoryBytes, CPU: j.Limits.CPU}
	var fds []int
	add := func(r role, f *os.File) {
		t.Files = append(t.Files, r)
		fds = append(fds, int(f.Fd()))
	}
	add(roleOut, j.Out)
	add(roleObject, j.Object)
	for _, f := range []struct {
		role role
		file *debugfile.File
	}{
		{roleSymbols, j.Found.Symbols}, {roleDebug, j.Found.Debug}, {roleAlt, j.Found.Alt}, {rolePackage, j.Found.Package},
	} {
		switch {
		case f.file == nil:
		case f.file.Handle == nil:
			add(f.role, j.Object)
		default:
			add(f.role, f.file.Handle)
		}
	}
	return send(socket, t, fds...)
}

// serve answers the worker until it is done or gone, or has to go.
func (w *worker) serve(ctx context.Context, j *Job) (*outcome, error) {
	temps, began := 0, time.Now()
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if time.Since(began) > j.Limits.Time {
			return nil, &LimitError{j.Limits.Time.String()}
		}
		if rss := resident(w.cmd.Process.Pid); rss > j.Limits.MemoryBytes {
			return nil, &LimitError{fmt.Sprintf("%d MiB of memory", j.Limits.MemoryBytes>>20)}
		}
		var r request
		files, err := receive(w.socket, &r)
		closeAll(files)
		switch {
		case errors.Is(err, unix.EAGAIN):
			continue
		case err != nil:
			return nil, err
		case r.Done != nil:
			return r.Done, nil
		case r.Ready:
			w.ready = true
		case r.DWO != nil:
			err = w.sendDWO(j, r.DWO)
		case r.Temp && temps < j.Limits.TempFiles:
			temps++
			err = w.sendTemp(j.TempDir)
		default:
			err = send(w.socket, answer{"no more"})
		}
		if err != nil {
			return nil, err
		}
	}
}

func (w *worker) sendDWO(j *Job, name *dwoName) error {
	f, err := j.Found.OpenUnit(name.Name, name.CompDir)
	if err != nil {
		return send(w.socket, answer{err.Error()})
	}
	defer func() { _ = f.Close() }()
	return send(w.socket, answer{}, int(f.Handle.Fd()))
}

func (w *worker) sendTemp(dir string) error {
	f, err := os.CreateTemp(dir, "lowflame-builder-*")
	if err != nil {
		return send(w.socket, answer{err.Error()})
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return err
	}
	return send(w.socket, answer{}, int(f.Fd()))
}

// why says what ended a worker that did not say so itself.
func (w *worker) why(ended error, l *Limits) error {
	var exit *exec.ExitError
	if errors.As(ended, &exit) {
		status, ok := exit.Sys().(syscall.WaitStatus)
		if ok && status.Signaled() && status.Signal() == syscall.SIGXCPU {
			return &LimitError{l.CPU.String() + " of CPU time"}
		}
	}
	first, _, _ := strings.Cut(w.stderr.String(), "\n")
	if strings.Contains(w.stderr.String(), "out of memory") || strings.Contains(w.stderr.String(), "cannot allocate memory") {
		return &LimitError{fmt.Sprintf("%d MiB of memory", l.MemoryBytes>>20)}
	}
	return fmt.Errorf("builder of symbol indexes: %w: %.200q", cmp.Or(ended, errors.New("it ended early")), first)
}

// resident returns the resident memory of a process in bytes, 0 if it is gone.
func resident(pid int) int64 {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// limitedBuffer keeps the first of what is written to it.
type limitedBuffer struct{ b *bytes.Buffer }

func (l *limitedBuffer) Write(p []byte) (int, error) {
	l.b.Write(p[:min(len(p), max(0, 16<<10-l.b.Len()))])
	return len(p), nil
}
