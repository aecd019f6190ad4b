// SPDX-License-Identifier: Apache-2.0

package debugfile

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/internal/hostile"
	"github.com/lowflame/lowflame/objfile"
)

// Reason is why a place has not what was looked for.
type Reason uint8

// The reasons.
const (
	ReasonAbsent     Reason = iota // there is no such file
	ReasonNotRegular               // a FIFO, device, directory
	ReasonDenied                   // not allowed, or a path that leads nowhere
	ReasonTooLarge                 // beyond a limit
	ReasonMalformed                // not what its name says
	ReasonOther                    // of another file: build ID or checksum differ
	ReasonEmpty                    // the right file, and nothing of use in it
	ReasonRead                     // reading it failed
	ReasonChanged                  // it changed while it was read
	numReasons
)

var reasonNames = [numReasons]string{
	"absent", "not-regular", "denied", "too-large", "malformed", "other-file", "nothing-in-it", "read-error", "changed",
}

// String returns a word fit for a metric's label.
func (r Reason) String() string {
	if r < numReasons {
		return reasonNames[r]
	}
	return "unknown"
}

// Miss is a place that was tried in vain.
type Miss struct {
	Source Source
	Place  string // a path, below its root's
	Reason Reason
	Err    error
}

func (m Miss) String() string {
	return fmt.Sprintf("%s: %s: %s: %v", m.Source, m.Place, m.Reason, m.Err)
}

// Stats counts what Finders found and why they did not.
type Stats struct {
	Found  map[Source]uint64
	Missed map[Reason]uint64
}

// Stats returns the counts so far, those that are zero too.
func (f *Finder) Stats() Stats {
	s := Stats{Found: make(map[Source]uint64), Missed: make(map[Reason]uint64)}
	for i := range f.found {
		s.Found[Source(i)] = f.found[i].Load()
	}
	for i := range f.miss {
		s.Missed[Reason(i)] = f.miss[i].Load()
	}
	return s
}

var (
	errOther = errors.New("belongs to another file")
	errEmpty = errors.New("has neither DWARF nor symbols of use")
)

// reasonOf sorts an error.
func reasonOf(err error) Reason {
	var format *objfile.FormatError
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return ReasonAbsent
	case errors.Is(err, hostile.ErrNotRegular):
		return ReasonNotRegular
	case errors.Is(err, objfile.ErrTooLarge):
		return ReasonTooLarge
	case errors.Is(err, errOther):
		return ReasonOther
	case errors.Is(err, errEmpty):
		return ReasonEmpty
	case errors.As(err, &format), errors.Is(err, objfile.ErrNotELF), errors.Is(err, objfile.ErrUnsupported),
		errors.Is(err, errXZ):
		return ReasonMalformed
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.ELOOP), errors.Is(err, unix.EXDEV),
		errors.Is(err, unix.ENAMETOOLONG), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EAGAIN):
		return ReasonDenied
	}
	return ReasonRead
}
