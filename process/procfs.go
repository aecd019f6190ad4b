// SPDX-License-Identifier: Apache-2.0

package process

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// errGone says that a process runs no user code any more.
var errGone = errors.New("process is gone")

const (
	maxThreads   = 1 << 16 // threads of one process that are told apart
	maxFileBytes = 64 << 10
)

// procDir is /proc/PID, held open: once that process is gone every read fails,
// even if the PID is in use again.
type procDir int

func openProcDir(root string, pid uint32) (procDir, error) {
	fd, err := unix.Open(root+"/"+strconv.FormatUint(uint64(pid), 10), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open /proc/%d: %w", pid, err)
	}
	return procDir(fd), nil
}

func (d procDir) close() { _ = unix.Close(int(d)) } // nothing was written

// open opens a file or directory below d.
func (d procDir) open(name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(int(d), name, unix.O_RDONLY|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// read returns the first maxFileBytes of a file, in a new slice.
func (d procDir) read(name string) ([]byte, error) {
	f, err := d.open(name, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFileBytes))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}

func (d procDir) stat() (stat, error) {
	b, err := d.read("stat")
	if err != nil {
		return stat{}, err
	}
	return parseStat(b)
}

// threads lists the TIDs of the process, at most maxThreads and one more.
func (d procDir) threads() ([]uint32, error) {
	f, err := d.open("task", unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var tids []uint32
	err = eachPID(f, func(tid uint32) bool {
		tids = append(tids, tid)
		return len(tids) <= maxThreads
	})
	return tids, err
}

// eachPID calls yield with each entry of the directory f that is a number,
// until it returns false.
func eachPID(f *os.File, yield func(pid uint32) bool) error {
	for {
		entries, err := f.Readdirnames(512)
		for _, name := range entries {
			n, err := strconv.ParseUint(name, 10, 32)
			if err == nil && !yield(uint32(n)) {
				return nil
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list %s: %w", f.Name(), err)
		}
	}
}

// liveThread returns the directory of a thread that has not exited, for a
// process whose first thread has: /proc/PID shows no mappings then, no root and
// no executable.
func (d procDir) liveThread(tids []uint32) (procDir, error) {
	for _, tid := range tids {
		fd, err := unix.Openat(int(d), "task/"+strconv.FormatUint(uint64(tid), 10), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		if s, err := procDir(fd).stat(); err == nil && !s.dead() {
			return procDir(fd), nil
		}
		_ = unix.Close(fd) // nothing was written
	}
	return -1, errGone
}

// details are what Process.Inherited speaks of.
type details struct {
	nspid             uint32
	cgroup, container string
	ownRoot           bool
}

// reading is a process as /proc shows it.
type reading struct {
	details
	at        uint64 // CLOCK_MONOTONIC before anything was read
	stat      stat
	exe       string
	maps      []Mapping
	mapsErr   error // the mappings could not be read, all else could
	truncated bool
	threads   []uint32 // nil if there is one only
}

// readProcess reads all of one process. It returns errGone for a zombie, and
// other errors when the process vanished or cannot be looked at.
func readProcess(root string, pid uint32, self rootID) (r reading, err error) {
	r.at = monotonic()
	d, err := openProcDir(root, pid)
	if err != nil {
		return r, err
	}
	defer d.close()
	if r.stat, err = d.stat(); err != nil {
		return r, err
	}
	if r.stat.dead() && r.stat.Threads <= 1 {
		return r, errGone
	}
	if r.stat.Flags&pfKThread != 0 {
		return r, nil
	}
	if r.stat.Threads > 1 {
		if r.threads, err = d.threads(); err != nil {
			return r, err
		}
	}
	live := d
	if r.stat.dead() {
		if live, err = d.liveThread(r.threads); err != nil {
			return r, err
		}
		defer live.close()
	}
	if r.details, err = readDetails(d, live, self); err != nil {
		return r, err
	}
	r.exe = live.exe()
	maps, err := live.open("maps", 0)
	if err != nil {
		r.mapsErr = err
		return r, nil
	}
	defer maps.Close()
	r.maps, r.truncated, r.mapsErr = readMaps(maps)
	return r, nil
}

// readDetails reads the namespace PID from the process and the rest from one of
// its threads that lives. It returns errGone if that ended meanwhile: what it saw
// cannot be told any more.
func readDetails(d, live procDir, self rootID) (details, error) {
	var x details
	status, err := d.read("status")
	if err != nil {
		return x, err
	}
	x.nspid, _ = parseNSPID(status)
	if cgroup, err := live.read("cgroup"); err == nil { // absent without CONFIG_CGROUPS
		x.cgroup, x.container = parseCgroup(cgroup)
	}
	root, err := readRoot(live)
	if err != nil {
		if s, statErr := live.stat(); statErr != nil || s.dead() {
			return x, errGone
		}
	}
	x.ownRoot = err != nil || root != self
	return x, nil
}

// exe returns the path of the executable, or "". A " (deleted)" at its end is
// taken off: an upgraded program is to keep its name.
func (d procDir) exe() string {
	var buf [unix.PathMax]byte
	n, err := unix.Readlinkat(int(d), "exe", buf[:])
	if err != nil || n <= 0 {
		return ""
	}
	return strings.TrimSuffix(string(buf[:n]), deletedSuffix)
}

// rootID tells apart what processes see as the file system.
type rootID struct{ mountNS, dev, ino uint64 }

func readRoot(d procDir) (rootID, error) {
	var ns, root unix.Stat_t
	if err := unix.Fstatat(int(d), "ns/mnt", &ns, 0); err != nil {
		return rootID{}, fmt.Errorf("stat mount namespace: %w", err)
	}
	if err := unix.Fstatat(int(d), "root", &root, 0); err != nil {
		return rootID{}, fmt.Errorf("stat root directory: %w", err)
	}
	return rootID{mountNS: ns.Ino, dev: root.Dev, ino: root.Ino}, nil
}

// ownRoot is readRoot for this program. It goes through the thread's own
// /proc, which need not be the one the table reads.
func ownRoot() rootID {
	fd, err := unix.Open("/proc/self", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return rootID{}
	}
	d := procDir(fd)
	defer d.close()
	id, _ := readRoot(d) // the zero value: every process has its own root then
	return id
}

// readDetailsOf reads the details of a process whose first thread lives, and
// when it was started.
func readDetailsOf(root string, pid uint32, self rootID) (x details, start uint64, err error) {
	d, err := openProcDir(root, pid)
	if err != nil {
		return x, 0, err
	}
	defer d.close()
	s, err := d.stat()
	if err != nil {
		return x, 0, err
	}
	if s.dead() {
		return x, 0, errGone
	}
	x, err = readDetails(d, d, self)
	return x, s.Start, err
}
