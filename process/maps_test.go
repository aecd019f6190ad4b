// SPDX-License-Identifier: Apache-2.0

package process

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestReadMaps(t *testing.T) {
	file := FileID{Dev: unix.Mkdev(0xfe, 0), Ino: 247026}
	for _, tt := range []struct {
		name, line string
		want       []Mapping
	}{
		{"a program", "559067905000-55906790a000 r-xp 00002000 fe:00 247026                     /usr/bin/cat",
			[]Mapping{{Begin: 0x559067905000, End: 0x55906790a000, Off: 0x2000, Path: "/usr/bin/cat", File: file}}},
		{"data is left out", "559067903000-559067905000 r--p 00000000 fe:00 247026                     /usr/bin/cat", nil},
		{"writable code", "7f00-7f10 rwxp 00000000 00:00 0 ", []Mapping{{Begin: 0x7f00, End: 0x7f10, Kind: KindAnon}}},
		{"named anonymous memory has no offset", "7f00-7f10 r-xp 00000010 00:00 0    [anon:v8]",
			[]Mapping{{Begin: 0x7f00, End: 0x7f10, Kind: KindAnon, Path: "[anon:v8]"}}},
		{"heap", "7f00-7f10 rwxp 00000000 00:00 0    [heap]", []Mapping{{Begin: 0x7f00, End: 0x7f10, Kind: KindAnon, Path: "[heap]"}}},
		{"vdso", "7ffd-7fff r-xp 00000000 00:00 0                          [vdso]",
			[]Mapping{{Begin: 0x7ffd, End: 0x7fff, Kind: KindVDSO, Path: "[vdso]"}}},
		{"vsyscall is not the process's", "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]", nil},
		{"execute-only", "10-20 --xp 00000000 fe:00 247026 /x", []Mapping{{Begin: 0x10, End: 0x20, Path: "/x", File: file}}},
		{"deleted", "10-20 r-xp 00001000 fe:00 247026 /tmp/x (deleted)",
			[]Mapping{{Begin: 0x10, End: 0x20, Off: 0x1000, Path: "/tmp/x", File: file, Deleted: true}}},
		{"a line feed in the name", `10-20 r-xp 00000000 fe:00 247026 /tmp/a\0127f00-7f10 r-xp 0 0:0 0 /etc/shadow`,
			[]Mapping{{Begin: 0x10, End: 0x20, Path: "/tmp/a\n7f00-7f10 r-xp 0 0:0 0 /etc/shadow", File: file}}},
		{"other octal digits are the file's own", `10-20 r-xp 00000000 fe:00 247026 /tmp/a\040b`,
			[]Mapping{{Begin: 0x10, End: 0x20, Path: `/tmp/a\040b`, File: file}}},
		{"not UTF-8, spaces", "10-20 r-xp 00000000 fe:00 247026 /tmp/ \xff  y ",
			[]Mapping{{Begin: 0x10, End: 0x20, Path: "/tmp/ \xff  y ", File: file}}},
		{"memfd", "10-20 r-xs 00000000 fe:00 247026 /memfd:doublemapper (deleted)",
			[]Mapping{{Begin: 0x10, End: 0x20, Kind: KindMemfd, Path: "/memfd:doublemapper", File: file, Deleted: true}}},
		{"shared anonymous", "10-20 r-xs 00000000 fe:00 247026 /dev/zero (deleted)",
			[]Mapping{{Begin: 0x10, End: 0x20, Kind: KindMemfd, Path: "/dev/zero", File: file, Deleted: true}}},
		{"device", "10-20 r-xs 00000000 fe:00 247026 /dev/dri/card0",
			[]Mapping{{Begin: 0x10, End: 0x20, Kind: KindOther, Path: "/dev/dri/card0", File: file}}},
		{"a file in shared memory", "10-20 r-xs 00000000 fe:00 247026 /dev/shm/lib.so",
			[]Mapping{{Begin: 0x10, End: 0x20, Path: "/dev/shm/lib.so", File: file}}},
		{"pages of a JIT join", "10-20 r-xp 00000000 00:00 0 \n20-30 rwxp 00000000 00:00 0 \n40-50 rwxp 00000000 00:00 0 ",
			[]Mapping{{Begin: 0x10, End: 0x30, Kind: KindAnon}, {Begin: 0x40, End: 0x50, Kind: KindAnon}}},
		{"end before begin", "20-10 r-xp 00000000 fe:00 1 /x", nil},
		{"too many digits", "11112222333344445-11112222333344446 r-xp 00000000 fe:00 1 /x", nil},
		{"cut short", "10-20 r-xp 000", nil},
		{"no text", "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, truncated, err := readMaps(strings.NewReader(tt.line + "\n"))
			if err != nil || truncated {
				t.Fatalf("truncated %v, err %v", truncated, err)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// A process that dies while its maps are read: what came before is kept.
func TestReadMapsError(t *testing.T) {
	r := io.MultiReader(strings.NewReader("10-20 r-xp 00000000 fe:00 1 /x\n30-40 r-x"), iotest.ErrReader(unix.ESRCH))
	got, truncated, err := readMaps(r)
	if !errors.Is(err, unix.ESRCH) || !truncated || len(got) != 1 {
		t.Errorf("readMaps = %v, %v, %v", got, truncated, err)
	}
}

func TestReadMapsBounds(t *testing.T) {
	var b strings.Builder
	for i := range 130000 {
		fmt.Fprintf(&b, "%x000-%x800 r-xp 00000000 00:00 0\n", 16+i, 16+i)
	}
	fmt.Fprintf(&b, "7f0000000000-7f0000001000 r-xp 00000000 fe:00 1 /lib/libc.so\n")
	ms, truncated, err := readMaps(strings.NewReader(b.String()))
	if err != nil || !truncated || len(ms) != maxAnon+1 || ms[maxAnon].Path != "/lib/libc.so" {
		t.Errorf("%d mappings, truncated %v, %v; want %d and libc", len(ms), truncated, err, maxAnon)
	}

	b.Reset()
	long := strings.Repeat("x", 4000)
	for i := range 3000 {
		fmt.Fprintf(&b, "%x000-%x800 r-xp 00000000 fe:00 %d /%d%s\n", 16+i, 16+i, i+1, i, long)
	}
	ms, _, err = readMaps(strings.NewReader(b.String()))
	total := 0
	for _, m := range ms {
		total += len(m.Path)
	}
	if err != nil || len(ms) != 3000 || total > maxPathBytes {
		t.Errorf("%d mappings with %d bytes of paths, %v", len(ms), total, err)
	}
	if last := ms[2999]; last.Kind != KindFile || last.File.Ino != 3000 {
		t.Errorf("a file whose path was not kept became %+v", last)
	}

	// No kernel writes such a line; it must not be taken for two.
	ms, _, err = readMaps(strings.NewReader("10-20 r-xp 00000000 fe:00 1 /" + strings.Repeat("30-40 r-xp 00000000 fe:00 1 /x", 2000) +
		"\n50-60 r-xp 00000000 fe:00 2 /y\n"))
	if err != nil || len(ms) != 2 || ms[1].Path != "/y" {
		t.Errorf("long line: %d mappings, %v", len(ms), err)
	}
}

func FuzzMaps(f *testing.F) {
	f.Add([]byte("559067905000-55906790a000 r-xp 00002000 fe:00 247026   /usr/bin/cat\n7ffd-7fff r-xp 0 00:00 0 [vdso]\n"))
	f.Add([]byte("10-20 rwxp 0 00:00 0\n20-30 rwxp 0 00:00 0 (deleted)\n"))
	f.Add([]byte("10-20 r-xs 0 00:05 7 /memfd:a\\012b (deleted)"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ms, _, err := readMaps(strings.NewReader(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		checkSorted(t, ms)
	})
}

func checkSorted(t *testing.T, ms []Mapping) {
	t.Helper()
	for i, m := range ms {
		if m.Begin >= m.End || i > 0 && m.Begin < ms[i-1].End {
			t.Fatalf("mapping %d of %v is out of order", i, ms)
		}
	}
}
