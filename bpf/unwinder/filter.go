// SPDX-License-Identifier: GPL-2.0

package unwinder

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// What unw_filter says of a process, enum unw_filtered of abi.h.
const (
	filterSample   = 1
	filterBaseline = 2
)

// MaxCgroups is how many cgroups can be sampled alone.
const MaxCgroups = 16

// AddPID adds a process to those sampled, when Config.Filter is set.
func (u *Unwinder) AddPID(pid uint32) error {
	return u.filter(pid, filterSample)
}

// RemovePID takes a process out again, if it is there: one that has ended stays
// among those sampled, for its last moments in the kernel, until it is taken out.
func (u *Unwinder) RemovePID(pid uint32) error {
	if err := u.objs.UnwFilter.Delete(pid); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("no longer sample process %d: %w", pid, err)
	}
	return nil
}

// HasPID reports whether a process is among those sampled: added, or the descendant
// of one with Config.Follow.
func (u *Unwinder) HasPID(pid uint32) bool {
	var how uint8
	return u.objs.UnwFilter.Lookup(pid, &how) == nil
}

// PIDs lists the processes that HasPID holds for.
func (u *Unwinder) PIDs() ([]uint32, error) {
	var pids []uint32
	var pid uint32
	var how uint8
	entries := u.objs.UnwFilter.Iterate()
	for entries.Next(&pid, &how) {
		pids = append(pids, pid)
	}
	if err := entries.Err(); err != nil {
		return pids, fmt.Errorf("list the processes to sample: %w", err)
	}
	return pids, nil
}

// AddBaseline has the kernel walk the user stacks of a process by frame pointers,
// and Costs say what that costs. Nothing else becomes of its samples, which count
// as filtered. Config.Filter and Config.Measure are set.
func (u *Unwinder) AddBaseline(pid uint32) error {
	return u.filter(pid, filterBaseline)
}

func (u *Unwinder) filter(pid uint32, how uint8) error {
	if err := u.objs.UnwFilter.Put(pid, how); err != nil {
		return fmt.Errorf("sample process %d: %w", pid, err)
	}
	return nil
}

// setCgroups gives the program the cgroups to sample.
func (u *Unwinder) setCgroups() error {
	if len(u.cfg.Cgroups) > MaxCgroups {
		return fmt.Errorf("%d cgroups: at most %d can be sampled", len(u.cfg.Cgroups), MaxCgroups)
	}
	for i, path := range u.cfg.Cgroups {
		if err := u.setCgroup(uint32(i), path); err != nil {
			return fmt.Errorf("sample cgroup %s: %w", path, err)
		}
	}
	return nil
}

func (u *Unwinder) setCgroup(i uint32, path string) error {
	if err := checkCgroup(path); err != nil {
		return err
	}
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	// The map holds the cgroup, not the file.
	err = u.objs.UnwCgroups.Put(i, uint32(dir.Fd()))
	return errors.Join(err, dir.Close())
}

// checkCgroup returns an error that helps where the kernel would say EBADF.
func checkCgroup(path string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return err
	}
	switch fs.Type {
	case unix.CGROUP2_SUPER_MAGIC:
		return nil
	case unix.CGROUP_SUPER_MAGIC:
		return errors.New("it is of cgroup v1: give the directory of the cgroup v2 hierarchy")
	}
	return errors.New("not a cgroup: give a directory of the cgroup v2 hierarchy, such as one below /sys/fs/cgroup")
}
