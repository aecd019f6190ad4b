// SPDX-License-Identifier: Apache-2.0

package process

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ring is the memory the kernel writes the records of one perf event to: a
// control page and a power of two of data pages. One goroutine at a time may
// use it. See perf_event_open(2), "MMAP layout".
type ring struct {
	cpu   int
	fd    int
	mem   []byte
	data  []byte
	head  *uint64 // written by the kernel, read with acquire order
	tail  *uint64 // written by us with release order: the kernel may overwrite what is before
	ended bool    // the kernel will write no more: the CPU went offline
	wrap  []byte  // a record that crosses the end of data, put together
}

// openRing opens the sideband event of one CPU with at least one page and at
// most size bytes of data. Fewer are taken if the memory lock limit
// (perf_event_mlock_kb, RLIMIT_MEMLOCK) leaves no room.
func openRing(cpu, size int, attr *unix.PerfEventAttr) (*ring, error) {
	fd, err := unix.PerfEventOpen(attr, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open perf event on CPU %d: %w", cpu, err)
	}
	page := os.Getpagesize()
	for n := page * floorPow2(max(size/page, 1)); ; n /= 2 {
		mem, err := unix.Mmap(fd, 0, page+n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err == nil {
			return newRing(cpu, fd, mem, page), nil
		}
		if (err != unix.EPERM && err != unix.ENOMEM) || n == page {
			_ = unix.Close(fd) // nothing was written
			return nil, fmt.Errorf("map %d bytes of perf ring of CPU %d: %w", page+n, cpu, err)
		}
	}
}

func newRing(cpu, fd int, mem []byte, page int) *ring {
	control := (*unix.PerfEventMmapPage)(unsafe.Pointer(&mem[0]))
	return &ring{cpu: cpu, fd: fd, mem: mem, data: mem[page:], head: &control.Data_head, tail: &control.Data_tail}
}

// read calls yield with each whole record written since the last call, and
// then lets the kernel have the room. Records are valid only during yield. It
// returns false if the ring made no sense and what was in it had to be dropped.
func (r *ring) read(yield func(rec []byte)) bool {
	head := atomic.LoadUint64(r.head)
	tail := *r.tail // only we write it
	size, mask := uint64(len(r.data)), uint64(len(r.data)-1)
	sane := head-tail <= size
	for sane && head != tail {
		left := head - tail
		if left < headerBytes {
			sane = false
			break
		}
		// Records are multiples of 8 bytes, so a header never wraps.
		n := uint64(binary.NativeEndian.Uint16(r.data[tail&mask+6:]))
		if n < headerBytes || n%8 != 0 || n > left {
			sane = false
			break
		}
		yield(r.record(tail&mask, n))
		tail += n
	}
	atomic.StoreUint64(r.tail, head)
	return sane
}

func (r *ring) record(at, n uint64) []byte {
	if at+n <= uint64(len(r.data)) {
		return r.data[at : at+n]
	}
	r.wrap = append(r.wrap[:0], r.data[at:]...)
	r.wrap = append(r.wrap, r.data[:at+n-uint64(len(r.data))]...)
	return r.wrap
}

func (r *ring) close() error {
	err := unix.Munmap(r.mem)
	if err2 := unix.Close(r.fd); err == nil {
		err = err2
	}
	if err != nil {
		return fmt.Errorf("close perf ring of CPU %d: %w", r.cpu, err)
	}
	return nil
}

func floorPow2(n int) int {
	p := 1
	for p*2 <= n {
		p *= 2
	}
	return p
}
