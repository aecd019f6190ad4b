// SPDX-License-Identifier: Apache-2.0

package process

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"

	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/stack"
)

// EventKind says what happened.
type EventKind uint8

const (
	// EventFork is a new process (TID == PID) or a new thread of one. PPID
	// and PTID made it.
	EventFork EventKind = iota + 1
	// EventExec is a new program in a process; Comm is its name.
	EventExec
	// EventComm is a new name, Comm, for a thread.
	EventComm
	// EventMap is a new executable mapping, Map.
	EventMap
	// EventExit is the end of a thread.
	EventExit
	// EventLost says that the kernel dropped Lost records, any time since the
	// one before of that CPU, or an unknown number if that is 0 (Reopen).
	EventLost
	// EventKernelSymbol is code added to or removed from the kernel, Symbol.
	EventKernelSymbol
)

// Event is one record of a Sideband.
type Event struct {
	Kind EventKind
	// Time is CLOCK_MONOTONIC in ns.
	Time uint64
	// PID and TID are what the event is about, in the PID namespace of the
	// program that opened the Sideband. 0 and 1<<32-1 stand for a process that
	// is not visible there.
	PID, TID   uint32
	PPID, PTID uint32
	Comm       string
	Map        Mapping
	Symbol     KernelSymbol
	Lost       uint64
}

// KernelSymbol is a piece of kernel code that came or went: a BPF program, a
// trampoline, an optimized probe.
type KernelSymbol struct {
	Addr stack.Addr
	Len  uint32
	// Type is PERF_RECORD_KSYMBOL_TYPE_BPF or _OOL.
	Type       uint16
	Unregister bool
	Name       string
}

var errRecord = errors.New("malformed perf record")

const (
	headerBytes = 8
	// sampleType fixes the struct sample_id at the end of each record: pid,
	// tid u32; time u64; cpu, reserved u32.
	sampleType    = unix.PERF_SAMPLE_TID | unix.PERF_SAMPLE_TIME | unix.PERF_SAMPLE_CPU
	sampleIDBytes = 24

	miscExec    = unix.PERF_RECORD_MISC_COMM_EXEC
	miscBuildID = unix.PERF_RECORD_MISC_MMAP_BUILD_ID
)

// names keeps one copy of each string seen of late, since most records repeat
// the same few paths.
type names map[string]string

func (n names) keep(b []byte) string {
	if s, ok := n[string(b)]; ok {
		return s
	}
	if len(n) >= 4096 {
		clear(n)
	}
	s := string(b)
	n[s] = s
	return s
}

// decode parses one whole record, header included, that an event of sampleType
// with sample_id_all produced (include/uapi/linux/perf_event.h, enum
// perf_event_type). It returns ok false for records that are of no interest.
// The event does not alias rec.
func decode(rec []byte, n names) (ev Event, ok bool, err error) {
	if len(rec) < headerBytes+sampleIDBytes {
		return ev, false, errRecord
	}
	kind := binary.NativeEndian.Uint32(rec)
	misc := binary.NativeEndian.Uint16(rec[4:])
	id := rec[len(rec)-sampleIDBytes:]
	body := rec[headerBytes : len(rec)-sampleIDBytes]
	ev.Time = binary.NativeEndian.Uint64(id[8:])
	switch kind {
	case unix.PERF_RECORD_COMM:
		err = ev.decodeComm(body, misc, n)
	case unix.PERF_RECORD_FORK:
		ev.Kind = EventFork
		err = ev.decodeTask(body)
	case unix.PERF_RECORD_EXIT:
		ev.Kind = EventExit
		err = ev.decodeTask(body)
	case unix.PERF_RECORD_MMAP2:
		return ev.decodeMap(body, misc, n)
	case unix.PERF_RECORD_LOST:
		err = ev.decodeLost(body)
	case unix.PERF_RECORD_KSYMBOL:
		err = ev.decodeKernelSymbol(body, n)
	default:
		return ev, false, nil
	}
	return ev, err == nil, err
}

func (ev *Event) decodeComm(b []byte, misc uint16, n names) error {
	if len(b) < 8 {
		return errRecord
	}
	ev.Kind = EventComm
	if misc&miscExec != 0 {
		ev.Kind = EventExec
	}
	ev.PID, ev.TID = binary.NativeEndian.Uint32(b), binary.NativeEndian.Uint32(b[4:])
	name := cString(b[8:])
	ev.Comm = n.keep(name[:min(len(name), maxComm)])
	return nil
}

func (ev *Event) decodeTask(b []byte) error {
	if len(b) < 24 {
		return errRecord
	}
	ev.PID, ev.PPID = binary.NativeEndian.Uint32(b), binary.NativeEndian.Uint32(b[4:])
	ev.TID, ev.PTID = binary.NativeEndian.Uint32(b[8:]), binary.NativeEndian.Uint32(b[12:])
	return nil
}

func (ev *Event) decodeMap(b []byte, misc uint16, n names) (Event, bool, error) {
	const fixed = 64 // pid, tid; addr, len, pgoff; 24 bytes of identity; prot, flags
	if len(b) < fixed {
		return *ev, false, errRecord
	}
	u32, u64 := binary.NativeEndian.Uint32, binary.NativeEndian.Uint64
	ev.Kind = EventMap
	ev.PID, ev.TID = u32(b), u32(b[4:])
	addr, size := u64(b[8:]), u64(b[16:])
	if size == 0 || size > math.MaxUint64-addr {
		return *ev, false, errRecord
	}
	m := &ev.Map
	m.Begin, m.End, m.Off = stack.Addr(addr), stack.Addr(addr+size), stack.FileOff(u64(b[24:]))
	if misc&miscBuildID != 0 {
		if b[32] > 20 {
			return *ev, false, errRecord
		}
		m.File.BuildID = n.keep(b[36 : 36+b[32]])
	} else if ino := u64(b[40:]); ino != 0 {
		m.File = FileID{Dev: unix.Mkdev(u32(b[32:]), u32(b[36:])), Ino: ino, Gen: u64(b[48:])}
	}
	if u32(b[56:])&unix.PROT_EXEC == 0 {
		return *ev, false, nil
	}
	name := cString(b[fixed:])
	m.rawName(n.keep(name[:min(len(name), unix.PathMax)]))
	return *ev, true, nil
}

func (ev *Event) decodeLost(b []byte) error {
	if len(b) < 16 {
		return errRecord
	}
	ev.Kind = EventLost
	ev.Lost = binary.NativeEndian.Uint64(b[8:])
	return nil
}

func (ev *Event) decodeKernelSymbol(b []byte, n names) error {
	if len(b) < 16 {
		return errRecord
	}
	name := cString(b[16:])
	ev.Kind = EventKernelSymbol
	ev.Symbol = KernelSymbol{
		Addr:       stack.Addr(binary.NativeEndian.Uint64(b)),
		Len:        binary.NativeEndian.Uint32(b[8:]),
		Type:       binary.NativeEndian.Uint16(b[12:]),
		Unregister: binary.NativeEndian.Uint16(b[14:])&unix.PERF_RECORD_KSYMBOL_FLAGS_UNREGISTER != 0,
		Name:       n.keep(name[:min(len(name), 512)]),
	}
	return nil
}

// cString returns b up to its first NUL.
func cString(b []byte) []byte {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i]
	}
	return b
}
