// SPDX-License-Identifier: Apache-2.0

package gopclntab

import (
	"bufio"
	"bytes"
	"debug/elf"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/stack"
)

// machines are builds that need not run: both machines we know, whichever this one
// is.
var machines = []build{
	{name: "amd64", arch: "amd64"},
	{name: "arm64", arch: "arm64"},
	{name: "arm64 pie", arch: "arm64", args: []string{"-buildmode=pie"}},
	{name: "shared library", cgo: true, args: []string{"-buildmode=c-shared"}},
}

func forMachines(t *testing.T, test func(t *testing.T, file string, o *objfile.Object, table *Table)) {
	for _, tool := range append(otherReleases(), "go") {
		for _, b := range machines {
			if tool != "go" && b.arch != "" && b.arch != runtime.GOARCH {
				continue
			}
			t.Run(b.name+" "+tool, func(t *testing.T) {
				_, file := b.compile(t, tool)
				o, table := openFile(t, file)
				test(t, file, o, table)
			})
		}
	}
}

func TestAgreesWithSymbols(t *testing.T) {
	forMachines(t, func(t *testing.T, _ string, o *objfile.Object, table *Table) {
		syms, err := o.Symbols(objfile.SymTab)
		if err != nil {
			t.Fatal(err)
		}
		start, end := table.Text()
		seen := 0
		err = syms.All(func(_ int, s objfile.Symbol) bool {
			name, err := syms.Name(s.Name)
			if err != nil {
				t.Fatal(err)
			}
			if s.Type != elf.STT_FUNC || s.Value < start || s.Value >= end || name == "runtime.etext" || name == "runtime.text" {
				return true
			}
			seen++
			f, ok, err := table.FuncAt(s.Value)
			// The symbol tells an assembly function's ABI, the table does not.
			want, got := strings.TrimSuffix(name, ".abi0"), strings.ReplaceAll(table.Name(f), "·", ".")
			if !ok || err != nil || f.Entry != s.Value || got != want && got != shorten(want) {
				t.Errorf("FuncAt(%#x) = %q at %#x, %v, %v; want %q", s.Value, got, f.Entry, ok, err, want)
			}
			if f.End < s.Value+stack.LinkAddr(s.Size) {
				t.Errorf("%s ends at %#x, its symbol at %#x", name, f.End, s.Value+stack.LinkAddr(s.Size))
			}
			return true
		})
		if err != nil || seen < table.NumFuncs()-10 {
			t.Errorf("%d symbols, %d functions, %v", seen, table.NumFuncs(), err)
		}
	})
}

// The linker writes the stack deltas to .debug_frame too.
func TestSPDeltasAgreeWithDebugFrame(t *testing.T) {
	if _, err := exec.LookPath("readelf"); err != nil {
		t.Skip("no readelf to tell the contents of .debug_frame")
	}
	forMachines(t, func(t *testing.T, file string, o *objfile.Object, table *Table) {
		out, err := exec.Command("readelf", "--debug-dump=frames-interp", file).Output()
		if err != nil {
			t.Fatal(err)
		}
		atEntry := int32(0) // distance from the stack pointer to the CFA there
		if o.Machine == elf.EM_X86_64 {
			atEntry = 8
		}
		start, end := table.Text()
		rows, wrong := 0, 0
		for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
			var addr uint64
			var reg string
			var off int32
			line := strings.Replace(s.Text(), "+", " ", 1)
			n, _ := fmt.Sscanf(line, "%x %s %d", &addr, &reg, &off)
			if n != 3 || reg != "rsp" && reg != "sp" || addr < uint64(start) || addr >= uint64(end) {
				continue // other code, or the common part, whose address is 0
			}
			rows++
			delta, ok := spDelta(t, table, stack.LinkAddr(addr))
			if !ok || delta+atEntry != off {
				if wrong++; wrong < 5 {
					t.Errorf("delta at %#x = %d, %v; .debug_frame says CFA=%s+%d", addr, delta, ok, reg, off)
				}
			}
		}
		if wrong > 0 || rows < 5000 {
			t.Errorf("%d of %d rows differ", wrong, rows)
		}
		t.Logf("%d rows", rows)
	})
}

func spDelta(t *testing.T, table *Table, pc stack.LinkAddr) (delta int32, found bool) {
	t.Helper()
	f, ok, err := table.FuncAt(pc)
	if !ok || err != nil {
		t.Fatalf("FuncAt(%#x): %v, %v", pc, ok, err)
	}
	begin := f.Entry
	err = table.SPDeltas(f, func(end stack.LinkAddr, d int32) bool {
		if end <= begin || end > f.End {
			t.Errorf("deltas of %s: end %#x after %#x", table.Name(f), end, begin)
		}
		delta, found, begin = d, pc < end, end
		return !found
	})
	if err != nil {
		t.Fatal(err)
	}
	return delta, found
}

// DWARF tells inlined calls too, and can be asked about machines that this is not.
func TestAgreesWithDWARF(t *testing.T) {
	tool := "llvm-symbolizer"
	for _, name := range []string{"llvm-symbolizer-19", "llvm-symbolizer-16"} {
		if _, err := exec.LookPath(tool); err != nil {
			tool = name
		}
	}
	if _, err := exec.LookPath(tool); err != nil {
		t.Skip("no llvm-symbolizer to read DWARF")
	}
	forMachines(t, func(t *testing.T, file string, o *objfile.Object, table *Table) {
		addrs := addresses(t, table, 4000)
		var in bytes.Buffer
		for _, addr := range addrs {
			fmt.Fprintf(&in, "%#x\n", addr)
		}
		cmd := exec.Command(tool, "--obj="+file, "--inlines", "--no-demangle")
		cmd.Stdin = &in
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		answers := strings.Split(strings.TrimSpace(string(out)), "\n\n")
		if len(answers) != len(addrs) {
			t.Fatalf("%d answers for %d addresses", len(answers), len(addrs))
		}
		wrong := 0
		for i, addr := range addrs {
			got, err := table.Lines(addr)
			if err != nil {
				t.Fatalf("Lines(%#x): %v", addr, err)
			}
			want := strings.Split(answers[i], "\n")
			f, _, err := table.FuncAt(addr)
			if err != nil {
				t.Fatal(err)
			}
			switch { // DWARF has wrappers, or once lacked them, and knows nothing about padding
			case want[0] == "??" || want[0] == "go:textfipsstart" || f.ID == table.wrapper && f.StartLine == 0:
				continue
			case f.ID == table.wrapper && len(want) > 2:
				want = want[:len(want)-2]
			}
			if !sameAsDWARF(got, want) {
				if wrong++; wrong < 5 {
					t.Logf("at %#x: %+v, DWARF says\n%s", addr, got, answers[i])
				}
			}
		}
		// The line tables of DWARF are made from more, and merged in other ways.
		if wrong > len(addrs)/1000 {
			t.Errorf("%d of %d addresses differ", wrong, len(addrs))
		}
	})
}

// sameAsDWARF compares with pairs of lines, function and file:line:column.
func sameAsDWARF(got []Line, out []string) bool {
	if len(out) != 2*len(got) {
		return false
	}
	for i, l := range got {
		name, where := strings.TrimSuffix(out[2*i], ".abi0"), fmt.Sprintf("%s:%d:", l.File, l.Line)
		// DWARF takes <autogenerated> for a relative path.
		if got := strings.ReplaceAll(l.Func, "·", "."); got != name && got != shorten(name) || !strings.HasPrefix(out[2*i+1], where) && !strings.HasPrefix(l.File, "<") {
			return false
		}
	}
	return true
}
