// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

var errNoSuchProcess = errors.New("no such process")

// CheckPID returns an error unless pid is a process that runs: not one that has
// ended and waits for its parent, and not a thread of another.
func CheckPID(pid uint32) error {
	status, err := processStatus(pid)
	switch {
	case err != nil || strings.ContainsAny(status.state, "ZX"):
		return fmt.Errorf("process %d: %w", pid, errNoSuchProcess)
	case status.tgid != pid:
		return fmt.Errorf("process %d: it is a thread of process %d: give that", pid, status.tgid)
	}
	return nil
}

// pidStatus is what /proc/PID/status says of the first thread of a process, or of
// another one.
type pidStatus struct {
	state   string // one letter
	tgid    uint32
	threads uint64 // of the process, zombies included
}

func processStatus(pid uint32) (pidStatus, error) {
	var s pidStatus
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return s, err
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "State":
			s.state = value[:min(len(value), 1)]
		case "Tgid":
			var n uint64
			n, err = strconv.ParseUint(value, 10, 32)
			s.tgid = uint32(n)
		case "Threads":
			s.threads, err = strconv.ParseUint(value, 10, 32)
		}
		if err != nil {
			return s, fmt.Errorf("/proc/%d/status: %s: %w", pid, key, err)
		}
	}
	return s, nil
}
