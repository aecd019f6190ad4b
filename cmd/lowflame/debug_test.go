// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lowflame/lowflame/internal/readelf"
	"github.com/lowflame/lowflame/unwind"
)

var update = flag.Bool("update", false, "write the golden files anew")

// fixture assembles and links a file of testdata at fixed addresses.
func fixture(t *testing.T, name, prefix string) string {
	t.Helper()
	dir := t.TempDir()
	obj, exe := filepath.Join(dir, name+".o"), filepath.Join(dir, name)
	for _, args := range [][]string{
		{prefix + "as", "-o", obj, filepath.Join("testdata", name+".s")},
		{prefix + "ld", "-o", exe, "-Ttext=0x401000", "--build-id=0x0123456789abcdef", "--eh-frame-hdr", obj},
	} {
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			if errors.Is(err, exec.ErrNotFound) {
				t.Skipf("%s is not installed", args[0])
			}
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
	return exe
}

// TestUnwindTable: what is printed of small files is as it should be.
func TestUnwindTable(t *testing.T) {
	for name, prefix := range map[string]string{"rows_x86": "x86_64-linux-gnu-", "rows_arm64": "aarch64-linux-gnu-"} {
		t.Run(name, func(t *testing.T) {
			exe := fixture(t, name, prefix)
			var out, warn bytes.Buffer
			if err := (unwindTableCmd{File: exe}).print(&out, &warn); err != nil || warn.Len() > 0 {
				t.Fatalf("%v, warnings %q", err, warn.String())
			}
			got := strings.TrimPrefix(out.String(), exe+": ")
			golden := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("differs from %s (-want +got):\n%s", golden, d)
			}
		})
	}
}

// TestUnwindTablePC: the row in force at an address, and what is said where there
// is none.
func TestUnwindTablePC(t *testing.T) {
	exe := fixture(t, "rows_x86", "x86_64-linux-gnu-")
	at := func(pc hexAddr) (string, error) {
		var out bytes.Buffer
		err := unwindTableCmd{File: exe, PC: &pc}.print(&out, io.Discard)
		return out.String(), err
	}
	out, err := at(0x401013)
	if want := "usual+0x3 "; err != nil || !strings.Contains(out, want) || !strings.Contains(out, "\n0000000000401011 rsp+16   c-16  c-8\n") || strings.Count(out, "\n") != 4 {
		t.Errorf("at 0x401013: %v, %q; want %q and one row", err, out, want)
	}
	for _, pc := range []hexAddr{0, 0x401fff, 1<<64 - 1} {
		if out, err := at(pc); err == nil || out != "" || !strings.Contains(err.Error(), exe) {
			t.Errorf("at %#x: %q, error %v", pc, out, err)
		}
	}
}

// TestUnwindTableExit: exit codes, and errors that name what they are about.
func TestUnwindTableExit(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("no ELF file, but long enough to be one: "+strings.Repeat("x", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := exec.CommandContext(t.Context(), "mkfifo", fifo).Run(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		code int
	}{
		{[]string{text}, exitError},
		{[]string{fifo}, exitError},
		{[]string{dir}, exitError},
		{[]string{filepath.Join(dir, "missing")}, exitError},
		{[]string{}, exitUsage},
		{[]string{text, "--pc", "main"}, exitUsage},
	} {
		if code := run(append([]string{"debug", "unwind-table"}, tt.args...)); code != tt.code {
			t.Errorf("%q: exit code %d, want %d", tt.args, code, tt.code)
		}
		if tt.code == exitError {
			err := unwindTableCmd{File: tt.args[0]}.print(io.Discard, io.Discard)
			if err == nil || !strings.Contains(err.Error(), tt.args[0]) {
				t.Errorf("%q: error %v", tt.args, err)
			}
		}
	}
}

// printedRow is a row that was printed.
type printedRow struct {
	pc   uint64
	text unwind.RowText
	fn   string
}

// printed prints the table of a file and reads that.
func printed(t *testing.T, path string) []printedRow {
	t.Helper()
	var out bytes.Buffer
	if err := (unwindTableCmd{File: path}).print(&out, io.Discard); err != nil {
		t.Fatal(err)
	}
	var rows []printedRow
	fn := ""
	sc := bufio.NewScanner(&out)
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) == 0 {
			if sc.Scan() {
				fn, _, _ = strings.Cut(sc.Text(), " pc=")
			}
			continue
		}
		pc, err := strconv.ParseUint(f[0], 16, 64)
		if err != nil || len(f) != 4 {
			continue
		}
		rows = append(rows, printedRow{pc, unwind.RowText{CFA: f[1], FP: f[2], RA: f[3]}, fn})
	}
	return rows
}

// TestUnwindTableReadelf: every row that readelf prints of real libraries is
// printed, as readelf prints it where readelf says all.
func TestUnwindTableReadelf(t *testing.T) {
	for _, path := range []string{"/usr/lib/x86_64-linux-gnu/libc.so.6", "/usr/aarch64-linux-gnu/lib/libc.so.6"} {
		t.Run(path, func(t *testing.T) {
			if _, err := os.Stat(path); err != nil {
				t.Skipf("%s is not installed", path)
			}
			got := printed(t, path)
			want, err := readelf.Rows(t.Context(), path, ".eh_frame")
			if err != nil {
				t.Fatal(err)
			}
			if len(want) < 10_000 || len(got) < 5_000 {
				t.Fatalf("%d rows printed, %d by readelf", len(got), len(want))
			}
			bad, spelled := 0, 0
			for _, w := range want {
				i := sort.Search(len(got), func(i int) bool { return got[i].pc > w.PC }) - 1
				if i < 0 {
					t.Fatalf("nothing is printed of %#x", w.PC)
				}
				g := got[i].text
				if g == (unwind.RowText{CFA: w.CFA, FP: w.FP, RA: w.RA}) {
					continue
				}
				if w.CFA == "exp" && strings.ContainsAny(g.CFA, "*&") || w.RA == "u" && g.CFA == "end" || g.CFA == "signal" || g.CFA == "lost" {
					spelled++
					continue
				}
				if bad++; bad < 10 {
					t.Errorf("at %#x: printed %+v, readelf has %+v", w.PC, got[i], w)
				}
			}
			if bad > 0 || spelled > len(want)/100 {
				t.Errorf("of %d rows %d differ, %d are spelled otherwise", len(want), bad, spelled)
			}
		})
	}
}

// TestUnwindTableGo: the rows of a Go program, of which this is one, have the names
// of its functions.
func TestUnwindTableGo(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cfa := map[string]string{}
	for _, r := range printed(t, self) {
		cfa[r.fn] += " " + r.text.CFA
	}
	for fn, want := range map[string]string{
		"runtime.goexit":      "end",
		"runtime.systemstack": "fpjump",
		"github.com/lowflame/lowflame/cmd/lowflame.TestUnwindTableGo": "sp",
	} {
		if !strings.Contains(cfa[fn], want) {
			t.Errorf("%s has the CFAs%s, want %s", fn, cfa[fn], want)
		}
	}
}
