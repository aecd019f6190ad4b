// SPDX-License-Identifier: Apache-2.0

package process

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/internal/hostile"
)

var (
	// ErrNoFile says that a mapping has no file behind it.
	ErrNoFile = errors.New("mapping has no file")
	// ErrNotRegular says that a path leads to a FIFO, device or directory.
	ErrNotRegular = hostile.ErrNotRegular
	// ErrOtherFile says that a path leads to another file than the mapped one.
	ErrOtherFile = errors.New("another file has the path now")
)

// Open opens the file behind mapping m of p for reading. The caller closes it.
//
// verified says that it is the mapped file beyond doubt: device and inode agree,
// or it was reached through the mapping itself and the inode agrees. If it is
// false the caller must compare the build ID where m.File has one; where it has
// none, the inode agrees and the device does not, as on btrfs and overlayfs.
//
// The file is looked for in /proc/PID/map_files, which works for deleted files
// and in every mount namespace and needs CAP_CHECKPOINT_RESTORE; then by path
// below the root directory of the process, of its parent if it is gone, and
// last of this program. Symbolic links cannot lead out of that root, and what
// is not a regular file is not opened. A file system may still make Open wait,
// as NFS does.
func (t *Table) Open(p *Process, m *Mapping) (f *os.File, verified bool, err error) {
	if m.Kind != KindFile && m.Kind != KindMemfd {
		return nil, false, fmt.Errorf("open %s mapping of process %d: %w", m.Kind, p.PID, ErrNoFile)
	}
	o := opener{root: t.root, m: m, best: -1}
	if pid := t.reachable(p); pid != 0 {
		if fd, ok := o.mapFile(pid); ok {
			return o.file(fd), m.File.Ino != 0, nil
		}
		o.below(pid)
	} else if q := t.Live(p.PPID); q != nil {
		o.below(q.PID)
	}
	if o.best < 0 {
		o.host(p.OwnRoot)
	}
	if o.best < 0 {
		return nil, false, fmt.Errorf("open %q, mapped by process %d: %w", m.Path, p.PID, errors.Join(o.errs...))
	}
	return o.file(o.best), o.verified, nil
}

// reachable returns a number under which /proc shows what process p has, or 0
// if p is not in force any more. For a process whose first thread has exited
// that is the TID of another one.
func (t *Table) reachable(p *Process) uint32 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	e := t.procs[p.PID]
	img := e.live()
	switch {
	case img == nil || img.p.ID != p.ID:
		return 0
	case e.leader:
		return p.PID
	}
	for tid := range e.others {
		return tid
	}
	return p.PID
}

// opener tries one way after the other to open the file of a mapping.
type opener struct {
	root     string // of the proc file system
	m        *Mapping
	best     int // descriptor of the file to return, or -1
	verified bool
	errs     []error
}

// file makes a file of a descriptor, which it takes over.
func (o *opener) file(fd int) *os.File { return os.NewFile(uintptr(fd), o.m.Path) }

func (o *opener) fail(way string, err error) {
	o.errs = append(o.errs, fmt.Errorf("%s: %w", way, err))
}

// mapFile opens the file through the mapping itself.
func (o *opener) mapFile(pid uint32) (int, bool) {
	begin, end := uint64(o.m.Begin), uint64(o.m.End)
	dir := o.root + "/" + strconv.FormatUint(uint64(pid), 10)
	fd, st, err := hostile.OpenRegular(unix.AT_FDCWD, mapFilesPath(dir, begin, end), 0)
	if errors.Is(err, unix.ENOENT) {
		// The mapping was cut or joined since.
		if begin, end, ok := o.containing(pid); ok {
			fd, st, err = hostile.OpenRegular(unix.AT_FDCWD, mapFilesPath(dir, begin, end), 0)
		}
	}
	if err == nil && o.m.File.Ino != 0 && st.Ino != o.m.File.Ino {
		_ = unix.Close(fd) // nothing was written
		err = ErrOtherFile
	}
	if err != nil {
		o.fail("by map_files", err)
		return -1, false
	}
	return fd, true
}

func mapFilesPath(dir string, begin, end uint64) string {
	return dir + "/map_files/" + strconv.FormatUint(begin, 16) + "-" + strconv.FormatUint(end, 16)
}

// containing returns the bounds of the mapping that now holds the first byte
// of o.m at the same place of a file.
func (o *opener) containing(pid uint32) (begin, end uint64, ok bool) {
	d, err := openProcDir(o.root, pid)
	if err != nil {
		return 0, 0, false
	}
	defer d.close()
	f, err := d.open("maps", 0)
	if err != nil {
		return 0, 0, false
	}
	defer f.Close()
	ms, _, err := readMaps(f)
	if err != nil {
		return 0, 0, false
	}
	now := (&Process{Mappings: ms}).Find(o.m.Begin)
	if now == nil || now.from(o.m.Begin).Off != o.m.Off {
		return 0, 0, false
	}
	return uint64(now.Begin), uint64(now.End), true
}

// below opens the file by its path below the root directory of a process.
func (o *opener) below(pid uint32) {
	way := "below root of process " + strconv.FormatUint(uint64(pid), 10)
	root, err := unix.Open(o.root+"/"+strconv.FormatUint(uint64(pid), 10)+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		o.fail(way, err)
		return
	}
	defer unix.Close(root)
	o.in(root, way, false)
}

// host opens the file by its path as this program sees it. A process that sees
// other files may mean another one by that path, so then only the very inode
// will do.
func (o *opener) host(strict bool) {
	const way = "by path on the host"
	if strict && o.m.File.Ino == 0 {
		o.fail(way, unix.ENOENT)
		return
	}
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		o.fail(way, err)
		return
	}
	defer unix.Close(root)
	o.in(root, way, strict)
}

func (o *opener) in(root int, way string, strict bool) {
	if !strings.HasPrefix(o.m.Path, "/") {
		o.fail(way, unix.ENOENT)
		return
	}
	paths := []string{o.m.Path}
	if o.m.Deleted { // or called so
		paths = append(paths, o.m.Path+deletedSuffix)
	}
	for _, path := range paths {
		fd, st, err := hostile.OpenRegular(root, path, hostile.InRoot)
		if err != nil {
			o.fail(way, err)
			continue
		}
		same := o.m.File.Ino == st.Ino && o.m.File.Dev == st.Dev
		if o.m.File.Ino != 0 && o.m.File.Ino != st.Ino || strict && !same {
			_ = unix.Close(fd) // nothing was written
			o.fail(way, ErrOtherFile)
			continue
		}
		o.best, o.verified = fd, same
		return
	}
}
