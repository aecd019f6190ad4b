// SPDX-License-Identifier: Apache-2.0

// Cgo has frames of Go, C and Go again on one stack.
package main

/*
#include <signal.h>

extern void goCallback(int);
static volatile int sink;

static __attribute__((noinline)) void cStop(void)
{
	raise(SIGSTOP);
	sink++;
}

static __attribute__((noinline)) int cf(int n, int back)
{
	if (n > 1)
		sink += cf(n - 1, back);
	else if (back)
		goCallback(n);
	else
		cStop();
	return sink + n;
}
*/
import "C"

import "os"

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

//export goCallback
func goCallback(n C.int) {
	f(5, func() { C.cf(3, 0) })
	sink++
}

func main() {
	back := C.int(0)
	if os.Args[1] == "callback" {
		back = 1
	}
	f(40, func() { C.cf(10, back) })
}
