// SPDX-License-Identifier: GPL-2.0

package unwinder

import (
	"context"
	"errors"
	commandline "flag"
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf"
)

// emulated is set where the CPUs are a program: what takes the kernel longer than
// a period there makes a timer fire once for many expiries.
var emulated = commandline.Bool("emulated", false, "expect timers to miss most of their expiries")

// open loads the program, or skips where the kernel does not let us.
func open(t *testing.T, cfg Config) *Unwinder {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("loading BPF needs root")
	}
	u, err := Open(cfg)
	if verr := (*ebpf.VerifierError)(nil); errors.As(err, &verr) {
		t.Fatalf("%+v", verr)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	})
	return u
}

func TestLoad(t *testing.T) {
	began := time.Now()
	u := open(t, Config{})
	t.Logf("loaded in %v, verified instructions %v", time.Since(began), u.VerifiedInstructions())
	for name, n := range u.VerifiedInstructions() {
		// The older the verifier, the fewer states it takes for equal: 6.1 needs a
		// third more than 6.12. Its limit is a million; loading takes its time.
		if n > 20000 {
			t.Errorf("%s: the verifier walked %d instructions, more than 20000", name, n)
		}
	}
}

func TestAccounting(t *testing.T) {
	u := open(t, Config{Frequency: 499, Window: time.Second, Event: EventCPUClock})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	raw := 0
	go func() { done <- u.RunTraces(ctx) }()
	go func() { done <- u.RunRaw(ctx, func(*RawSample) { raw++ }) }()
	if err := u.Start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Second)
	for time.Now().Before(deadline) {
	}
	var total Stats
	for range 3 {
		if err := u.FlushRaw(ctx); err != nil {
			t.Fatal(err)
		}
		samples, stats, err := u.Drain(ctx)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d stacks, %+v", len(samples), stats)
		if got := stats.Idle + stats.Filtered + stats.Delivered + stats.Raw + stats.Dropped(); got != stats.Fired {
			t.Errorf("fired %d times, accounted for %d: %+v", stats.Fired, got, stats)
		}
		total.Add(&stats)
	}
	timer, err := u.TimerNS()
	if err != nil {
		t.Fatal(err)
	}
	expect := timer * uint64(u.Frequency()) / 1e9
	t.Logf("timer %d ns: expect %d", timer, expect)
	least := expect / 2 // a CPU taken away by the hypervisor misses expiries
	if *emulated {
		least = expect / 20
	}
	if total.Fired == 0 || total.Fired > expect+10 || total.Fired < least {
		t.Errorf("fired %d times, the timers say %d", total.Fired, expect)
	}
	cancel()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
