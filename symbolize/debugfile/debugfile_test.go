// SPDX-License-Identifier: Apache-2.0

package debugfile

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/internal/testutil"
	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/symbolize"
)

const (
	source = "static __attribute__((noinline)) int hidden(int x) { return x * x; }\n" +
		"int main(int n, char **v) { (void)v; return hidden(n); }\n"
	buildID = "0123456789abcdef0123456789abcdef01234567"
	debugAt = "/usr/lib/debug/.build-id/01/23456789abcdef0123456789abcdef01234567.debug"
)

func run(t testing.TB, stdin string, command ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", command, err, out)
	}
}

// place is a root directory with a program that was built for it.
type place struct {
	testing.TB
	root    string
	whole   string // the program with all that was built, outside of root
	object  *objfile.Object
	program string // below root
}

// build makes a program, strips it as distributions do, and puts it in a new root.
// Of the link options the last build ID counts.
func build(t testing.TB, options ...string) *place {
	t.Helper()
	p := &place{TB: t, root: t.TempDir(), whole: filepath.Join(t.TempDir(), "whole"), program: "/opt/bin/program"}
	args := []string{"gcc", "-O1", "-g", "-xc", "-o", p.whole, "-", "-Wl,--build-id=0x" + buildID}
	run(t, source, append(args, options...)...)
	p.mkdir(p.program)
	run(t, "", "strip", "-o", p.at(p.program), p.whole)
	return p
}

func (p *place) at(path string) string { return p.root + path }

func (p *place) mkdir(path string) {
	p.Helper()
	if err := os.MkdirAll(filepath.Dir(p.at(path)), 0o755); err != nil {
		p.Fatal(err)
	}
}

// put puts what objcopy takes out of the whole program at a path.
func (p *place) put(path string) {
	p.Helper()
	p.mkdir(path)
	run(p, "", "objcopy", "--only-keep-debug", p.whole, p.at(path))
}

func (p *place) link(target, path string) {
	p.Helper()
	p.mkdir(path)
	if err := os.Symlink(target, p.at(path)); err != nil {
		p.Fatal(err)
	}
}

// open opens the program as it is now.
func (p *place) open() *objfile.Object {
	p.Helper()
	if p.object == nil {
		p.object = testutil.OpenObject(p, p.at(p.program))
	}
	return p.object
}

func openObject(t testing.TB, path string) (*objfile.Object, *os.File) {
	t.Helper()
	o, handle, err := objfile.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return o, handle
}

// find looks for what belongs to the program, in its root and, as that of a host, in
// others.
func (p *place) find(c Config, hosts ...string) *Found {
	p.Helper()
	found := New(c).Find(p.open(), p.program, append([]string{p.root}, hosts...))
	p.Cleanup(func() {
		if err := found.Close(); err != nil {
			p.Error(err)
		}
	})
	return found
}

// want checks what was found, by its place.
func (f *Found) want(t testing.TB, source Source, path string) {
	t.Helper()
	if f.Debug == nil {
		t.Errorf("no DWARF found; %v", f.Missing)
		return
	}
	if f.Debug.Source != source || f.Debug.Path != path || !hasSection(f.Debug.Object, "debug_info") {
		t.Errorf("DWARF from %v at %s, want %v at %s", f.Debug.Source, f.Debug.Path, source, path)
	}
	if f.Symbols != f.Debug {
		t.Errorf("symbols are %+v, want those of the file with DWARF", f.Symbols)
	}
}

// wantMiss checks that nothing was found, and why not at a place.
func (f *Found) wantMiss(t testing.TB, reason Reason, place string) {
	t.Helper()
	if f.Debug != nil || f.Symbols != nil {
		t.Errorf("found %+v, %+v", f.Debug, f.Symbols)
	}
	if !slices.ContainsFunc(f.Missing, func(m Miss) bool { return m.Reason == reason && strings.HasSuffix(m.Place, place) }) {
		t.Errorf("want %v of %s in %v", reason, place, f.Missing)
	}
}

func TestFind(t *testing.T) {
	t.Run("in the file itself", func(t *testing.T) {
		p := build(t)
		p.object = testutil.OpenObject(t, p.whole)
		p.find(Config{}).want(t, SourceSelf, p.program)
	})
	t.Run("by build ID", func(t *testing.T) {
		p := build(t)
		p.put(debugAt)
		found := p.find(Config{})
		found.want(t, SourceBuildID, debugAt)
		if !found.Debug.Foreign {
			t.Error("what lies in a root of its own is taken for the host's")
		}
	})
	t.Run("by build ID on the host", func(t *testing.T) {
		p, host := build(t), build(t)
		host.put(debugAt)
		found := p.find(Config{}, host.root)
		found.want(t, SourceBuildID, debugAt)
		if found.Debug.Root != host.root {
			t.Errorf("in %s", found.Debug.Root)
		}
	})
	t.Run("in the root of the container first", func(t *testing.T) {
		p, host := build(t), build(t)
		host.put(debugAt)
		p.put(debugAt)
		if found := p.find(Config{}, host.root); found.Debug == nil || found.Debug.Root != p.root {
			t.Errorf("found %+v", found.Debug)
		}
	})
	t.Run("in an extra directory", func(t *testing.T) {
		p := build(t)
		p.put(strings.TrimPrefix(debugAt, "/usr/lib/debug"))
		extra := p.root
		p.root = t.TempDir()
		p.object = testutil.OpenObject(t, extra+p.program)
		found := p.find(Config{Extra: []string{extra}})
		found.want(t, SourceBuildID, strings.TrimPrefix(debugAt, "/usr/lib/debug"))
	})
	t.Run("nowhere", func(t *testing.T) {
		found := build(t).find(Config{})
		found.wantMiss(t, ReasonAbsent, debugAt)
		if !slices.Equal(found.Wanted, []string{buildID}) {
			t.Errorf("wanted from a server: %v", found.Wanted)
		}
	})
	t.Run("of another build", func(t *testing.T) {
		p, other := build(t), build(t, "-Wl,--build-id=0x"+strings.Repeat("77", 20))
		p.mkdir(debugAt)
		run(t, "", "cp", other.whole, p.at(debugAt))
		p.find(Config{}).wantMiss(t, ReasonOther, debugAt)
	})
	t.Run("a stripped copy does not hide the right one", func(t *testing.T) {
		p, host := build(t), build(t)
		p.mkdir(debugAt)
		run(t, "", "cp", p.at(p.program), p.at(debugAt))
		host.put(debugAt)
		if found := p.find(Config{}, host.root); found.Debug == nil || found.Debug.Root != host.root {
			t.Errorf("found %+v", found)
		}
	})
	t.Run("one with symbols alone does not hide that with DWARF", func(t *testing.T) {
		p, host := build(t), build(t)
		p.put(debugAt)
		run(t, "", "strip", "-g", p.at(debugAt))
		host.put(debugAt)
		found := p.find(Config{}, host.root)
		if found.Debug == nil || found.Debug.Root != host.root || found.Symbols == nil || found.Symbols.Root != p.root {
			t.Errorf("found %+v", found)
		}
	})
}

func TestDebugLink(t *testing.T) {
	noID := "-Wl,--build-id=none"
	link := func(p *place, name string) { // objcopy wants the file to be there
		dir := filepath.Dir(name)
		run(p, "", "sh", "-ec", `mkdir -p "$1/$2"; cd "$1"; objcopy --only-keep-debug "$3" "$4"; objcopy --add-gnu-debuglink="$4" "$5"; rm "$4"`,
			"sh", p.TempDir(), dir, p.whole, name, p.at(p.program))
	}
	for _, at := range []string{"/opt/bin/program.debug", "/opt/bin/.debug/program.debug", "/usr/lib/debug/opt/bin/program.debug"} {
		t.Run(at, func(t *testing.T) {
			p := build(t)
			link(p, "program.debug")
			p.put(at)
			p.find(Config{}).want(t, SourceLink, at)
		})
		t.Run("checksum "+at, func(t *testing.T) {
			p := build(t, noID)
			link(p, "program.debug")
			p.put(at)
			p.find(Config{}).want(t, SourceLink, at)
			run(t, "", "sh", "-c", `printf x >>"$1"`, "sh", p.at(at))
			p.find(Config{}).wantMiss(t, ReasonOther, at)
		})
	}
	t.Run("a file too large for its checksum", func(t *testing.T) {
		p := build(t, noID)
		link(p, "program.debug")
		p.put("/opt/bin/program.debug")
		p.find(Config{MaxCRCBytes: 100}).wantMiss(t, ReasonTooLarge, "/opt/bin/program.debug")
	})
	t.Run("a build ID that differs, with a checksum that does not", func(t *testing.T) {
		p := build(t, "-Wl,--build-id=0x"+strings.Repeat("77", 20))
		link(p, "program.debug")
		p.put("/opt/bin/program.debug")
		stripped := build(t)
		section := filepath.Join(t.TempDir(), "link")
		run(t, "", "objcopy", "--dump-section", ".gnu_debuglink="+section, p.at(p.program), "/dev/null")
		run(t, "", "objcopy", "--add-section", ".gnu_debuglink="+section, stripped.at(stripped.program))
		stripped.mkdir("/opt/bin/program.debug")
		run(t, "", "cp", p.at("/opt/bin/program.debug"), stripped.at("/opt/bin/program.debug"))
		stripped.find(Config{}).wantMiss(t, ReasonOther, "/opt/bin/program.debug")
	})
}

// TestLinkName gives a program names of debug files that no objcopy writes.
func TestLinkName(t *testing.T) {
	for name, want := range map[string]string{
		"sub/dir/p.debug":                 "/opt/bin/sub/dir/p.debug",
		"../lib/p.debug":                  "/opt/lib/p.debug",
		"/srv/p.debug":                    "/srv/p.debug",
		"../../../../../../../etc/p.dbg":  "/etc/p.dbg",
		"":                                "",
		strings.Repeat("a", 5000):         "",
		strings.Repeat("../", 1300) + "p": "/p",
	} {
		p := build(t)
		section := filepath.Join(t.TempDir(), "link")
		padded := append([]byte(name), make([]byte, 4-len(name)%4)...)
		if err := os.WriteFile(section, append(padded, 1, 2, 3, 4), 0o600); err != nil {
			t.Fatal(err)
		}
		run(t, "", "objcopy", "--add-section", ".gnu_debuglink="+section, p.at(p.program))
		if want == "" {
			found := p.find(Config{})
			if found.Debug != nil || len(found.Missing) == 0 {
				t.Errorf("%.20q: found %+v, %v", name, found.Debug, found.Missing)
			}
			continue
		}
		p.put(want)
		if found := p.find(Config{}); found.Debug == nil {
			t.Errorf("%.20q: not found: %v", name, found.Missing)
		}
	}
}

// TestSymbols names a function of a stripped program by what was stripped.
func TestSymbols(t *testing.T) {
	p := build(t)
	whole := testutil.OpenObject(t, p.whole)
	hidden := addressOf(t, whole, "hidden")
	f := New(Config{})
	found := f.Symbols(whole, p.program, []string{p.root})
	if found.Symbols == nil || found.Symbols.Source != SourceSelf || found.Symbols.Handle != nil || len(found.Missing) != 0 {
		t.Errorf("of a program with symbols: %+v", found)
	}
	p.put(debugAt)
	found = f.Symbols(p.open(), p.program, []string{p.root})
	defer found.Close()
	if found.Symbols == nil || found.Symbols.Handle == nil {
		t.Fatalf("of one without: %+v", found)
	}
	s := symbolize.New(symbolize.Config{})
	if lines := s.User(&symbolize.Binary{ID: "bare", Object: p.object}, hidden); lines != nil {
		t.Errorf("without the debug file: %+v", lines)
	}
	lines := s.User(&symbolize.Binary{ID: "program", Object: p.object, Debug: found.Symbols.Object}, hidden)
	if len(lines) != 1 || lines[0].Name != "hidden" {
		t.Errorf("with the debug file: %+v, want hidden", lines)
	}
	if got := f.Stats().Found; got[SourceSelf] != 1 || got[SourceBuildID] != 1 {
		t.Errorf("counted %v", got)
	}
}

func addressOf(t *testing.T, o *objfile.Object, name string) (addr stack.LinkAddr) {
	t.Helper()
	syms, err := o.Symbols(objfile.SymTab)
	if err != nil {
		t.Fatal(err)
	}
	err = syms.All(func(_ int, s objfile.Symbol) bool {
		if got, err := syms.Name(s.Name); err == nil && got == name {
			addr = s.Value
		}
		return true
	})
	if err != nil || addr == 0 {
		t.Fatalf("no symbol %s: %v", name, err)
	}
	return addr
}

// TestRoots looks at when a container's word is taken for what belongs to a file.
func TestRoots(t *testing.T) {
	file, err := os.Open("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if got := Roots("/proc", 1, "/bin/sh", file); !slices.Equal(got, []string{"/"}) {
		t.Errorf("of a file of the host: %v", got)
	}
	if got := Roots("/proc", 1, "/bin/nothing", file); !slices.Equal(got, []string{"/proc/1/root", "/"}) {
		t.Errorf("of another: %v", got)
	}
}

func TestReasonOf(t *testing.T) {
	for err, want := range map[error]Reason{
		unix.ENOENT: ReasonAbsent, unix.EACCES: ReasonDenied, unix.ELOOP: ReasonDenied, unix.EIO: ReasonRead,
		objfile.ErrNotELF: ReasonMalformed, errors.New("any other"): ReasonRead,
	} {
		if got := reasonOf(err); got != want || got.String() == "unknown" {
			t.Errorf("%v is %v, want %v", err, got, want)
		}
	}
}
