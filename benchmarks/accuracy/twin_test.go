// SPDX-License-Identifier: Apache-2.0

package accuracy

import (
	"context"
	"errors"
	"flag"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/lowflame/lowflame/agent"
	"github.com/lowflame/lowflame/benchmarks/workloads"
	"github.com/lowflame/lowflame/stack"
)

var twinCommand = flag.String("twins", "", "command to compare the two walks on, instead of the workloads")

const (
	twinHz      = 4999
	twinSamples = 10_000 // of each workload
	twinRuns    = 8      // at most, to reach them
)

// TestTwins holds the walk in the kernel and the one in Go equal, sample by sample,
// on every workload.
func TestTwins(t *testing.T) {
	if testing.Short() {
		t.Skip("runs every workload for 2.2 s")
	}
	if os.Geteuid() != 0 {
		t.Skip("sampling needs root")
	}
	if *twinCommand != "" {
		var twins Twins
		compare(t, &twins, strings.Fields(*twinCommand))
		judgeTwins(t, &twins)
		return
	}
	forEachWorkload(t, func(t *testing.T, p workloads.Program) {
		var twins Twins
		for range twinRuns {
			compare(t, &twins, p.Command(2.2))
			if twins.Compared+twins.Short >= twinSamples {
				break
			}
		}
		judgeTwins(t, &twins)
		if twins.Compared+twins.Short < twinSamples {
			t.Errorf("%d samples compared in %d runs, want %d", twins.Compared+twins.Short, twinRuns, twinSamples)
		}
	})
}

func judgeTwins(t *testing.T, twins *Twins) {
	t.Logf("%d equal, %d equal as far as the copy of the stack goes, %d not known to the program yet",
		twins.Compared, twins.Short, twins.Untold)
	if known := twins.Compared + twins.Short; twins.Untold > known/4 {
		t.Errorf("%d samples that the program knew too little of, beside %d", twins.Untold, known)
	}
	if len(twins.Differ) > 0 {
		t.Errorf("not equal:%s", Top(twins.Differ, 10))
	}
}

// compare runs a command under a session that walks every sample twice.
func compare(t *testing.T, twins *Twins, command []string) {
	t.Helper()
	session, err := agent.Open(t.Context(), agent.Config{
		Frequency: twinHz, Window: 500 * time.Millisecond, PIDs: []uint32{uint32(os.Getpid())}, Follow: true,
		Compare: func(bpf, walked *stack.Sample) { twins.Add(bpf, walked) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	err = session.Run(ctx, func() {
		go func() {
			defer cancel()
			cmd := exec.CommandContext(ctx, command[0], command[1:]...)
			cmd.Stderr = os.Stderr
			ended <- cmd.Run()
		}()
	}, func(agent.Window) {})
	cancel()
	if err := errors.Join(err, <-ended, session.Close()); err != nil {
		t.Fatal(err)
	}
}
