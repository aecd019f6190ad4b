// SPDX-License-Identifier: Apache-2.0

package jit

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// errRefused is wrapped by errors about a file that is there but not fit.
var errRefused = errors.New("refused")

// identity is what /proc/PID/status tells.
type identity struct {
	nspid uint32
	uids  []uint32 // real, effective, saved, file system
}

// readIdentity reads the Uid and NSpid lines (proc_pid_status(5)).
func readIdentity(proc string, pid uint32) (identity, error) {
	f, err := os.Open(filepath.Join(proc, strconv.FormatUint(uint64(pid), 10), "status"))
	if err != nil {
		return identity{}, err
	}
	defer f.Close()
	id := identity{nspid: pid}
	for sc := bufio.NewScanner(f); sc.Scan(); {
		key, val, _ := strings.Cut(sc.Text(), ":")
		switch key {
		case "Uid":
			for _, s := range strings.Fields(val) {
				if u, err := strconv.ParseUint(s, 10, 32); err == nil {
					id.uids = append(id.uids, uint32(u))
				}
			}
		case "NSpid":
			if f := strings.Fields(val); len(f) > 0 {
				if n, err := strconv.ParseUint(f[len(f)-1], 10, 32); err == nil {
					id.nspid = uint32(n)
				}
			}
		}
	}
	return id, nil
}

// identify reads who p is, as long as it lives.
func (m *Maps) identify(p Process, pm *perfMap) (root string, err error) {
	pid := strconv.FormatUint(uint64(p.PID), 10)
	root = filepath.Join(m.c.Proc, pid, "root")
	id, err := readIdentity(m.c.Proc, p.PID)
	if err == nil {
		pm.id = id
		ours := m.sharesRoot(pid)
		if _, err = os.Stat(root); err == nil { // it lived all the while
			pm.ours = ours
			return root, nil
		}
	}
	if pm.ours { // a zombie has an identity, but no root
		return "/", nil
	}
	return "", err
}

// open opens the perf map of p.
func (m *Maps) open(p Process, pm *perfMap) (*os.File, unix.Stat_t, error) {
	if _, err := m.identify(p, pm); err != nil {
		return nil, unix.Stat_t{}, err
	}
	nspid := p.NSPID
	if nspid == 0 {
		nspid = pm.id.nspid
	}
	return m.openIn(p, pm, fmt.Sprintf("tmp/perf-%d.map", nspid))
}

// openIn opens path inside the root of the process, or, once the process has gone
// and if it lived in our mount namespace, in our own root: some runtimes write the
// map when they exit.
func (m *Maps) openIn(p Process, pm *perfMap, path string) (*os.File, unix.Stat_t, error) {
	root, err := m.identify(p, pm)
	if err != nil {
		return nil, unix.Stat_t{}, err
	}
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, unix.Stat_t{}, fmt.Errorf("open %s: %w", root, err)
	}
	defer unix.Close(dir)
	return openRegular(dir, path, pm.id.uids)
}

// sharesRoot reports whether the process sees the files we see.
func (m *Maps) sharesRoot(pid string) bool {
	same := func(name string) bool {
		a, err := os.Readlink(filepath.Join(m.c.Proc, pid, name))
		if err != nil {
			return false
		}
		b, err := os.Readlink(filepath.Join(m.c.Proc, "self", name))
		return err == nil && a == b
	}
	return same("ns/mnt") && same("root")
}

// openRegular opens path below dir, which it takes for the root directory, if
// it is a regular file that root or one of uids owns. It first opens the path
// without opening the file behind it, since opening a device or a FIFO has
// effects.
func openRegular(dir int, path string, uids []uint32) (*os.File, unix.Stat_t, error) {
	var st unix.Stat_t
	fd, err := unix.Openat2(dir, path, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, st, fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, st, fmt.Errorf("stat %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, st, fmt.Errorf("open %s: not a regular file: %w", path, errRefused)
	}
	if st.Uid != 0 && !slices.Contains(uids, st.Uid) {
		return nil, st, fmt.Errorf("open %s: owned by user %d: %w", path, st.Uid, errRefused)
	}
	self := "/proc/self/fd/" + strconv.Itoa(fd)
	rfd, err := unix.Open(self, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, st, fmt.Errorf("open %s: %w", path, err)
	}
	return os.NewFile(uintptr(rfd), path), st, nil
}
