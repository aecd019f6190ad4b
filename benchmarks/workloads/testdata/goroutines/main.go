// SPDX-License-Identifier: Apache-2.0

// A thousand goroutines that take turns on all CPUs. Built plain, stripped
// (-ldflags='-s -w') and position independent (-buildmode=pie).
//
// Truth: runtime.goexit → main.main.func1 → main.worker → main.descend × 20 →
// main.unit → main.hot, about 70 % of the CPU, or main.cold. main.mix is inlined
// into both, so the two are counted as whatever is at or below them.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

const (
	goroutines = 1000
	depth      = 20
	chunk      = 300_000 // steps, about a millisecond

	clockProcess = 2 // CLOCK_PROCESS_CPUTIME_ID
	clockThread  = 3 // CLOCK_THREAD_CPUTIME_ID
)

type truth struct {
	Function string   `json:"function"`
	Under    bool     `json:"under"`
	Share    float64  `json:"share"`
	Chain    []string `json:"chain"`
}

type report struct {
	PID     int        `json:"pid"`
	CPUNS   uint64     `json:"cpu_ns"`
	Truth   []truth    `json:"truth"`
	Present [][]string `json:"present"`
}

var (
	spent [2]atomic.Uint64 // ns of CPU in hot and cold
	sink  atomic.Uint64
)

func cpuNS(clock uintptr) uint64 {
	var t syscall.Timespec
	_, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clock, uintptr(unsafe.Pointer(&t)), 0)
	if errno != 0 {
		panic(errno)
	}
	return uint64(t.Nano())
}

// mix is small enough to be inlined.
func mix(x, odd, i uint64) uint64 {
	x ^= x >> 29
	return x*odd + i
}

//go:noinline
func hot(n, x uint64) uint64 {
	for i := range n {
		x = mix(x, 0x9e3779b97f4a7c15, i)
	}
	return x
}

//go:noinline
func cold(n, x uint64) uint64 {
	for i := range n {
		x = mix(x, 0xbf58476d1ce4e5b9, i)
	}
	return x
}

// unit burns 2 to 6 ms of CPU. The thread's clock counts only this goroutine
// while it is locked to the thread.
//
//go:noinline
func unit(rng *uint64) uint64 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	which, burn := 0, hot
	if next(rng)%10 >= 7 {
		which, burn = 1, cold
	}
	want := 2_000_000 + next(rng)%4_000_000
	start := cpuNS(clockThread)
	x, used := start, uint64(0)
	for used < want {
		x = burn(chunk, x)
		used = cpuNS(clockThread) - start
	}
	spent[which].Add(used)
	return x
}

func next(x *uint64) uint64 {
	*x ^= *x << 13
	*x ^= *x >> 7
	*x ^= *x << 17
	return *x
}

//go:noinline
func descend(n int, rng *uint64) uint64 {
	if n <= 1 {
		return unit(rng)
	}
	return descend(n-1, rng) + uint64(n)
}

//go:noinline
func worker(id int, deadline time.Time, done *sync.WaitGroup) {
	rng := 88172645463325252 * uint64(2*id+1)
	for time.Now().Before(deadline) {
		sink.Add(descend(depth, &rng))
		runtime.Gosched()
	}
	done.Done()
}

func main() {
	seconds := 5.0
	if len(os.Args) > 1 {
		seconds, _ = strconv.ParseFloat(os.Args[1], 64)
	}
	deadline := time.Now().Add(time.Duration(seconds * float64(time.Second)))
	var done sync.WaitGroup
	done.Add(goroutines)
	for id := range goroutines {
		go func() { worker(id, deadline, &done) }()
	}
	done.Wait()
	write()
}

func write() {
	total := cpuNS(clockProcess)
	r := report{PID: os.Getpid(), CPUNS: total}
	for i, f := range []string{"main.hot", "main.cold"} {
		stack := []string{"runtime.goexit", "main.main.func1", "main.worker", fmt.Sprintf("main.descend*%d", depth), "main.unit", f}
		r.Truth = append(r.Truth, truth{
			Function: f, Under: true, Share: float64(spent[i].Load()) / float64(total),
			Chain: append(stack, "..."),
		})
		r.Present = append(r.Present, append(stack[:len(stack):len(stack)], "main.mix"))
	}
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		panic(err)
	}
}
