// SPDX-License-Identifier: GPL-2.0

package unwinder

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/stack"
)

// Stats counts what happened in one window. In every window
//
//	Fired = Idle + Filtered + Delivered + Raw + DropCounts + DropTraces + DropState
type Stats struct {
	Fired     uint64 // timer expiries
	Idle      uint64 // of the idle task, not sampled
	Filtered  uint64 // of processes not asked for, not sampled
	Delivered uint64 // in the samples Drain returns
	Raw       uint64 // handed to RunRaw's function
	// Samples lost, by reason.
	DropCounts uint64 // the count map was full
	DropTraces uint64 // the trace ring was full
	DropState  uint64 // per-CPU memory was not there
	// Not losses.
	RawFull      uint64 // the raw ring was full: delivered with its stop instead
	KernelErrors uint64 // kernel stacks of which only the leaf is known
	NS           uint64 // time spent in the program
	Frames       uint64 // user frames walked
	Refills      uint64 // stack reads
	Stops        [stack.NumStops]uint64
}

// Add adds the counts of another window.
func (s *Stats) Add(o *Stats) {
	s.Fired += o.Fired
	s.Idle += o.Idle
	s.Filtered += o.Filtered
	s.Delivered += o.Delivered
	s.Raw += o.Raw
	s.DropCounts += o.DropCounts
	s.DropTraces += o.DropTraces
	s.DropState += o.DropState
	s.RawFull += o.RawFull
	s.KernelErrors += o.KernelErrors
	s.NS += o.NS
	s.Frames += o.Frames
	s.Refills += o.Refills
	for i := range s.Stops {
		s.Stops[i] += o.Stops[i]
	}
}

// Dropped is how many samples were lost.
func (s *Stats) Dropped() uint64 { return s.DropCounts + s.DropTraces + s.DropState }

// traceRecord is a stack that arrived before its count was read.
type traceRecord struct {
	time  uint64
	trace stack.Trace
}

// RunTraces reads stacks as they come until ctx ends or the Unwinder is closed.
// Drain needs it to be running.
func (u *Unwinder) RunTraces(ctx context.Context) error {
	return run(ctx, u.traces, u.flushed, u.keepTrace)
}

func run(ctx context.Context, r *ringbuf.Reader, flushed chan<- struct{}, use func([]byte)) error {
	stop := context.AfterFunc(ctx, func() { _ = r.Close() })
	defer stop() // Close fails only after Close
	var rec ringbuf.Record
	for {
		err := r.ReadInto(&rec)
		switch {
		case err == nil:
			use(rec.RawSample)
		case errors.Is(err, ringbuf.ErrFlushed):
			select {
			case flushed <- struct{}{}:
			default:
			}
		case errors.Is(err, os.ErrClosed):
			return nil
		default:
			return fmt.Errorf("read the sample ring: %w", err)
		}
	}
}

func (u *Unwinder) keepTrace(record []byte) {
	const head = int(unsafe.Sizeof(bpfUnwTrace{}))
	if len(record) < head {
		return
	}
	var t bpfUnwTrace
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&t)), head), record)
	frames := record[head:]
	if n := int(t.KernelN) + int(t.UserN); len(frames) < 8*n {
		return
	}
	rec := traceRecord{time: t.Time, trace: stack.Trace{Stop: stack.Stop(t.Key.Stop)}}
	all := make([]stack.Addr, int(t.KernelN)+int(t.UserN))
	for i := range all {
		a := binary.NativeEndian.Uint64(frames[8*i:])
		if user := i - int(t.KernelN); user >= 0 && a>>63 != 0 {
			rec.trace.Interrupted = append(rec.trace.Interrupted, user)
			a &^= 1 << 63
		}
		all[i] = stack.Addr(a)
	}
	rec.trace.Kernel, rec.trace.User = all[:t.KernelN:t.KernelN], all[t.KernelN:]
	u.pendingMu.Lock()
	u.pending[t.Window&1][t.Key] = rec
	u.pendingMu.Unlock()
}

// Drain ends the window and returns its samples and counts. The samples'
// slices belong to the caller.
func (u *Unwinder) Drain(ctx context.Context) ([]stack.Sample, Stats, error) {
	u.drainMu.Lock()
	defer u.drainMu.Unlock()
	parity := uint32(atomic.LoadUint64(u.window) & 1)
	atomic.StoreUint64(u.window, uint64(parity^1))
	if err := u.quiesce(); err != nil {
		return nil, Stats{}, err
	}
	if err := flush(ctx, u.traces, u.flushed); err != nil {
		return nil, Stats{}, err
	}
	stats, err := u.takeStats(parity)
	if err != nil {
		return nil, Stats{}, err
	}
	samples, err := u.takeCounts(parity, &stats)
	return samples, stats, err
}

// FlushRaw returns once RunRaw has handed over every raw sample taken before
// the call.
func (u *Unwinder) FlushRaw(ctx context.Context) error {
	u.drainMu.Lock()
	defer u.drainMu.Unlock()
	return flush(ctx, u.raws, u.rawDone)
}

func flush(ctx context.Context, r *ringbuf.Reader, done <-chan struct{}) error {
	select { // a flush nobody waited for
	case <-done:
	default:
	}
	if err := r.Flush(); err != nil {
		return fmt.Errorf("flush the sample ring: %w", err)
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// quiesce waits until no CPU runs the program with the old parity. The program
// runs with interrupts off, which is an RCU read side, and MEMBARRIER_CMD_GLOBAL
// waits for those. It is refused on nohz_full kernels, where replacing an inner
// map waits the same way (kernel: maybe_wait_bpf_programs).
func (u *Unwinder) quiesce() error {
	const membarrierGlobal = 1 // include/uapi/linux/membarrier.h
	_, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0)
	if errno == 0 {
		return nil
	}
	if err := u.tables.synchronize(); err != nil {
		return fmt.Errorf("wait for the CPUs to leave the window: %w", err)
	}
	return nil
}

func (u *Unwinder) takeStats(parity uint32) (Stats, error) {
	var perCPU []bpfUnwStats
	if err := u.objs.UnwStatsMap.Lookup(parity, &perCPU); err != nil {
		return Stats{}, fmt.Errorf("read the sample counters: %w", err)
	}
	if err := u.objs.UnwStatsMap.Put(parity, make([]bpfUnwStats, len(perCPU))); err != nil {
		return Stats{}, fmt.Errorf("reset the sample counters: %w", err)
	}
	var s Stats
	if len(u.fired) < len(perCPU) {
		u.fired = make([]uint64, len(perCPU))
	}
	for cpu, c := range perCPU {
		u.fired[cpu] += c.Fired
		one := Stats{
			Fired: c.Fired, Idle: c.Idle, Filtered: c.Filtered, Raw: c.Raw,
			DropCounts: c.DropCounts, DropState: c.DropState,
			RawFull: c.RawFull, KernelErrors: c.KernelErrors,
			NS: c.Ns, Frames: c.Frames, Refills: c.Refills,
		}
		copy(one.Stops[:], c.Stops[:])
		s.Add(&one)
	}
	return s, nil
}

// takeCounts empties the count map of a window and joins it with the stacks
// that came through the ring. A count whose stack did not is lost.
func (u *Unwinder) takeCounts(parity uint32, stats *Stats) ([]stack.Sample, error) {
	m := u.objs.UnwCounts0
	if parity == 1 {
		m = u.objs.UnwCounts1
	}
	u.pendingMu.Lock()
	traces := u.pending[parity]
	u.pending[parity] = make(map[bpfUnwKey]traceRecord, len(traces))
	u.pendingMu.Unlock()

	samples := make([]stack.Sample, 0, len(traces))
	err := drainMap(m, func(key *bpfUnwKey, count *bpfUnwCount) {
		rec, ok := traces[*key]
		if !ok {
			stats.DropTraces += count.N
			return
		}
		stats.Delivered += count.N
		samples = append(samples, stack.Sample{
			Trace: rec.trace, PID: key.Tgid, TID: key.Tid,
			Time: rec.time, Comm: comm(key.Comm), Count: count.N,
		})
	})
	return samples, err
}

func drainMap(m *ebpf.Map, use func(*bpfUnwKey, *bpfUnwCount)) error {
	// At least as large as the fullest bucket, or the kernel gives ENOSPC.
	size := int(min(m.MaxEntries(), 4096))
	for {
		keys, values := make([]bpfUnwKey, size), make([]bpfUnwCount, size)
		var cursor ebpf.MapBatchCursor
		for {
			n, err := m.BatchLookupAndDelete(&cursor, keys, values, nil)
			for i := range n {
				use(&keys[i], &values[i])
			}
			if errors.Is(err, ebpf.ErrKeyNotExist) {
				return nil
			}
			if errors.Is(err, unix.ENOSPC) {
				break
			}
			if err != nil {
				return fmt.Errorf("empty the count map: %w", err)
			}
		}
		size *= 2
	}
}

func comm(c [16]uint8) string {
	name, _, _ := strings.Cut(string(c[:]), "\x00")
	return name
}
