// SPDX-License-Identifier: Apache-2.0

package process

import (
	"bytes"
	"errors"
)

var errStat = errors.New("malformed /proc/PID/stat")

// Flags of field 9 of /proc/PID/stat (kernel: include/linux/sched.h).
const (
	pfExiting = 0x00000004
	pfKThread = 0x00200000
)

// stat is what the table needs of /proc/PID/stat (proc_pid_stat(5)).
type stat struct {
	Comm    string
	State   byte
	PPID    uint32
	Flags   uint64
	Threads uint64
	Start   uint64 // clock ticks since boot
}

// dead reports whether the thread that s is of runs no user code any more: it
// is a zombie or on its way there.
func (s *stat) dead() bool {
	return s.State == 'Z' || s.State == 'X' || s.State == 'x' || s.Flags&pfExiting != 0
}

// parseStat parses /proc/PID/stat. The name in it may hold spaces, parentheses
// and line feeds, so it ends at the last ')'.
func parseStat(b []byte) (stat, error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return stat{}, errStat
	}
	s := stat{Comm: string(b[open+1 : min(end, open+1+maxComm)])}
	f := bytes.Fields(b[end+1:]) // f[i] is field i+3 of the manual page
	if len(f) < 20 || len(f[0]) != 1 {
		return stat{}, errStat
	}
	s.State = f[0][0]
	ppid, _, ok1 := cutDec(f[1])
	flags, _, ok2 := cutDec(f[6])
	threads, _, ok3 := cutDec(f[17])
	start, _, ok4 := cutDec(f[19])
	if !ok1 || !ok2 || !ok3 || !ok4 || ppid > 1<<32-1 {
		return stat{}, errStat
	}
	s.PPID, s.Flags, s.Threads, s.Start = uint32(ppid), flags, threads, start
	return s, nil
}

// maxComm bounds a thread's name. The kernel keeps 15 bytes (TASK_COMM_LEN);
// kernel workers show up to 63.
const maxComm = 63

// parseNSPID returns the last number of the NSpid line of /proc/PID/status: the
// PID in the innermost namespace. Names in that file are escaped, so a line
// cannot be forged.
func parseNSPID(b []byte) (uint32, bool) {
	for line := range bytes.Lines(b) {
		rest, ok := bytes.CutPrefix(line, []byte("NSpid:"))
		if !ok {
			continue
		}
		f := bytes.Fields(rest)
		if len(f) == 0 {
			return 0, false
		}
		n, rest, ok := cutDec(f[len(f)-1])
		return uint32(n), ok && len(rest) == 0 && n <= 1<<32-1
	}
	return 0, false
}
