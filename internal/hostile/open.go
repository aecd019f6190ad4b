// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"errors"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNotRegular says that a path leads to a FIFO, device, socket or directory.
var ErrNotRegular = errors.New("not a regular file")

// InRoot is how a path that a container wrote is resolved: the directory stands for
// the root directory, for absolute symbolic links and ".." too, and the links of
// /proc, which lead anywhere, are not followed.
const InRoot = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS

// OpenRegular opens a regular file for reading and returns its descriptor, which is
// the caller's, and what it is. It first takes hold of what the path leads to without
// opening it: opening a FIFO waits for a writer, and opening a device may do anything.
//
// resolve is passed to openat2(2); with 0 the path is resolved as open(2) does. The
// error wraps ErrNotRegular or is a unix.Errno.
func OpenRegular(dir int, path string, resolve uint64) (fd int, st unix.Stat_t, err error) {
	hold, err := openPath(dir, path, resolve)
	if err != nil {
		return -1, st, err
	}
	defer unix.Close(hold)
	if err := unix.Fstat(hold, &st); err != nil {
		return -1, st, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, st, ErrNotRegular
	}
	// O_NONBLOCK: a lease on the file makes open fail rather than wait.
	fd, err = unix.Open("/proc/self/fd/"+strconv.Itoa(hold), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return -1, st, err
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		unix.Close(fd)
		return -1, st, err
	}
	return fd, st, nil
}

func openPath(dir int, path string, resolve uint64) (int, error) {
	if resolve == 0 {
		return unix.Openat(dir, path, unix.O_PATH|unix.O_CLOEXEC, 0)
	}
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: resolve}
	for range 8 {
		fd, err := unix.Openat2(dir, path, &how)
		switch {
		case err == unix.ENOSYS && resolve == InRoot:
			return walkInRoot(dir, path)
		case err != unix.EAGAIN: // a rename or mount raced with the walk
			return fd, err
		}
	}
	return -1, unix.EAGAIN
}

const (
	maxLinks = 40  // MAXSYMLINKS of the kernel
	maxDepth = 128 // directories held open
	maxLeft  = 2 * unix.PathMax
)

// walkInRoot does what openat2 with InRoot does, for sandboxes that do not let it
// through: one component at a time, ".." being the directory the walk came from
// whatever it has been moved to since.
func walkInRoot(root int, path string) (int, error) {
	w := walk{dirs: []int{root}, left: path}
	defer w.close()
	for {
		name, rest, more := strings.Cut(strings.TrimLeft(w.left, "/"), "/")
		switch name {
		case "..":
			w.up()
			fallthrough
		case ".", "":
			if w.left = rest; rest == "" {
				return unix.Openat(w.top(), ".", unix.O_PATH|unix.O_CLOEXEC, 0)
			}
			continue
		}
		w.left = rest
		fd, err := w.step(name)
		if err != nil || fd >= 0 && !more {
			return fd, err
		}
		if fd >= 0 {
			if err := w.down(fd); err != nil {
				return -1, err
			}
		}
	}
}

// walk holds the directories from the root to where the walk is, the first of which
// is not its own, and the path that is left.
type walk struct {
	dirs  []int
	left  string
	links int
}

// step takes hold of name where the walk is. For a symbolic link it returns no
// descriptor: where that leads is put before what is left.
func (w *walk) step(name string) (fd int, err error) {
	fd, err = unix.Openat(w.top(), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	target, isLink, err := readLink(fd)
	if err == nil && !isLink {
		return fd, nil
	}
	unix.Close(fd)
	if err != nil {
		return -1, err
	}
	if w.links++; w.links > maxLinks || len(target)+len(w.left) > maxLeft {
		return -1, unix.ELOOP
	}
	if strings.HasPrefix(target, "/") {
		w.close()
	}
	if w.left != "" {
		target += "/" + w.left
	}
	w.left = target
	return -1, nil
}

func (w *walk) top() int { return w.dirs[len(w.dirs)-1] }

func (w *walk) up() {
	if n := len(w.dirs) - 1; n > 0 {
		unix.Close(w.dirs[n])
		w.dirs = w.dirs[:n]
	}
}

// down takes fd over.
func (w *walk) down(fd int) error {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	switch {
	case err != nil:
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		err = unix.ENOTDIR
	case len(w.dirs) > maxDepth:
		err = unix.ENAMETOOLONG
	default:
		w.dirs = append(w.dirs, fd)
		return nil
	}
	unix.Close(fd)
	return err
}

// close goes back to the root.
func (w *walk) close() {
	for len(w.dirs) > 1 {
		w.up()
	}
}

// readLink reads the symbolic link that fd, opened with O_PATH, is.
func readLink(fd int) (target string, isLink bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", false, err
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return "", true, err
	}
	if n == 0 || n == len(buf) {
		return "", true, unix.ENAMETOOLONG
	}
	return string(buf[:n]), true, nil
}
