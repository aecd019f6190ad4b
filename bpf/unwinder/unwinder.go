// SPDX-License-Identifier: GPL-2.0

// Package unwinder is the only doorway to the kernel's BPF: it loads the
// sampling program, gives it unwind tables and the mappings of processes, and
// takes samples out.
package unwinder

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
)

// Config says what to sample. The zero value of a field means its default.
type Config struct {
	// Frequency is in samples a second and CPU; it is lowered to what
	// kernel.perf_event_max_sample_rate allows.
	Frequency int
	Event     Event
	// Window is how long at most lies between two Drains: it sizes the maps.
	Window time.Duration
	// Filter restricts sampling to the processes given to AddPID, and with
	// Follow to their children.
	Filter, Follow bool
	// Threads tells the threads of a process apart by TID.
	Threads bool
	// NoKernel leaves kernel stacks out.
	NoKernel bool
	// Idle takes samples of the idle task too, which are kernel stacks only.
	Idle bool
	// Cgroups restricts sampling to tasks in these cgroups or below them:
	// directories of the cgroup v2 hierarchy, at most MaxCgroups.
	Cgroups []string
	// Exclude is a process never sampled, 0 for none.
	Exclude uint32
	// Measure has the program time itself: see Costs.
	Measure bool
	// Compare has every sample with a user stack sent raw as well as walked by
	// the program, under the same PID and Time. Samples are then not counted
	// together: each has a stack of its own.
	Compare bool
	// MaxProcesses bounds the processes known in the kernel, 16384 by default.
	MaxProcesses int
}

func (c Config) withDefaults() Config {
	if c.Frequency <= 0 {
		c.Frequency = defaultFrequency
	}
	if c.Window <= 0 {
		c.Window = time.Second
	}
	if c.MaxProcesses <= 0 {
		c.MaxProcesses = defaultMaxProcesses
	}
	return c
}

// Unwinder is a loaded program. Its methods are safe for concurrent use.
type Unwinder struct {
	cfg    Config
	objs   bpfObjects
	window *uint64 // parity of the window being counted, shared with BPF
	pages  [][]byte
	traces *ringbuf.Reader
	raws   *ringbuf.Reader

	tables    tableArena
	processes processArena

	loaded   time.Time
	attachMu sync.Mutex        // guards what follows
	cpus     map[int]*cpuEvent // nil while not sampling
	links    []link.Link
	watchdog *watchdog
	timerNS  uint64 // what events that were closed have counted

	drainMu sync.Mutex // held by Drain, guards fired
	fired   []uint64   // by CPU, in windows that were drained
	flushed chan struct{}
	rawDone chan struct{}

	pendingMu sync.Mutex // guards pending
	pending   [2]map[bpfUnwKey]traceRecord
}

// MaxUserFrames is how many frames of a user stack are walked. Deeper stacks keep
// the innermost and end in TOO_DEEP.
const MaxUserFrames = 1024

// MaxKernelFrames is how many frames of a kernel stack are kept. One with as many
// may have been cut: such a sample does not end in END.
const MaxKernelFrames = 127

const (
	defaultFrequency    = 199
	defaultMaxProcesses = 16384
	traceBytesPerCPU    = 1 << 20 // over a second of 1 KiB stacks at 999 Hz
	rawBytesPerCPU      = 4 << 20 // 230 raw samples: over a second at 199 Hz
)

// Open loads the program and its maps into the kernel, without sampling yet.
// The error of a program the kernel refuses is an *ebpf.VerifierError.
func Open(cfg Config) (*Unwinder, error) {
	u := &Unwinder{
		cfg: cfg.withDefaults(), loaded: time.Now(), flushed: make(chan struct{}, 1), rawDone: make(chan struct{}, 1),
	}
	rate, err := maxSampleRate()
	if err != nil {
		return nil, err
	}
	u.cfg.Frequency = min(u.cfg.Frequency, rate)
	cpus, err := OnlineCPUs()
	if err != nil {
		return nil, fmt.Errorf("list CPUs: %w", err)
	}
	if u.cfg.Event, err = choose(cfg.Event, cpus); err != nil {
		return nil, err
	}
	u.watchdog = newWatchdog(time.Second/time.Duration(u.cfg.Frequency), u.cfg.Event)
	u.pending[0] = make(map[bpfUnwKey]traceRecord)
	u.pending[1] = make(map[bpfUnwKey]traceRecord)
	if err := u.load(len(cpus)); err != nil {
		return nil, errors.Join(err, u.Close())
	}
	return u, nil
}

func (u *Unwinder) load(cpus int) error {
	raiseLockedMemory()
	spec, err := loadBpf()
	if err != nil {
		return fmt.Errorf("read the BPF object: %w", err)
	}
	u.size(spec, cpus)
	if err := u.configure(spec); err != nil {
		return err
	}
	if err := spec.LoadAndAssign(&u.objs, nil); err != nil {
		return fmt.Errorf("load the BPF program: %w", err)
	}
	if err := u.setCgroups(); err != nil {
		return err
	}
	window, err := u.mmap(u.objs.UnwWindow, os.Getpagesize())
	if err != nil {
		return fmt.Errorf("map the window selector: %w", err)
	}
	u.window = &words64(window)[0]
	u.tables = tableArena{u: u, outer: u.objs.UnwShards, inner: spec.Maps[bpfMapUnwShards].InnerMap}
	u.processes = processArena{u: u, outer: u.objs.UnwMaps, inner: spec.Maps[bpfMapUnwMaps].InnerMap, extents: make(map[uint32]extent)}
	if u.traces, err = ringbuf.NewReader(u.objs.UnwTraces); err != nil {
		return fmt.Errorf("open the trace ring: %w", err)
	}
	if u.raws, err = ringbuf.NewReader(u.objs.UnwRaws); err != nil {
		return fmt.Errorf("open the raw sample ring: %w", err)
	}
	return nil
}

// size sets the number of entries of every map from the rate, the window and
// the number of online CPUs: a window has Frequency*CPUs samples a second, each
// of which can be a new stack. There is room for four windows, because a busy
// machine may let us drain late.
func (u *Unwinder) size(spec *ebpf.CollectionSpec, cpus int) {
	samples := int(float64(u.cfg.Frequency*cpus)*u.cfg.Window.Seconds()*4) + 1
	counts := min(max(ceilPow2(samples), 1<<12), 1<<17)
	spec.Maps[bpfMapUnwCounts0].MaxEntries = uint32(counts)
	spec.Maps[bpfMapUnwCounts1].MaxEntries = uint32(counts)
	spec.Maps[bpfMapUnwTraces].MaxEntries = uint32(min(max(ceilPow2(cpus*traceBytesPerCPU), 1<<20), 1<<26))
	spec.Maps[bpfMapUnwRaws].MaxEntries = uint32(min(max(ceilPow2(cpus*rawBytesPerCPU), 1<<21), 1<<26))
	spec.Maps[bpfMapUnwProcs].MaxEntries = uint32(u.cfg.MaxProcesses)
	spec.Maps[bpfMapUnwFilter].MaxEntries = uint32(u.cfg.MaxProcesses)
	spec.Maps[bpfMapUnwExecs].MaxEntries = uint32(u.cfg.MaxProcesses)
	sizeCosts(spec.Maps[bpfMapUnwCosts], u.cfg.Measure)
}

func (u *Unwinder) configure(spec *ebpf.CollectionSpec) error {
	taskPtRegs := features.HaveProgramHelper(ebpf.PerfEvent, asm.FnTaskPtRegs)
	if taskPtRegs != nil && !errors.Is(taskPtRegs, ebpf.ErrNotSupported) {
		return fmt.Errorf("ask the kernel for bpf_task_pt_regs: %w", taskPtRegs)
	}
	wake := spec.Maps[bpfMapUnwTraces].MaxEntries / 4
	for name, value := range map[string]any{
		bpfVarCfgFilter:     flag(u.cfg.Filter),
		bpfVarCfgFollow:     flag(u.cfg.Follow),
		bpfVarCfgThreads:    flag(u.cfg.Threads),
		bpfVarCfgNoKernel:   flag(u.cfg.NoKernel),
		bpfVarCfgIdle:       flag(u.cfg.Idle),
		bpfVarCfgCgroups:    uint8(len(u.cfg.Cgroups)),
		bpfVarCfgMeasure:    flag(u.cfg.Measure),
		bpfVarCfgCompare:    flag(u.cfg.Compare),
		bpfVarCfgTaskPtRegs: flag(taskPtRegs == nil),
		bpfVarCfgSelf:       u.cfg.Exclude,
		bpfVarCfgWakeBytes:  wake,
		// kernel: THREAD_SIZE is 16 KiB, or a page where that is more (arm64).
		bpfVarCfgKernelStack: uint32(max(16<<10, os.Getpagesize())),
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return nil
}

// VerifiedInstructions is how many instructions the kernel's verifier walked
// to accept each program; 0 where the kernel does not say (before 5.16).
func (u *Unwinder) VerifiedInstructions() map[string]uint32 {
	count := make(map[string]uint32)
	for name, p := range map[string]*ebpf.Program{
		"unw_sample": u.objs.UnwSample, "unw_fork": u.objs.UnwFork, "unw_exit": u.objs.UnwExit,
	} {
		if info, err := p.Info(); err == nil {
			count[name], _ = info.VerifiedInstructions()
		}
	}
	return count
}

// Close stops sampling and unloads everything. Nothing stays in the kernel.
func (u *Unwinder) Close() error {
	errs := []error{u.Stop()}
	for _, r := range []*ringbuf.Reader{u.traces, u.raws} {
		if r != nil {
			errs = append(errs, r.Close())
		}
	}
	errs = append(errs, u.objs.Close(), u.tables.close(), u.processes.close(), u.unmap())
	return errors.Join(errs...)
}

func flag(on bool) uint8 {
	if on {
		return 1
	}
	return 0
}

func ceilPow2(n int) int { return 1 << bits.Len(uint(n-1)) }
