// SPDX-License-Identifier: Apache-2.0

// Plain has 40 frames of main.f below whatever its argument asks for.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"
)

var sink int

//go:noinline
func f(n int, leaf func()) int {
	var frame [24]byte
	frame[n%24] = byte(n)
	if n > 1 {
		sink += f(n-1, leaf)
	} else {
		leaf()
	}
	return sink + int(frame[n%24])
}

//go:noinline
func stop() {
	time.Sleep(50 * time.Millisecond) // for threads that are being made
	syscall.Kill(syscall.Getpid(), syscall.SIGSTOP)
	for { // another thread may have got the signal
		sink++
	}
}

//go:noinline
func spin() {
	println("spinning")
	for {
		sink++
	}
}

// work goes through most of the runtime: maps, growing stacks, channels,
// garbage collection, timers, panics, formatting.
//
//go:noinline
func work() {
	m := map[string][]int{}
	for i := 0; i < 20; i++ {
		k := fmt.Sprint(i % 7)
		m[k] = append(m[k], i)
	}
	c := make(chan int)
	go func() {
		for i := 0; i < 3; i++ {
			c <- f(30, func() {})
		}
		close(c)
	}()
	for v := range c {
		sink += v
	}
	func() {
		defer func() { recover() }()
		panic(strings.Repeat("x", 3))
	}()
	runtime.GC()
	time.Sleep(time.Microsecond)
	sink += len(m)
}

func main() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR1)
	go func() {
		for range c {
			sink++
		}
	}()
	switch os.Args[1] {
	case "stop":
		f(40, stop)
	case "spin":
		f(40, spin)
	case "work":
		f(40, work)
	}
}
