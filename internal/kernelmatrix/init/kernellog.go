// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// complaint matches what the kernel says when it has found a fault in itself.
// Stalls and soft lockups are not faults here: an emulated CPU may wait long.
var complaint = regexp.MustCompile(`WARNING: |BUG: |Oops|general protection fault|Unable to handle kernel`)

var stall = regexp.MustCompile(`soft lockup|stall`)

// kernelLog is the kernel's log from the moment it was opened.
type kernelLog struct {
	file *os.File
	err  error
}

func openKernelLog() kernelLog {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return kernelLog{err: fmt.Errorf("open /dev/kmsg: %w", err)}
	}
	if _, err := unix.Seek(fd, 0, io.SeekEnd); err != nil {
		return kernelLog{err: fmt.Errorf("seek /dev/kmsg: %w", err)}
	}
	return kernelLog{file: os.NewFile(uintptr(fd), "/dev/kmsg")}
}

// complaints returns an error with the faults the kernel has logged.
func (l kernelLog) complaints() error {
	if l.err != nil {
		return l.err
	}
	defer l.file.Close()
	var found []string
	record := make([]byte, 8192) // kernel: CONSOLE_EXT_LOG_MAX
	for {
		n, err := unix.Read(int(l.file.Fd()), record)
		switch {
		case errors.Is(err, unix.EAGAIN):
			if len(found) > 0 {
				return fmt.Errorf("the kernel found a fault:\n%s", strings.Join(found, "\n"))
			}
			return nil
		case errors.Is(err, unix.EPIPE) || errors.Is(err, unix.EINTR): // records were overwritten
			continue
		case err != nil:
			return fmt.Errorf("read /dev/kmsg: %w", err)
		}
		line, _, _ := strings.Cut(string(record[:n]), "\n")
		if len(found) > 0 && len(found) < 40 || complaint.MatchString(line) && !stall.MatchString(line) {
			found = append(found, line)
		}
	}
}
