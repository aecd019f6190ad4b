// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/bpf/unwinder"
	"github.com/lowflame/lowflame/pprofexport"
)

// Recording is one profile being taken.
type Recording struct {
	session *Session
	builder *pprofexport.Builder
	stats   unwinder.Stats
	start   time.Time
	end     time.Time
	samples uint64
	// held are samples with frames that may get their name by the end.
	held []pprofexport.Sample
	// notWalked counts Window.NotWalked.
	notWalked uint64
	// complete counts the samples whose stack is whole.
	complete uint64
	// cpuBefore is the CPU time used before sampling began, cpuAfter until it had
	// ended.
	cpuBefore, cpuAfter time.Duration
}

// Progress is what a recording has so far.
type Progress struct {
	Elapsed           time.Duration
	Samples, Complete uint64
	Lost              uint64
}

// NewRecording begins a profile of what session samples.
func NewRecording(session *Session, info pprofexport.Info) *Recording {
	info.Period = time.Second / time.Duration(session.Frequency())
	info.Event = fmt.Sprintf("%s at %d Hz", session.Event(), session.Frequency())
	info.Kernel, info.Arch = kernelRelease(), runtime.GOARCH
	info.Start = time.Now()
	session.resolver.keepLate()
	return &Recording{session: session, builder: pprofexport.NewBuilder(info), start: info.Start}
}

// Run records until ctx is done. started is called when the first sample can
// come, progress after every window.
func (r *Recording) Run(ctx context.Context, started func(), progress func(Progress)) error {
	err := r.session.Run(ctx, func() {
		r.start = time.Now()
		r.cpuBefore, _ = usage()
		started()
	}, func(w Window) {
		r.stats.Add(&w.Stats)
		r.notWalked += w.NotWalked
		for i := range w.Samples {
			r.add(w.Samples[i])
		}
		progress(Progress{
			Elapsed: time.Since(r.start), Samples: r.samples, Complete: r.complete, Lost: r.stats.Dropped() + r.notWalked,
		})
	})
	r.end = time.Now()
	r.session.resolver.nameLate()
	for i := range r.held {
		r.builder.Add(r.held[i])
	}
	r.held = nil
	r.cpuAfter, _ = usage()
	return err
}

// Samples is how many samples there are so far.
func (r *Recording) Samples() uint64 { return r.samples }

func (r *Recording) add(s pprofexport.Sample) {
	if len(r.held) < maxHeld && r.session.resolver.waits(&s) {
		r.held = append(r.held, s)
	} else {
		r.builder.Add(s)
	}
	r.samples += uint64(s.Count)
	if s.Stop.Complete() {
		r.complete += uint64(s.Count)
	}
}

// Result returns the builder of the profile and what the recording measured of
// itself: CPU time is that of the sampling, in the BPF program too.
func (r *Recording) Result() (*pprofexport.Builder, pprofexport.Quality) {
	_, rss := usage()
	q := pprofexport.Quality{
		Duration: r.end.Sub(r.start),
		Fired:    r.stats.Fired,
		Filtered: r.stats.Filtered + r.stats.Idle,
		Drops: map[string]uint64{
			"counts_full":    r.stats.DropCounts,
			"traces_full":    r.stats.DropTraces,
			"no_state":       r.stats.DropState,
			"raw_not_walked": r.notWalked,
		},
		CPU:         r.cpuAfter - r.cpuBefore + time.Duration(r.stats.NS),
		MemoryBytes: rss,
		Expected:    r.session.expected(),
		Gaps:        r.session.gaps(),
	}
	return r.builder, q
}

// usage returns the CPU time this process has used and its largest resident
// memory in bytes.
func usage() (cpu time.Duration, rss uint64) {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		return 0, 0
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano()), uint64(ru.Maxrss) << 10
}

func kernelRelease() string {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
