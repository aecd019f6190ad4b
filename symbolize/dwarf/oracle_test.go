// SPDX-License-Identifier: Apache-2.0

package dwarf

import (
	"bufio"
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/stack"
)

// frame is what both sides say of one address and depth.
type frame struct {
	name, place string
}

// need returns the paths of tools, and skips the test if one is not installed.
func need(t testing.TB, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed (TEST_PACKAGES of the Makefile has it)", tool)
		}
	}
}

// run runs a command in dir and returns its output.
func run(t testing.TB, dir string, command ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, command[0], command[1:]...)
	c.Dir = dir
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", command, err, stderr.Bytes())
	}
	return out
}

// symbols returns the functions of a file, sorted.
func symbols(t *testing.T, path string) []elf.Symbol {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	all = slices.DeleteFunc(all, func(s elf.Symbol) bool {
		return elf.ST_TYPE(s.Info) != elf.STT_FUNC || s.Section == elf.SHN_UNDEF || s.Size == 0
	})
	sort.SliceStable(all, func(i, j int) bool { return all[i].Value < all[j].Value })
	return all
}

// addresses returns up to n addresses spread over the functions.
func addresses(funcs []elf.Symbol, n int) []uint64 {
	var total uint64
	for _, s := range funcs {
		total += s.Size
	}
	step := max(total/uint64(n), 1)
	var addrs []uint64
	at := uint64(0)
	for _, s := range funcs {
		for ; at < s.Size; at += step {
			addrs = append(addrs, s.Value+at)
		}
		at -= s.Size
	}
	return addrs
}

// llvm returns what llvm-symbolizer says.
func llvm(t *testing.T, path string, addrs []uint64) [][]frame {
	t.Helper()
	var in bytes.Buffer
	for _, a := range addrs {
		fmt.Fprintf(&in, "%#x\n", a)
	}
	c := exec.Command("llvm-symbolizer-19", "--no-demangle", "--inlines", "--obj="+path)
	c.Stdin = &in
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all [][]frame
	var one []frame
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		name := lines.Text()
		if name == "" {
			all, one = append(all, one), nil
			continue
		}
		lines.Scan()
		place := lines.Text()
		one = append(one, frame{name, place[:strings.LastIndexByte(place, ':')]})
	}
	if len(all) != len(addrs) {
		t.Fatalf("llvm-symbolizer answered %d of %d", len(all), len(addrs))
	}
	return all
}

// ours returns what the reader says.
func ours(t *testing.T, d *Data, addrs []uint64) [][]frame {
	t.Helper()
	all := make([][]frame, len(addrs))
	err := d.Units(func(u *Unit) error {
		checkUnit(t, u)
		for i, a := range addrs {
			if all[i] == nil {
				all[i] = flatten(u, stack.LinkAddr(a))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if d.Bad() != 0 {
		t.Errorf("%d bad units: %v", d.Bad(), d.BadErr())
	}
	return all
}

// checkUnit checks what unit.go promises.
func checkUnit(t testing.TB, u *Unit) {
	t.Helper()
	for i, r := range u.Lines {
		if i > 0 && r.Addr < u.Lines[i-1].Addr || int(r.File) >= len(u.Files) {
			t.Fatalf("row %d of %d: %+v", i, len(u.Lines), r)
		}
	}
	for i, s := range u.Scopes {
		if int(s.Parent) >= i || s.Parent < -1 || int(s.CallFile) >= len(u.Files) || int(s.DeclFile) >= len(u.Files) || len(s.Ranges) == 0 {
			t.Fatalf("scope %d: %+v", i, s)
		}
		for _, r := range s.Ranges {
			if r.Begin >= r.End {
				t.Fatalf("scope %d: %+v", i, s)
			}
		}
	}
	if len(u.Files) == 0 || u.Files[0] != "" {
		t.Fatalf("files: %q", u.Files)
	}
}

func covers(s *Scope, a stack.LinkAddr) bool {
	return slices.ContainsFunc(s.Ranges, func(r Range) bool { return a >= r.Begin && a < r.End })
}

// flatten returns the frames at an address, innermost first; nil if u does not have it.
func flatten(u *Unit, a stack.LinkAddr) []frame {
	place := func(file, line uint32) string {
		if u.Files[file] == "" {
			return "??:" + strconv.Itoa(int(line))
		}
		return u.Files[file] + ":" + strconv.Itoa(int(line))
	}
	at := ""
	n := sort.Search(len(u.Lines), func(i int) bool { return u.Lines[i].Addr > a })
	if n > 0 && !u.Lines[n-1].End {
		at = place(u.Lines[n-1].File, u.Lines[n-1].Line)
	}
	inner := int32(-1)
	for i := range u.Scopes {
		s := &u.Scopes[i]
		if (s.Parent < 0 || s.Parent == inner) && covers(s, a) {
			inner = int32(i)
		}
	}
	if inner < 0 {
		if at == "" {
			return nil
		}
		return []frame{{"", at}}
	}
	if at == "" {
		at = "??:0"
	}
	var frames []frame
	for inner >= 0 {
		s := &u.Scopes[inner]
		frames = append(frames, frame{s.Name, at})
		at = place(s.CallFile, s.CallLine)
		inner = s.Parent
	}
	return frames
}

// compare compares frames, and returns how many addresses differ. The name of the
// outermost comes from the symbol table in llvm-symbolizer; where the file has linkage
// names it must also be ours but for what compilers put behind it.
func compare(t *testing.T, addrs []uint64, want, got [][]frame, linkage bool) (differ int) {
	t.Helper()
	for i, a := range addrs {
		w, g := slices.Clone(want[i]), slices.Clone(got[i])
		if len(w) == len(g) && len(g) > 0 {
			out := &g[len(g)-1]
			if !linkage || sameFunction(w[len(w)-1].name, out.name) {
				out.name = w[len(w)-1].name
			}
		}
		if len(w) == 1 && strings.HasSuffix(w[0].place, ":0") && len(g) == 0 {
			continue // code without debug information; the file is the symbol table's
		}
		if !slices.Equal(w, g) {
			differ++
			if differ <= 5 {
				t.Logf("%#x:\nllvm %v\nours %v", a, want[i], got[i])
			}
		}
	}
	return differ
}

// structors are the names of constructors and destructors, of which several may be at
// one address.
var structors = regexp.MustCompile(`[CD][0-5]E`)

// sameFunction reports whether a symbol is of the function with a linkage name, or a
// short one: compilers give none to functions that only one file knows.
func sameFunction(symbol, name string) bool {
	symbol, _, _ = strings.Cut(symbol, ".")
	if !strings.HasPrefix(name, "_Z") {
		return name != "" && (strings.Contains(symbol, name) || strings.HasPrefix(name, "operator"))
	}
	return structors.ReplaceAllString(symbol, "CE") == structors.ReplaceAllString(name, "CE")
}

func open(t testing.TB, path string, c Config) *Data {
	t.Helper()
	o, f, err := objfile.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	c.TempDir = t.TempDir()
	d, err := Open(o, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if left, _ := os.ReadDir(c.TempDir); len(left) != 0 {
			t.Errorf("temporary files left: %v", left)
		}
	})
	return d
}

func openObject(t testing.TB, path string) *objfile.Object {
	t.Helper()
	o, f, err := objfile.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return o
}

// openDWO opens split files as a Config has it.
func openDWO(name, compDir string) (*objfile.Object, func(), error) {
	if !filepath.IsAbs(name) {
		name = filepath.Join(compDir, name)
	}
	o, f, err := objfile.OpenFile(name)
	if err != nil {
		return nil, nil, err
	}
	return o, func() { _ = f.Close() }, nil
}
