// SPDX-License-Identifier: Apache-2.0

// Package process knows which processes run on the machine and what code each
// of them has mapped, now and in the recent past.
//
// A Table is filled once from /proc and kept current by the records of a
// Sideband: the kernel tells of every fork, exec, executable mapping and exit.
// Open the Sideband, then Scan, then Apply what Read returns; Scan again after
// lost records, and Forget what ended before the oldest sample still in use.
//
// Everything a profiled process can influence (names, paths, the number of its
// mappings and threads) is bounded in memory, and files are opened through
// Table.Open only, which cannot be led out of the process's own root.
package process

import (
	"sort"

	"github.com/lowflame/lowflame/stack"
)

// FileID identifies a mapped file by what the kernel gave: device and inode
// (with the inode's generation from MMAP2 records, 0 from /proc/PID/maps), or
// the GNU build ID alone. It is comparable; the zero value means not known.
//
// One file may be seen under two values, one with a build ID and one with an
// inode. On btrfs and overlayfs Dev may differ from what stat(2) says.
type FileID struct {
	Dev uint64 // as unix.Mkdev makes it
	Ino uint64
	Gen uint64
	// BuildID holds the raw bytes of the build ID, at most 20.
	BuildID string
}

// IsZero reports whether nothing is known of the file.
func (f FileID) IsZero() bool { return f == FileID{} }

// Kind says what an executable mapping is backed by.
type Kind uint8

const (
	// KindFile is a file of a file system.
	KindFile Kind = iota
	// KindAnon is memory without a file: code made at run time.
	KindAnon
	// KindVDSO is the kernel's [vdso].
	KindVDSO
	// KindMemfd is a file without a name: memfd, /dev/zero, System V or huge
	// page shared memory. Runtimes map code made at run time twice through it;
	// it may also hold an ordinary ELF file, so look at its first bytes.
	KindMemfd
	// KindOther is anything else: [uprobes], a device.
	KindOther
)

// String returns a lower-case word for k.
func (k Kind) String() string {
	switch k {
	case KindFile:
		return "file"
	case KindAnon:
		return "anon"
	case KindVDSO:
		return "vdso"
	case KindMemfd:
		return "memfd"
	}
	return "other"
}

// Mapping is one executable mapping of a process: [Begin, End) in process
// addresses, of which Begin is at byte Off of the file.
type Mapping struct {
	Begin, End stack.Addr
	// Off is 0 for KindAnon.
	Off  stack.FileOff
	Kind Kind
	// Path is what the kernel calls the file, any bytes, without a final
	// " (deleted)". MMAP2 records give it as the process sees it, maps as a
	// reader of /proc does. It is for people, and for finding a file to compare
	// with File; two files may have one path.
	Path string
	File FileID
	// Deleted says that the kernel's name ended in " (deleted)". A file may
	// be called so as well, so nothing may depend on it.
	Deleted bool
}

// Process is one image of a process: what it has run from one exec (or fork)
// to the next. It is a snapshot and never changes; a later snapshot of the same
// image has the same ID and a higher Version.
type Process struct {
	PID, PPID uint32
	// NSPID is the process's own PID in its innermost PID namespace; 0 if not
	// read (see Inherited).
	NSPID uint32
	// Start is field 22 of /proc/PID/stat, clock ticks since boot; 0 unknown.
	Start uint64
	// Since is when the image came into force, CLOCK_MONOTONIC ns: the time of
	// the exec or fork. It is 0 for a process that ran before the table knew it.
	Since uint64
	// Until is when it ended by exec or exit; 0 while it is in force.
	Until uint64
	// Known is when Mappings were last read from /proc, CLOCK_MONOTONIC ns from
	// before the reading: an image that was found there may have begun at any time
	// from Since to Known. It is 0 where all is from events.
	Known uint64
	// Comm is the main thread's name, any bytes; at most 15 of them but for
	// kernel threads.
	Comm string
	// Exe is the path of the main executable, as Mapping.Path. Empty for
	// kernel threads and when it could not be read.
	Exe string
	// Cgroup is a path below the cgroup root: of the unified hierarchy, or of
	// a version 1 hierarchy if that says more.
	Cgroup string
	// ContainerID is the container's ID or name within Cgroup, or empty.
	ContainerID string
	// Mappings are the executable ones, sorted, without overlap. The slice is
	// shared between snapshots and must not be written to.
	Mappings []Mapping

	// ID tells images apart: unique in a Table, never 0.
	ID uint64
	// Version rises with each snapshot, over all processes of the Table.
	Version uint64
	// Inherited says that NSPID is unknown, and that Cgroup, ContainerID and
	// OwnRoot are those from before the last fork or exec. Table.Refresh reads
	// them.
	Inherited bool
	// OwnRoot says that the process sees other files than this program does:
	// another root directory or mount namespace.
	OwnRoot bool
	// KThread marks a kernel thread.
	KThread bool
	// Truncated says that mappings are missing because a limit was reached.
	Truncated bool
}

// Find returns the mapping that holds addr, or nil. The result points into
// p.Mappings.
func (p *Process) Find(addr stack.Addr) *Mapping {
	i := sort.Search(len(p.Mappings), func(i int) bool { return p.Mappings[i].End > addr })
	if i < len(p.Mappings) && p.Mappings[i].Begin <= addr {
		return &p.Mappings[i]
	}
	return nil
}
