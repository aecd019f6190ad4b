// SPDX-License-Identifier: Apache-2.0

package process

import (
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// record builds a perf record with its sample_id.
func record(kind uint32, misc uint16, time uint64, body ...any) []byte {
	b := make([]byte, headerBytes)
	for _, x := range body {
		if s, ok := x.(string); ok {
			b = append(b, s...)
			for b = append(b, 0); len(b)%8 != 0; {
				b = append(b, 0)
			}
			continue
		}
		b, _ = binary.Append(b, binary.NativeEndian, x)
	}
	b, _ = binary.Append(b, binary.NativeEndian, []uint32{1, 1})
	b, _ = binary.Append(b, binary.NativeEndian, time)
	b, _ = binary.Append(b, binary.NativeEndian, []uint32{0, 0})
	binary.NativeEndian.PutUint32(b, kind)
	binary.NativeEndian.PutUint16(b[4:], misc)
	binary.NativeEndian.PutUint16(b[6:], uint16(len(b)))
	return b
}

func mmap2(pid uint32, m Mapping, prot uint32) []byte {
	head := []uint64{uint64(m.Begin), uint64(m.End - m.Begin), uint64(m.Off)}
	id := []uint32{unix.Major(m.File.Dev), unix.Minor(m.File.Dev)}
	return record(unix.PERF_RECORD_MMAP2, 0, 5, []uint32{pid, pid}, head, id, []uint64{m.File.Ino, m.File.Gen}, []uint32{prot, 2}, m.Path)
}

func mmap2BuildID(pid uint32, size uint8, path string) []byte {
	id := [24]byte{0: size}
	for i := range 20 {
		id[4+i] = byte(i)
	}
	return record(unix.PERF_RECORD_MMAP2, miscBuildID, 5, []uint32{pid, pid}, []uint64{4096, 8192, 4096}, id[:], []uint32{5, 2}, path)
}

func TestDecode(t *testing.T) {
	file := Mapping{Begin: 0x1000, End: 0x3000, Off: 0x1000, Path: "/lib/x.so", File: FileID{Dev: unix.Mkdev(254, 3), Ino: 77, Gen: 9}}
	buildID := Mapping{Begin: 4096, End: 12288, Off: 4096, Path: "/lib/y.so", File: FileID{BuildID: "\x00\x01\x02\x03\x04\x05\x06\x07"}}
	anon := Mapping{Begin: 0x1000, End: 0x3000, Off: 0x1000, Path: "//anon"}
	for _, tt := range []struct {
		name string
		rec  []byte
		want Event
		skip bool
		bad  bool
	}{
		{name: "fork", rec: record(unix.PERF_RECORD_FORK, 0, 5, []uint32{10, 9, 10, 8}, uint64(5)),
			want: Event{Kind: EventFork, Time: 5, PID: 10, PPID: 9, TID: 10, PTID: 8}},
		{name: "exit", rec: record(unix.PERF_RECORD_EXIT, 0, 5, []uint32{10, 9, 11, 9}, uint64(5)),
			want: Event{Kind: EventExit, Time: 5, PID: 10, PPID: 9, TID: 11, PTID: 9}},
		{name: "exec", rec: record(unix.PERF_RECORD_COMM, miscExec, 5, []uint32{10, 10}, "true"),
			want: Event{Kind: EventExec, Time: 5, PID: 10, TID: 10, Comm: "true"}},
		{name: "rename", rec: record(unix.PERF_RECORD_COMM, 0, 5, []uint32{10, 11}, "a) R 1\n\xff"),
			want: Event{Kind: EventComm, Time: 5, PID: 10, TID: 11, Comm: "a) R 1\n\xff"}},
		{name: "map by inode", rec: mmap2(10, file, unix.PROT_READ|unix.PROT_EXEC), want: Event{Kind: EventMap, Time: 5, PID: 10, TID: 10, Map: file}},
		{name: "map by build ID", rec: mmap2BuildID(10, 8, "/lib/y.so"), want: Event{Kind: EventMap, Time: 5, PID: 10, TID: 10, Map: buildID}},
		{name: "build ID of an impossible size", rec: mmap2BuildID(10, 21, "/lib/y.so"), bad: true},
		{name: "code made at run time", rec: mmap2(10, anon, unix.PROT_EXEC),
			want: Event{Kind: EventMap, Time: 5, PID: 10, TID: 10, Map: Mapping{Begin: 0x1000, End: 0x3000, Kind: KindAnon}}},
		{name: "data", rec: mmap2(10, file, unix.PROT_READ), skip: true},
		{name: "empty map", rec: mmap2(10, Mapping{Begin: 1, End: 1}, 4), bad: true},
		{name: "map beyond the end of memory", rec: mmap2(10, Mapping{Begin: 1 << 63, End: 1<<63 - 1}, 4), bad: true},
		{name: "lost", rec: record(unix.PERF_RECORD_LOST, 0, 5, []uint64{1, 33}), want: Event{Kind: EventLost, Time: 5, Lost: 33}},
		{name: "kernel symbol", rec: record(unix.PERF_RECORD_KSYMBOL, 0, 5, uint64(0xffffffffc0000000), uint32(64), []uint16{1, 1}, "bpf_prog_1_f"),
			want: Event{Kind: EventKernelSymbol, Time: 5, Symbol: KernelSymbol{Addr: 0xffffffffc0000000, Len: 64, Type: 1, Unregister: true, Name: "bpf_prog_1_f"}}},
		{name: "a record of the future", rec: record(99, 0, 5, []uint64{1, 33}), skip: true},
		{name: "short fork", rec: record(unix.PERF_RECORD_FORK, 0, 5, uint64(1)), bad: true},
		{name: "short comm", rec: record(unix.PERF_RECORD_COMM, 0, 5), bad: true},
		{name: "short map", rec: record(unix.PERF_RECORD_MMAP2, 0, 5, uint64(1)), bad: true},
		{name: "header only", rec: make([]byte, 8), bad: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, ok, err := decode(tt.rec, names{})
			if ok != (!tt.skip && !tt.bad) || (err != nil) != tt.bad {
				t.Fatalf("decode = %v, %v", ok, err)
			}
			if !ok {
				return
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func FuzzRecord(f *testing.F) {
	f.Add(mmap2(10, Mapping{Begin: 0x1000, End: 0x3000, Path: "/lib/x.so"}, 5))
	f.Add(mmap2BuildID(10, 20, "/lib/y.so (deleted)"))
	f.Add(record(unix.PERF_RECORD_FORK, 0, 5, []uint32{10, 9, 10, 8}, uint64(5)))
	f.Add(record(unix.PERF_RECORD_COMM, miscExec, 5, []uint32{10, 10}, "true"))
	f.Add(record(unix.PERF_RECORD_KSYMBOL, 0, 5, uint64(1), uint32(64), []uint16{1, 1}, "f"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ev, ok, err := decode(b, names{})
		if ok && (err != nil || ev.Kind == 0) {
			t.Errorf("decode = %+v, %v", ev, err)
		}
		if ok && (len(ev.Comm) > maxComm || len(ev.Map.Path) > unix.PathMax || ev.Kind == EventMap && ev.Map.Begin >= ev.Map.End) {
			t.Errorf("decode = %+v", ev)
		}
		readFakeRing(t, b)
	})
}

// readFakeRing feeds a ring with the bytes a kernel could not have written.
func readFakeRing(t *testing.T, b []byte) {
	data := make([]byte, 256)
	copy(data, b)
	head, tail := uint64(min(len(b), 300)), uint64(0)
	r := ring{data: data, head: &head, tail: &tail}
	n := 0
	r.read(func(rec []byte) { n += len(rec) })
	if n > len(data) || tail != head {
		t.Errorf("%d bytes of records in a ring of %d, tail %d, head %d", n, len(data), tail, head)
	}
}

// Records that cross the end of the ring are put together.
func TestRingWraps(t *testing.T) {
	data := make([]byte, 256)
	var head, tail uint64
	r := ring{data: data, head: &head, tail: &tail}
	for i := range uint64(100) {
		rec := record(unix.PERF_RECORD_COMM, 0, i, []uint32{uint32(i), 1}, "name"[:i%5])
		for _, c := range rec {
			data[head%256] = c
			head++
		}
		n := 0
		if !r.read(func(got []byte) {
			n++
			if d := cmp.Diff(rec, got); d != "" {
				t.Fatal(d)
			}
		}) || n != 1 || tail != head {
			t.Fatalf("record %d: read %d, tail %d, head %d", i, n, tail, head)
		}
	}
}
