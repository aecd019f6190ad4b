// SPDX-License-Identifier: Apache-2.0

package debugfile

import (
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/symbolize/debuginfod"
)

// dwz makes two debug files of one program with what they share in a third, as
// distributions do, and puts all in p's root.
func dwz(t *testing.T, p *place, alt string) (altID string) {
	t.Helper()
	p.put(debugAt)
	p.put("/usr/lib/debug/other.debug")
	p.mkdir(alt)
	run(t, "", "dwz", "-m", p.at(alt), "-M", alt, p.at(debugAt), p.at("/usr/lib/debug/other.debug"))
	o, handle := openObject(t, p.at(alt))
	defer handle.Close()
	return o.BuildID.ID
}

func TestAlt(t *testing.T) {
	const alt = "/usr/lib/debug/.dwz/x86_64-linux-gnu/program.debug"
	t.Run("by its path", func(t *testing.T) {
		p := build(t)
		id := dwz(t, p, alt)
		found := p.find(Config{})
		found.want(t, SourceBuildID, debugAt)
		if found.Alt == nil || found.Alt.Path != alt || found.Alt.Source != SourceLink || found.Alt.Object.BuildID.ID != id {
			t.Errorf("found %+v, %v", found.Alt, found.Missing)
		}
		if len(found.Wanted) != 0 {
			t.Errorf("wanted: %v", found.Wanted)
		}
	})
	for name, to := range map[string]func(id string) string{
		"by build ID":            func(id string) string { return "/usr/lib/debug/.build-id/" + id[:2] + "/" + id[2:] + ".debug" },
		"in the .dwz directory":  func(string) string { return "/usr/lib/debug/.dwz/program.debug" },
		"missing":                func(string) string { return "/elsewhere" },
		"another under its name": func(string) string { return "" },
	} {
		t.Run(name, func(t *testing.T) {
			p := build(t)
			id := dwz(t, p, alt)
			path := to(id)
			if path == "" {
				run(t, "", "cp", p.whole, p.at(alt))
			} else {
				p.mkdir(path)
				if err := os.Rename(p.at(alt), p.at(path)); err != nil {
					t.Fatal(err)
				}
			}
			found := p.find(Config{})
			if strings.HasPrefix(path, "/usr") {
				if found.Alt == nil || found.Alt.Path != path {
					t.Errorf("found %+v, %v", found.Alt, found.Missing)
				}
				return
			}
			if found.Alt != nil || !slices.Equal(found.Wanted, []string{id}) || len(found.Missing) == 0 {
				t.Errorf("found %+v, wanted %v, %v", found.Alt, found.Wanted, found.Missing)
			}
		})
	}
	t.Run("by a relative path", func(t *testing.T) {
		p := build(t)
		dwz(t, p, alt)
		section := filepath.Join(t.TempDir(), "section")
		run(t, "", "objcopy", "--dump-section", ".gnu_debugaltlink="+section, p.at(debugAt), "/dev/null")
		data, err := os.ReadFile(section)
		if err != nil {
			t.Fatal(err)
		}
		_, id, _ := strings.Cut(string(data), "\x00")
		if err := os.WriteFile(section, []byte("../../../../share/alt\x00"+id), 0o600); err != nil {
			t.Fatal(err)
		}
		run(t, "", "objcopy", "--update-section", ".gnu_debugaltlink="+section, p.at(debugAt))
		p.mkdir("/usr/share/alt")
		if err := os.Rename(p.at(alt), p.at("/usr/share/alt")); err != nil {
			t.Fatal(err)
		}
		if found := p.find(Config{}); found.Alt == nil {
			t.Errorf("not found: %v", found.Missing)
		}
	})
	t.Run("in an extra directory", func(t *testing.T) {
		for _, at := range []string{".dwz/program.debug", ".build-id"} {
			p := build(t)
			id := dwz(t, p, alt)
			extra := p.root
			if at == ".build-id" {
				at = filepath.Join(at, id[:2], id[2:]+".debug")
			}
			p.mkdir("/usr/lib/debug/" + at)
			if err := os.Rename(p.at(alt), p.at("/usr/lib/debug/"+at)); err != nil {
				t.Fatal(err)
			}
			p.open()
			p.root = t.TempDir()
			found := p.find(Config{Extra: []string{extra + "/usr/lib/debug"}})
			if found.Alt == nil || found.Debug == nil {
				t.Errorf("found %+v, %+v, %v", found.Debug, found.Alt, found.Missing)
			}
		}
	})
	t.Run("in the cache", func(t *testing.T) {
		p := build(t)
		id := dwz(t, p, alt)
		cache := cacheOf{id: p.at("/alt"), buildID: p.at("/debug")}
		for _, move := range [][2]string{{alt, "/alt"}, {debugAt, "/debug"}} {
			if err := os.Rename(p.at(move[0]), p.at(move[1])); err != nil {
				t.Fatal(err)
			}
		}
		found := p.find(Config{Cache: cache})
		if found.Alt == nil || found.Alt.Source != SourceDebuginfod || found.Debug == nil || found.Debug.Source != SourceDebuginfod {
			t.Errorf("found %+v, %+v, %v", found.Debug, found.Alt, found.Missing)
		}
	})
}

// cacheOf is a cache of files by build ID.
type cacheOf map[string]string

func (c cacheOf) Cached(buildID string) (*os.File, error) {
	if path, ok := c[buildID]; ok {
		return os.Open(path)
	}
	return nil, fs.ErrNotExist
}

func TestSplit(t *testing.T) {
	// The compiler is told to be in a directory that is inside the root.
	split := func(t *testing.T, p *place, compDir string) (dwo string) {
		t.Helper()
		dir := p.TempDir()
		const script = `cd "$1"; cat >program.c; gcc -O1 -gdwarf-4 -gsplit-dwarf -fdebug-prefix-map="$1"="$2" -c program.c
gcc -Wl,--build-id=0x$3 -o "$4" program.o; strip -o "$5" "$4"; ls *.dwo`
		run(t, source, "sh", "-ec", script, "sh", dir, compDir, buildID, p.whole, p.at(p.program))
		return filepath.Join(dir, "program.dwo")
	}
	t.Run("units", func(t *testing.T) {
		p := build(t)
		dwo := split(t, p, "/build/src")
		for _, at := range []string{"/build/src/program.dwo", "/opt/bin/program.dwo"} {
			p.put(debugAt)
			p.mkdir(at)
			run(t, "", "cp", dwo, p.at(at))
			found := p.find(Config{})
			found.want(t, SourceBuildID, debugAt)
			for _, name := range []string{"program.dwo", "./program.dwo", at, "../../opt/bin/../.." + at} {
				o, done, err := found.OpenDWO(name, "/build/src")
				if err != nil {
					t.Errorf("%s: %v", name, err)
					continue
				}
				if !hasSection(o, "debug_info.dwo") {
					t.Errorf("%s is something else", name)
				}
				done()
			}
			if err := os.Remove(p.at(at)); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("hostile units", func(t *testing.T) {
		p := build(t)
		dwo := split(t, p, "/build/src")
		p.put(debugAt)
		p.link(dwo, "/build/src/out.dwo")
		if err := unix.Mkfifo(p.at("/build/src/fifo.dwo"), 0o600); err != nil {
			t.Fatal(err)
		}
		run(t, "", "cp", p.whole, p.at("/build/src/program.dwo"))
		found := p.find(Config{})
		for _, name := range []string{"out.dwo", "fifo.dwo", "program.dwo", ".", "/", "", "none", "a\nb", dwo, strings.Repeat("../", 20) + dwo} {
			if _, done, err := found.OpenDWO(name, "/build/src"); err == nil {
				t.Errorf("%q was opened", name)
				done()
			}
		}
		if _, _, err := found.OpenDWO("none", "/build/src"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("of no file: %v", err)
		}
	})
	for _, at := range []string{"/opt/bin/program.dwp", debugAt + ".dwp", strings.TrimSuffix(debugAt, ".debug") + ".dwp"} {
		t.Run("package "+at, func(t *testing.T) {
			p := build(t)
			dwo := split(t, p, "/build/src")
			p.put(debugAt)
			p.mkdir(at)
			run(t, "", "dwp", "-o", p.at(at), dwo)
			found := p.find(Config{})
			if found.Package == nil || found.Package.Path != at || !hasSection(found.Package.Object, "debug_info.dwo") {
				t.Errorf("found %+v, %v", found.Package, found.Missing)
			}
		})
	}
}

// TestFetched finds a debug file after a server was asked for what was missing.
func TestFetched(t *testing.T) {
	p := build(t)
	p.put("/served")
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/buildid/"+buildID+"/debuginfo" {
			t.Errorf("asked for %s", r.URL.Path)
		}
		http.ServeFile(w, r, p.at("/served"))
	}))
	defer s.Close()
	client, err := debuginfod.New(debuginfod.Config{URLs: []string{s.URL}, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	found := p.find(Config{Cache: client})
	found.wantMiss(t, ReasonAbsent, buildID)
	for _, id := range found.Wanted {
		file, err := client.Fetch(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		file.Close()
	}
	if found = p.find(Config{Cache: client}); found.Debug == nil || found.Debug.Source != SourceDebuginfod || found.Symbols != found.Debug {
		t.Errorf("found %+v, %v", found.Debug, found.Missing)
	}
}
