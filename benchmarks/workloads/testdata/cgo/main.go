// SPDX-License-Identifier: Apache-2.0

// Calls between Go and C, which change stacks: C runs on the thread's own stack,
// Go on the goroutine's. With "callback" as second argument C calls Go back.
//
// Truth of the plain run: runtime.goexit → main.main.func1 → main.worker →
// main.unit → main.callC → … → runtime.cgocall → runtime.asmcgocall → … →
// c_outer → c_inner → c_hot, about 70 % of the CPU; the rest in main.cold. With
// callback the hot function is main.hot: … → runtime.asmcgocall → … →
// c_calls_go → goBack → crosscall2 → runtime.cgocallback → … → main.goBack →
// main.hot, which is every frame of both stacks. Go's own traceback leaves the C
// frames out.
package main

// #cgo CFLAGS: -O2 -fomit-frame-pointer
// #include "work.h"
import "C"

import (
	"encoding/json"
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
	workers = 4
	chunk   = 300_000 // steps, about a millisecond

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
	spent [2]atomic.Uint64 // ns of CPU in the hot function and in cold
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

//go:noinline
func hot(n, x uint64) uint64 {
	for i := range n {
		x ^= x >> 29
		x = x*0x9e3779b97f4a7c15 + i
	}
	return x
}

//go:noinline
func cold(n, x uint64) uint64 {
	for i := range n {
		x ^= x >> 29
		x = x*0xbf58476d1ce4e5b9 + i
	}
	return x
}

//export goBack
func goBack(n, x C.uint64_t) C.uint64_t {
	return C.uint64_t(hot(uint64(n), uint64(x)))
}

//go:noinline
func callC(n, x uint64) uint64 { return uint64(C.c_outer(C.uint64_t(n), C.uint64_t(x))) }

//go:noinline
func callBack(n, x uint64) uint64 { return uint64(C.c_calls_go(C.uint64_t(n), C.uint64_t(x))) }

// unit burns 2 to 6 ms of CPU. The thread's clock counts only this goroutine
// while it is locked to the thread.
//
//go:noinline
func unit(rng *uint64, call func(n, x uint64) uint64) uint64 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	which, burn := 0, call
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
func worker(id int, deadline time.Time, call func(n, x uint64) uint64, done *sync.WaitGroup) {
	rng := 88172645463325252 * uint64(2*id+1)
	for time.Now().Before(deadline) {
		sink.Add(unit(&rng, call))
		runtime.Gosched()
	}
	done.Done()
}

func main() {
	seconds := 5.0
	if len(os.Args) > 1 {
		seconds, _ = strconv.ParseFloat(os.Args[1], 64)
	}
	call, hotTruth := callC, truth{Function: "c_hot", Chain: []string{
		"runtime.goexit", "main.main.func1", "main.worker", "main.unit", "main.callC", "...", "runtime.cgocall", "runtime.asmcgocall", "...",
		"c_outer", "c_inner", "c_hot",
	}}
	if len(os.Args) > 2 && os.Args[2] == "callback" {
		call, hotTruth = callBack, truth{Function: "main.hot", Chain: []string{
			"runtime.goexit", "main.main.func1", "main.worker", "main.unit", "main.callBack", "...", "runtime.cgocall", "runtime.asmcgocall", "...",
			"c_calls_go", "goBack", "crosscall2", "runtime.cgocallback", "...", "main.goBack", "main.hot",
		}}
	}
	deadline := time.Now().Add(time.Duration(seconds * float64(time.Second)))
	var done sync.WaitGroup
	done.Add(workers)
	for id := range workers {
		go func() { worker(id, deadline, call, &done) }()
	}
	done.Wait()
	write(hotTruth)
}

func write(hotTruth truth) {
	total := cpuNS(clockProcess)
	hotTruth.Share = float64(spent[0].Load()) / float64(total)
	r := report{PID: os.Getpid(), CPUNS: total, Truth: []truth{hotTruth, {
		Function: "main.cold", Share: float64(spent[1].Load()) / float64(total),
		Chain: []string{"runtime.goexit", "main.main.func1", "main.worker", "main.unit", "main.cold"},
	}}}
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		panic(err)
	}
}
