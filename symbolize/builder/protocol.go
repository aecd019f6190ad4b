// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Worker is what the command line of a worker has in place of a command.
const Worker = "symbolize-worker"

// The two sides talk over a socket that keeps messages apart (SOCK_SEQPACKET): JSON,
// with the files a message is about beside it (SCM_RIGHTS). The first message has the
// task; then the worker asks, and is answered, until it says what came of it.

// role is what a file is to a worker.
type role string

const (
	roleOut     role = "out"
	roleObject  role = "object"
	roleSymbols role = "symbols"
	roleDebug   role = "debug"
	roleAlt     role = "alt"
	rolePackage role = "package"
)

// task is the first message.
type task struct {
	Files       []role // in the order of the files beside the message
	MemoryBytes int64
	CPU         time.Duration
}

// request is a message of a worker. Exactly one field is set.
type request struct {
	Ready bool     `json:",omitempty"` // confined; not answered
	DWO   *dwoName `json:",omitempty"` // answered with the file of a split unit
	Temp  bool     `json:",omitempty"` // answered with an empty file
	Done  *outcome `json:",omitempty"` // not answered
}

type dwoName struct{ Name, CompDir string }

type outcome struct {
	Result Result
	Err    string // empty if the index is complete
}

// answer has a file beside it, or says why not.
type answer struct{ Err string }

const (
	// maxMessage is larger than a request with two paths of PATH_MAX in JSON.
	maxMessage = 64 << 10
	maxFiles   = 8
)

// send sends one message. fds stay the caller's.
func send(socket int, message any, fds ...int) error {
	b, err := json.Marshal(message)
	if err != nil {
		return err
	}
	if len(b) > maxMessage {
		return fmt.Errorf("message of %d bytes", len(b))
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	for {
		err := unix.Sendmsg(socket, b, rights, nil, unix.MSG_NOSIGNAL)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// receive waits for one message and the files beside it, which are the caller's, also
// when there is an error. It returns io.EOF if the other side is gone.
func receive(socket int, message any) (files []*os.File, err error) {
	b, rights := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4*maxFiles))
	var n, nrights, flags int
	for {
		n, nrights, flags, _, err = unix.Recvmsg(socket, b, rights, unix.MSG_CMSG_CLOEXEC)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if errors.Is(err, unix.ECONNRESET) { // it did not read what it was sent
		err = io.EOF
	}
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:nrights])
	for i := range messages {
		fds, rightsErr := unix.ParseUnixRights(&messages[i])
		err = errors.Join(err, rightsErr)
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	switch {
	case err != nil:
		return files, err
	case n == 0:
		return files, io.EOF
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		return files, errors.New("message too long")
	}
	return files, json.Unmarshal(b[:n], message)
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
