// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/pprofexport"
)

// perfEvents returns the file descriptors of this process that are perf events.
func perfEvents(t *testing.T) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var fds []int
	for _, e := range entries {
		target, _ := os.Readlink(filepath.Join("/proc/self/fd", e.Name())) // that of ReadDir is gone
		if fd, err := strconv.Atoi(e.Name()); err == nil && target == "anon_inode:[perf_event]" {
			fds = append(fds, fd)
		}
	}
	return fds
}

// TestEventsDie stops every event there is during a recording, as a kernel that
// loses them: sampling goes on, a program that began meanwhile is known, and the
// profile says what is missing.
func TestEventsDie(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("sampling needs root")
	}
	const source = `
volatile unsigned long sink;
__attribute__((noinline)) void late_hot(void) { for (unsigned i = 0; i < 1000000; i++) sink += i; }
int main(void) { for (;;) late_hot(); }
`
	program := compile(t, t.TempDir(), "late", source)
	session, err := Open(t.Context(), Config{Frequency: 199, Window: 500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := session.Close(); err != nil {
			t.Error(err)
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	rec := NewRecording(session, pprofexport.Info{})
	var late uint32
	var before uint64 // samples when sampling was restarted
	err = rec.Run(ctx, func() {
		for _, fd := range perfEvents(t) {
			if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_DISABLE, 0); err != nil {
				t.Error(err)
			}
		}
		late = launch(t, program)
	}, func(p Progress) {
		switch {
		case session.gaps().Restarted == 0:
		case before == 0:
			before = p.Samples
		case p.Samples > before+200:
			cancel()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	builder, quality := rec.Result()
	quality = builder.Quality(quality)
	t.Logf("%v; %+v", quality.String(), quality.Gaps)
	g := quality.Gaps
	if g.Restarted == 0 || g.CPUs == 0 || g.Unsampled < time.Second {
		t.Fatalf("the profile does not say what is missing: %+v", g)
	}
	if each := g.Unsampled / time.Duration(g.CPUs); each > 10*time.Second {
		t.Errorf("a CPU was not sampled for %v, want 10 s at most", each)
	}
	p, err := builder.Profile(quality)
	if err != nil {
		t.Fatal(err)
	}
	if n := shares(p, late); n["late_hot"] < 20 {
		t.Errorf("a program that began while nobody watched has no names: %v\n%v", n, p.Comments)
	}
}

// TestReopenAgain has a CPU that cannot be watched: it is tried again every second,
// not at once.
func TestReopenAgain(t *testing.T) {
	s := openSession(t, Config{})
	const cpu = 4000
	s.restarted.add([]int{cpu})
	for range 2 {
		if !s.reopen() {
			t.Fatal("the CPU is not tried")
		}
		if s.reopen() {
			t.Error("the CPU is tried again at once")
		}
		s.watch()
	}
	if got := s.restarted.take(); len(got) != 1 || got[0] != cpu {
		t.Errorf("CPUs to watch afresh: %v, want %d", got, cpu)
	}
}
