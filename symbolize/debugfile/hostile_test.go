// SPDX-License-Identifier: Apache-2.0

package debugfile

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/symbolize/elfsym"
)

// TestHostileRoot looks for a debug file in containers that put something else there.
func TestHostileRoot(t *testing.T) {
	secret := build(t) // what a container points at, outside its root
	secret.put(debugAt)
	outside := secret.at(debugAt)
	at := func(p *place) string { p.mkdir(debugAt); return p.at(debugAt) }
	tests := []struct {
		name   string
		put    func(p *place) error
		reason Reason
	}{
		{"absolute link out", func(p *place) error { return os.Symlink(outside, at(p)) }, ReasonAbsent},
		{"relative link out", func(p *place) error {
			rel := strings.Repeat("../", 30) + outside
			return os.Symlink(rel, at(p))
		}, ReasonAbsent},
		{"directory link out", func(p *place) error {
			p.mkdir("/usr/lib/debug")
			return os.Symlink(secret.at("/usr/lib/debug"), p.at("/usr/lib/debug"))
		}, ReasonAbsent},
		{"link by proc", func(p *place) error { return os.Symlink("/proc/self/root"+outside, at(p)) }, ReasonAbsent},
		{"link to itself", func(p *place) error { return os.Symlink(debugAt, at(p)) }, ReasonDenied},
		{"FIFO", func(p *place) error { return unix.Mkfifo(at(p), 0o644) }, ReasonNotRegular},
		{"link to a FIFO", func(p *place) error {
			return errors.Join(unix.Mkfifo(p.at("/fifo"), 0o644), os.Symlink("/fifo", at(p)))
		}, ReasonNotRegular},
		{"device that acts when opened", func(p *place) error {
			return unix.Mknod(at(p), unix.S_IFCHR|0o644, int(unix.Mkdev(10, 130))) // watchdog
		}, ReasonNotRegular},
		{"directory", func(p *place) error { return os.Mkdir(at(p), 0o755) }, ReasonNotRegular},
		{"socket", func(p *place) error {
			return unix.Mknod(at(p), unix.S_IFSOCK|0o644, 0)
		}, ReasonNotRegular},
		{"file for a directory", func(p *place) error { return os.WriteFile(filepath.Dir(at(p))+"x", nil, 0o600) }, ReasonAbsent},
		{"sparse file of a petabyte", func(p *place) error {
			run(p, "", "cp", outside, at(p))
			return largest(at(p))
		}, ReasonTooLarge},
		{"empty file", func(p *place) error { return os.WriteFile(at(p), nil, 0o600) }, ReasonMalformed},
		{"text", func(p *place) error { return os.WriteFile(at(p), []byte("no ELF file"), 0o600) }, ReasonMalformed},
		{"half a header", func(p *place) error {
			run(p, "", "cp", outside, at(p))
			return os.Truncate(at(p), 50)
		}, ReasonMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := build(t)
			if err := tt.put(p); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			found := p.find(Config{})
			found.wantMiss(t, tt.reason, debugAt)
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
	t.Run("links inside", func(t *testing.T) {
		p := build(t)
		p.put("/store/it")
		p.link("/here/../store", "/usr/lib/debug/.build-id/01") // nothing is at /here
		p.link(strings.Repeat("../", 30)+"store/it", "/store/"+filepath.Base(debugAt))
		if err := os.Mkdir(p.at("/here"), 0o755); err != nil {
			t.Fatal(err)
		}
		p.find(Config{}).want(t, SourceBuildID, debugAt)
	})
}

// largest makes a file as large as its file system lets it be, at most a petabyte.
func largest(path string) (err error) {
	for size := int64(1) << 50; size > 4<<30; size /= 2 {
		if err = os.Truncate(path, size); err == nil {
			return nil
		}
	}
	return err
}

// TestChanging changes a debug file under way: what reads it gets errors, and Changed
// tells.
func TestChanging(t *testing.T) {
	tests := []struct {
		name    string
		change  func(path string) error
		changed bool
		reads   bool // what was open can still be read
	}{
		{"truncated", func(path string) error { return os.Truncate(path, 100) }, true, false},
		{"emptied", func(path string) error { return os.Truncate(path, 0) }, true, false},
		{"written to", func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte("\x00\x00\x00"), 1)
			return errors.Join(err, f.Close())
		}, true, true},
		{"replaced", func(path string) error {
			return errors.Join(os.WriteFile(path+"~", []byte("other"), 0o600), os.Rename(path+"~", path))
		}, false, true},
		{"swapped for a FIFO", func(path string) error {
			return errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600))
		}, false, true},
		{"removed", os.Remove, false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := build(t)
			p.put(debugAt)
			f := New(Config{})
			found := f.Find(p.open(), p.program, []string{p.root})
			defer found.Close()
			if found.Debug == nil || found.Changed() {
				t.Fatalf("found %+v", found)
			}
			time.Sleep(20 * time.Millisecond) // times of files are as fine as the clock's ticks
			if err := tt.change(p.at(debugAt)); err != nil {
				t.Fatal(err)
			}
			if got := found.Changed(); got != tt.changed || f.Stats().Missed[ReasonChanged] > 0 != tt.changed {
				t.Errorf("changed: %v, counted %v", got, f.Stats().Missed[ReasonChanged])
			}
			info, _ := found.Debug.Object.Section(".debug_info")
			_, err := found.Debug.Object.Data(info, 1<<20)
			_, symErr := elfsym.Build(found.Symbols.Object)
			if tt.reads != (err == nil) || tt.reads != (symErr == nil) {
				t.Errorf("DWARF: %v, symbols: %v", err, symErr)
			}
			// What has the name now is looked at anew.
			again := f.Find(p.object, p.program, []string{p.root})
			again.Close()
			if again.Debug != nil {
				t.Errorf("found again: %+v", again.Debug)
			}
		})
	}
}

// TestChangingMeanwhile truncates and swaps a debug file while it is looked for.
func TestChangingMeanwhile(t *testing.T) {
	p := build(t, "-Wl,--build-id=none")
	p.put("/opt/bin/program.debug")
	path := p.at("/opt/bin/program.debug")
	run(t, "", "objcopy", "--add-gnu-debuglink="+path, p.at(p.program))
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	o, f := p.open(), New(Config{})
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			switch i % 3 {
			case 0:
				_ = os.WriteFile(path, whole, 0o600) // each of these may fail after the last
			case 1:
				_ = os.Truncate(path, int64(i)%int64(len(whole)))
			case 2:
				_ = os.Remove(path)
				_ = unix.Mkfifo(path, 0o600)
				_ = os.Remove(path)
			}
		}
	}()
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		found := f.Find(o, p.program, []string{p.root})
		if found.Debug != nil {
			section, _ := found.Debug.Object.Section(".debug_info")
			_, _ = found.Debug.Object.Data(section, 1<<20)
		}
		if err := found.Close(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	<-stopped
	t.Logf("%v", f.Stats())
	if fds := openFiles(t, p.root); fds != 1 {
		t.Errorf("%d files of the root left open, want that of the program", fds)
	}
}

func openFiles(t *testing.T, root string) (n int) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(to, root) {
			n++
		}
	}
	return n
}

// TestBrokenDisk reads links from a file whose end cannot be read.
func TestBrokenDisk(t *testing.T) {
	p := build(t)
	run(t, "", "objcopy", "--add-gnu-debuglink="+p.whole, p.at(p.program))
	o := p.open()
	link, ok := o.Section(".gnu_debuglink")
	if !ok {
		t.Fatal("no link")
	}
	handle, err := os.Open(p.at(p.program))
	if err != nil {
		t.Fatal(err)
	}
	defer handle.Close()
	// Headers are behind what they describe, so only this much fails.
	r := &failing{ReaderAt: handle, off: int64(link.Off), size: int64(link.Size)}
	if p.object, err = objfile.Open(r, o.Size()); err != nil {
		t.Fatal(err)
	}
	p.find(Config{}).wantMiss(t, ReasonRead, p.program)
}

// failing cannot read some bytes.
type failing struct {
	io.ReaderAt
	off, size int64
}

func (f *failing) ReadAt(p []byte, off int64) (int, error) {
	if off < f.off+f.size && f.off < off+int64(len(p)) {
		return 0, unix.EIO
	}
	return f.ReaderAt.ReadAt(p, off)
}
