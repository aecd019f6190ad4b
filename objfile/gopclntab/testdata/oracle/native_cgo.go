// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package main

// static int answer(void) { return 42; }
import "C"

func native() int { return int(C.answer()) }
