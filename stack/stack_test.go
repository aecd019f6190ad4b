// SPDX-License-Identifier: Apache-2.0

package stack

import "testing"

func TestLookup(t *testing.T) {
	trace := Trace{
		Kernel:      []Addr{0xffff0010, 0xffff0020, 0},
		User:        []Addr{0x1000, 0x2000, 0x3000, 0},
		Interrupted: []int{2},
	}
	for i, want := range []Addr{0x1000, 0x1fff, 0x3000, 0} {
		if got := trace.Lookup(i); got != want {
			t.Errorf("Lookup(%d) = %#x, want %#x", i, got, want)
		}
	}
	for i, want := range []Addr{0xffff0010, 0xffff001f, 0} {
		if got := trace.KernelLookup(i); got != want {
			t.Errorf("KernelLookup(%d) = %#x, want %#x", i, got, want)
		}
	}
}

func TestStop(t *testing.T) {
	for stop, want := range map[Stop]string{StopEnd: "END", StopNoMapping: "NO_MAPPING", StopTableMissing: "TABLE_MISSING", NumStops: "UNKNOWN", 255: "UNKNOWN"} {
		if got := stop.String(); got != want {
			t.Errorf("Stop(%d) is %q, want %q", stop, got, want)
		}
	}
	for stop := range Stop(NumStops + 1) {
		want := stop == StopEnd || stop == StopKthread || stop == StopExec
		if stop.Complete() != want || stop.Text() == "" {
			t.Errorf("%v: Complete is %t, want %t; Text is %q", stop, stop.Complete(), want, stop.Text())
		}
	}
}
