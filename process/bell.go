// SPDX-License-Identifier: Apache-2.0

package process

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// firstBellID marks the bell of CPU 0 among epoll's events, the one below it that
// of CPU 1.
const firstBellID = wakeID - 1

// bellAttr is the event that wakes a reader at an exec. The rings with all that
// happens cannot: the kernel wakes by their fill alone, and waking at each record
// costs as much as reading it.
func bellAttr() unix.PerfEventAttr {
	return unix.PerfEventAttr{
		Type:   unix.PERF_TYPE_SOFTWARE,
		Size:   uint32(unsafe.Sizeof(unix.PerfEventAttr{})),
		Config: unix.PERF_COUNT_SW_DUMMY,
		Bits:   unix.PerfBitComm | unix.PerfBitWatermark,
		Wakeup: 1,
	}
}

// openBell opens the bell of a CPU, in place of the one there is.
func (s *Sideband) openBell(cpu int) error {
	if s.config.ExecWakeup <= 0 {
		return nil
	}
	attr := bellAttr()
	r, err := openRing(cpu, 0, &attr)
	if err != nil {
		return err
	}
	if err := s.watch(r.fd, int32(firstBellID-cpu)); err != nil {
		return errors.Join(err, r.close())
	}
	for i, old := range s.bells {
		if old.cpu == cpu {
			s.bells[i] = r
			return old.close()
		}
	}
	s.bells = append(s.bells, r)
	return nil
}

// settle waits until what began with the exec that rang has been told. It reports
// whether Wake was called.
func (s *Sideband) settle() (woken bool, err error) {
	fds := []unix.PollFd{{Fd: int32(s.wake), Events: unix.POLLIN}}
	end := time.Now().Add(s.config.ExecWakeup)
	for left := s.config.ExecWakeup; left > 0 && !woken; left = time.Until(end) {
		timeout := unix.NsecToTimespec(left.Nanoseconds())
		n, err := unix.Ppoll(fds, &timeout, nil)
		if err != nil && err != unix.EINTR { // the runtime preempts threads with signals
			return false, fmt.Errorf("wait for the records of an exec: %w", err)
		}
		woken = err == nil && n > 0
	}
	if woken {
		s.resetWake()
	}
	return woken, nil
}

// discard lets the kernel have the room of all it has written.
func (r *ring) discard() { atomic.StoreUint64(r.tail, atomic.LoadUint64(r.head)) }
