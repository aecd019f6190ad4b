// SPDX-License-Identifier: Apache-2.0

package index

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// maxReason bounds the reason of a failure, in bytes.
const maxReason = 1 << 10

// Pending is an index that is being built. Its file is locked until Commit or Abort,
// or until the last process that has it open ends, a child included. Not safe for
// concurrent use.
type Pending struct {
	d    *Dir
	id   string
	file *os.File
}

// Begin begins an index of the file with buildID, which replaces the one there is. The
// error wraps ErrBusy if one is being built. The caller calls Commit or Abort.
func (d *Dir) Begin(buildID string) (*Pending, error) {
	if err := checkID(buildID); err != nil {
		return nil, fmt.Errorf("begin index: %w", err)
	}
	// Between the opening of a file and its lock another process may delete it.
	for range 8 {
		f, err := d.root.OpenFile(tempName(buildID), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
		if err != nil {
			return nil, fmt.Errorf("begin index: %w", err)
		}
		same, err := d.lock(f, tempName(buildID))
		if err == nil && same {
			err = f.Truncate(0)
		}
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("begin index of %s: %w", buildID, err)
		}
		if same {
			return &Pending{d: d, id: buildID, file: f}, nil
		}
		f.Close()
	}
	return nil, fmt.Errorf("begin index of %s: %w", buildID, ErrBusy)
}

// lock locks f and reports whether it still is what name stands for.
func (d *Dir) lock(f *os.File, name string) (bool, error) {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrBusy
		}
		return false, err
	}
	is, err := f.Stat()
	if err != nil {
		return false, err
	}
	named, err := d.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return os.SameFile(is, named), nil
}

// File returns the file to write the index to. It stays the Pending's.
func (p *Pending) File() *os.File { return p.file }

// Commit makes what is in the file the index of its build ID and removes what is too
// much in the directory. It checks the header and the directories, as Open does; the
// error wraps ErrFormat if it is no index. Nothing is left behind after an error.
func (p *Pending) Commit() error {
	if err := p.commit(); err != nil {
		p.remove()
		return fmt.Errorf("commit index of %s: %w", p.id, err)
	}
	p.file.Close()
	_ = p.d.root.Remove(failedName(p.id)) // there may be none
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	p.d.stats.Built++
	if err := p.d.evict(indexName(p.id)); err != nil {
		return fmt.Errorf("commit index of %s: %w", p.id, err)
	}
	return nil
}

func (p *Pending) commit() error {
	info, err := p.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() > p.d.maxBytes {
		return fmt.Errorf("%d bytes of %d: %w", info.Size(), p.d.maxBytes, ErrTooLarge)
	}
	if _, err := Open(p.file, info.Size(), NewBlocks(0)); err != nil {
		return err
	}
	return p.rename(indexName(p.id))
}

// rename gives the file its name once it is on disk.
func (p *Pending) rename(name string) error {
	if err := p.file.Sync(); err != nil {
		return err
	}
	if err := p.d.root.Rename(tempName(p.id), name); err != nil {
		return err
	}
	dir, err := p.d.root.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// remove deletes the file. Its lock holds until then, so that it is no one else's.
func (p *Pending) remove() {
	_ = p.d.root.Remove(tempName(p.id))
	p.file.Close()
}

// Abort gives up. If reason is not "", Open returns it for a day, unless there is an
// index from before.
func (p *Pending) Abort(reason string) error {
	if reason == "" {
		p.remove()
		return nil
	}
	err := p.fail(reason)
	if err != nil {
		p.remove()
		return fmt.Errorf("remember failure of %s: %w", p.id, err)
	}
	p.file.Close()
	return nil
}

func (p *Pending) fail(reason string) error {
	until := p.d.now().Add(failedFor).Unix()
	text := fmt.Sprintf("%d\n%s\n", until, reason[:min(len(reason), maxReason)])
	if err := p.file.Truncate(0); err != nil {
		return err
	}
	if _, err := p.file.WriteAt([]byte(text), 0); err != nil {
		return err
	}
	return p.rename(failedName(p.id))
}

// failure returns why there is no index of id, nil if nothing is known. It deletes
// what has expired or is damaged.
func (d *Dir) failure(id string) *FailedError {
	f, err := d.root.OpenFile(failedName(id), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxReason+32))
	if err != nil {
		return nil
	}
	when, reason, _ := bytes.Cut(text, []byte("\n"))
	until, err := strconv.ParseInt(string(when), 10, 64)
	now := d.now()
	// What would hold for longer than any failure is damaged, or the clock was wrong.
	if err != nil || until <= now.Unix() || until > now.Add(failedFor).Unix() || !bytes.HasSuffix(reason, []byte("\n")) {
		_ = d.root.Remove(failedName(id))
		return nil
	}
	return &FailedError{Reason: string(bytes.TrimSuffix(reason, []byte("\n"))), Until: time.Unix(until, 0)}
}
