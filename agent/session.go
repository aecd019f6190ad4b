// SPDX-License-Identifier: Apache-2.0

// Package agent wires the parts together: kernel events keep the process table
// and the BPF program current, windows of samples are drained, resolved and
// handed on. It is the only package that starts goroutines.
package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/bpf/unwinder"
	"github.com/lowflame/lowflame/pprofexport"
	"github.com/lowflame/lowflame/process"
	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/symbolize"
)

// Config says what a session samples.
type Config struct {
	Frequency int            // samples a second and CPU
	Event     unwinder.Event // what to count; empty for the best there is
	Window    time.Duration  // between two drains
	// PIDs restricts sampling to these processes, and with Follow to their
	// descendants. Empty means the whole machine.
	PIDs    []uint32
	Follow  bool
	Threads bool // tell threads apart by TID
	// NoSymbols leaves frames of files without names: lowflame symbolize finds
	// them later.
	NoSymbols bool
	// NoKernel leaves kernel stacks out.
	NoKernel bool
	Idle     bool               // sample the idle task too
	Cgroups  []string           // only what is in these cgroups or below, directories of cgroup v2
	Self     bool               // sample lowflame too
	Demangle symbolize.Demangle // how names of C++ and Rust are shown
	Logger   log.Logger         // nil logs nothing
	// Published, unless nil, is called when the BPF program has been given the
	// mappings of a process, missing of which still lack their table. It must
	// return at once and keep the process unchanged.
	Published func(p *process.Process, missing int)

	// Measure has the BPF program time itself, see Session.Costs. The kernel walks
	// the processes in Baseline, some of PIDs, instead: they give no samples.
	Measure  bool
	Baseline []uint32
	// Compare, if not nil, gets every sample that the BPF program walked, and
	// the same sample walked in Go.
	Compare func(bpf, walked *stack.Sample)
}

// Window is what was sampled from one drain to the next.
type Window struct {
	Samples []pprofexport.Sample
	Stats   unwinder.Stats
	// NotWalked counts raw samples, of this or an earlier window, that are lost: the
	// last window does not wait for ever.
	NotWalked uint64
}

// Session samples until it is told to stop.
type Session struct {
	cfg       Config
	unwinder  *unwinder.Unwinder
	sideband  *process.Sideband
	table     *process.Table
	files     *files
	publisher *publisher
	vms       *vms
	symbols   *symbolize.Symbolizer
	resolver  *resolver

	// targets holds the processes asked for and their descendants, when only
	// those are sampled. Owned by the event loop.
	targets map[uint32]bool
	ended   []uint32 // of them, see dropTargets
	// reread holds which image of a process was read anew because of a sample that
	// is in none of its mappings. Owned by the event loop.
	reread map[uint32]uint64
	// raw carries raw samples to the event loop: only there is it known up to
	// which time the process table is current.
	raw  chan *unwinder.RawSample
	raws rawCounts
	// applied is the CLOCK_MONOTONIC time up to which events are in the table.
	applied   atomic.Uint64
	ksyms     atomic.Bool // kernel symbols changed
	restarted restarted

	loadTime time.Duration
	comparer *comparer // nil without Config.Compare
}

const (
	maxOpenFiles = 8192
	// rawQueue is how many raw samples wait for the event loop, 17 KiB each: those of
	// the seconds that building the table of a large program may take. What does not
	// fit waits in the kernel's ring.
	rawQueue = 1024
	// keepDead is how long a process stays known after its end: its last
	// samples are in the window being drained.
	keepDead = 30 * time.Second
)

// Open loads everything into the kernel and learns what runs. Sampling begins
// with Run; Close releases it all.
func Open(ctx context.Context, cfg Config) (*Session, error) {
	if cfg.Logger == nil {
		cfg.Logger = log.NewNopLogger()
	}
	boundHeap()
	s := &Session{cfg: cfg, raw: make(chan *unwinder.RawSample, rawQueue), targets: make(map[uint32]bool), reread: make(map[uint32]uint64)}
	if cfg.Compare != nil {
		s.comparer = newComparer(cfg.Compare)
	}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// open loads the program while it lists the processes: either takes as long as
// the other on a busy machine.
func (s *Session) open(ctx context.Context) error {
	s.table = process.NewTable("/proc")
	group, ctx := errgroup.WithContext(ctx)
	group.Go(s.openUnwinder)
	group.Go(func() error { return s.listProcesses(ctx) })
	if err := group.Wait(); err != nil {
		return err
	}
	s.files = newFiles(s.unwinder, s.table, s.cfg.Logger)
	s.vms = newVMs(s.unwinder, s.files, s.table, s.cfg.Logger, s.sideband.Wake)
	s.publisher = newPublisher(s.unwinder, s.files, s.vms, s.cfg.Published)
	s.symbols = symbolize.New(symbolize.Config{Demangle: s.cfg.Demangle})
	s.resolver = newResolver(s.files, s.table, s.symbols)
	s.resolver.unnamed = s.cfg.NoSymbols
	if vdso, err := symbolize.VDSO(); err == nil { // a kernel may run without
		s.files.addVDSO(vdso)
	}
	return s.publishAll()
}

func (s *Session) openUnwinder() (err error) {
	exclude := uint32(os.Getpid())
	if s.cfg.Self {
		exclude = 0
	}
	began := time.Now()
	s.unwinder, err = unwinder.Open(unwinder.Config{
		Exclude:   exclude,
		Frequency: s.cfg.Frequency, Window: s.cfg.Window, Event: s.cfg.Event,
		Filter: len(s.cfg.PIDs) > 0, Follow: s.cfg.Follow,
		Threads: s.cfg.Threads, NoKernel: s.cfg.NoKernel, Idle: s.cfg.Idle, Cgroups: s.cfg.Cgroups,
		Measure: s.cfg.Measure, Compare: s.cfg.Compare != nil,
	})
	s.loadTime = time.Since(began)
	return err
}

// listProcesses watches for processes and lists those there are: none is missed
// in between.
func (s *Session) listProcesses(ctx context.Context) error {
	cpus, err := unwinder.OnlineCPUs()
	if err != nil {
		return fmt.Errorf("list CPUs: %w", err)
	}
	// Nobody waits for an event that no sample needs: a sample of a process not
	// known yet wakes the event loop itself. A new program is likely to get one.
	watch := process.SidebandConfig{
		KernelSymbols: true, WakeupBytes: 64 << 10, ExecWakeup: execWakeup(s.cfg.Frequency),
	}
	if s.sideband, err = process.OpenSideband(cpus, watch); err != nil {
		return fmt.Errorf("watch processes: %w", err)
	}
	if err := s.table.Scan(ctx, nil); err != nil {
		return fmt.Errorf("list processes: %w", err)
	}
	return nil
}

// execWakeup is how long after an exec its mappings are to be published: when half
// of the programs that use the CPU have had their first sample, but not before the
// loader is likely to be done. Many a program ends before.
func execWakeup(frequency int) time.Duration {
	return min(max(time.Second/time.Duration(2*max(frequency, 1)), 2*time.Millisecond), 50*time.Millisecond)
}

// publishAll tells the program of every process that runs, and has the tables
// of those asked for built before the first sample.
func (s *Session) publishAll() error {
	for _, pid := range s.cfg.PIDs {
		if err := s.unwinder.AddPID(pid); err != nil {
			return err
		}
		s.targets[pid] = true
	}
	for _, pid := range s.cfg.Baseline {
		if err := s.unwinder.AddBaseline(pid); err != nil {
			return err
		}
	}
	for _, proc := range s.table.All() {
		if len(s.targets) > 0 && !s.targets[proc.PID] {
			continue
		}
		if s.targets[proc.PID] {
			s.load(proc)
		}
		s.note(s.publisher.publish(proc))
	}
	return nil
}

// load opens the files of a process and builds their tables.
func (s *Session) load(proc *process.Process) {
	for i := range proc.Mappings {
		s.files.get(proc, &proc.Mappings[i])
	}
}

// Probe loads the BPF program into the kernel and drops it again.
func Probe() error {
	u, err := unwinder.Open(unwinder.Config{})
	if err != nil {
		return err
	}
	return u.Close()
}

// Preload prepares for a program that is about to be started.
func (s *Session) Preload(path string) { s.files.preload(path) }

// Frequency is the rate in force, samples a second and CPU.
func (s *Session) Frequency() int { return s.unwinder.Frequency() }

// Event is what is counted to take samples.
func (s *Session) Event() unwinder.Event { return s.unwinder.Event() }

// KernelNames returns why kernel functions have no names, so far as one was met; see
// symbolize.Symbolizer.KernelErr.
func (s *Session) KernelNames() error { return s.symbols.KernelErr() }

// Costs is what samples cost so far, with Config.Measure.
func (s *Session) Costs() (unwinder.Costs, error) { return s.unwinder.Costs() }

// LoadTime is how long the kernel took to accept the BPF program and its maps.
func (s *Session) LoadTime() time.Duration { return s.loadTime }

// VerifiedInstructions is how many instructions the kernel's verifier walked to
// accept each program, by name.
func (s *Session) VerifiedInstructions() map[string]uint32 { return s.unwinder.VerifiedInstructions() }

// Run samples until ctx is done. use gets each window; the last one is drained
// after sampling has stopped and holds all that was left.
func (s *Session) Run(ctx context.Context, started func(), use func(Window)) error {
	// The loops outlive ctx: what was sampled before it ended is still read.
	loops, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, loops := errgroup.WithContext(loops)
	defer context.AfterFunc(ctx, func() { _ = s.unwinder.Stop() })() // at once; runWindows reports errors
	group.Go(func() error { return s.unwinder.RunTraces(loops) })
	group.Go(func() error {
		return s.unwinder.RunRaw(loops, func(r *unwinder.RawSample) { s.queueRaw(loops, r) })
	})
	group.Go(func() error { return s.runEvents(loops) })
	group.Go(func() error { return s.runWatch(loops) })
	group.Go(func() error { return s.vms.run(loops, "/proc") })
	group.Go(func() error {
		defer stop()
		if err := s.unwinder.Start(); err != nil {
			return err
		}
		started()
		return s.runWindows(ctx, loops, use)
	})
	return group.Wait()
}

// runWindows drains a window each time one is full. It ends with ctx, or when
// another loop has failed.
func (s *Session) runWindows(ctx, loops context.Context, use func(Window)) error {
	tick := time.NewTicker(s.cfg.Window)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := s.drain(loops, use); err != nil {
				return err
			}
		case <-loops.Done():
			return nil
		case <-ctx.Done():
			if err := s.unwinder.Stop(); err != nil {
				return fmt.Errorf("stop sampling: %w", err)
			}
			if err := s.drain(loops, use); err != nil {
				return err
			}
			return s.drainRaw(loops, use)
		}
	}
}

func (s *Session) drain(ctx context.Context, use func(Window)) error {
	samples, stats, err := s.unwinder.Drain(ctx)
	if err != nil {
		return err
	}
	level.Debug(s.cfg.Logger).Log("msg", "window", "samples", stats.Delivered, "raw", stats.Raw, "raw_full", stats.RawFull,
		"stacks", len(samples), "frames", stats.Frames, "refills", stats.Refills, "bpf_ns", stats.NS)
	s.vms.sampled(samples)
	now := monotonic()
	s.await(ctx, func() bool { return s.applied.Load() >= now })
	if s.comparer != nil {
		s.comparer.addBPF(samples)
	}
	s.raws.fired += stats.Raw
	s.emit(append(samples, s.raws.take()...), Window{Stats: stats}, use)
	before := now - min(now, uint64(keepDead)) // the clock starts at boot
	s.table.Forget(before)
	s.resolver.forget(before)
	s.files.forget(before)
	s.symbols.Trim()
	boundHeap()
	return nil
}

// emit hands w on, with the samples.
func (s *Session) emit(samples []stack.Sample, w Window, use func(Window)) {
	s.resolver.begin(s.ksyms.Swap(false))
	w.Samples = make([]pprofexport.Sample, 0, len(samples))
	for i := range samples {
		w.Samples = append(w.Samples, s.resolver.resolve(&samples[i]))
	}
	use(w)
}

// awaitLimit bounds how long a window waits for the event loop, which may be
// held up by a file system that does not answer.
const awaitLimit = 5 * time.Second

// await wakes the event loop until done holds, the limit is over or ctx done.
func (s *Session) await(ctx context.Context, done func() bool) {
	limit := time.Now().Add(awaitLimit)
	for !done() && ctx.Err() == nil {
		if time.Now().After(limit) {
			level.Warn(s.cfg.Logger).Log("msg", "process events are not read in time; some frames may have no name")
			return
		}
		s.sideband.Wake()
		time.Sleep(200 * time.Microsecond)
	}
}

// Close releases everything. Run has returned.
func (s *Session) Close() error {
	var errs []error
	if s.unwinder != nil {
		errs = append(errs, s.unwinder.Close())
	}
	if s.sideband != nil {
		errs = append(errs, s.sideband.Close())
	}
	if s.vms != nil {
		errs = append(errs, s.vms.close())
	}
	if s.files != nil {
		errs = append(errs, s.files.close())
	}
	return errors.Join(errs...)
}

func monotonic() uint64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail for this clock
	return uint64(ts.Nano())
}
