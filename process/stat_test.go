// SPDX-License-Identifier: Apache-2.0

package process

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lowflame/lowflame/stack"
)

func statLine(comm string) string {
	return "4242 (" + comm + ") S 17 4242 4242 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 3 0 98765 1000 200 18446744073709551615 1 1 0"
}

func TestParseStat(t *testing.T) {
	for _, tt := range []struct{ name, comm, want string }{
		{"plain", "cat", "cat"},
		{"spaces and parentheses", "a) R 1", "a) R 1"},
		{"line feed and no UTF-8", "a) R 1\n\xff", "a) R 1\n\xff"},
		{"empty", "", ""},
		{"only parentheses", ")(", ")("},
		{"too long for any kernel", strings.Repeat("x", 200), strings.Repeat("x", maxComm)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseStat([]byte(statLine(tt.comm)))
			want := stat{Comm: tt.want, State: 'S', PPID: 17, Flags: 4194560, Threads: 3, Start: 98765}
			if err != nil || got != want {
				t.Errorf("parseStat = %+v, %v; want %+v", got, err, want)
			}
		})
	}
	for _, bad := range []string{"", "1 (x", "1 (x) S 1", "1 )x(", strings.Replace(statLine("x"), "98765", "-5", 1)} {
		if got, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("parseStat(%q) = %+v", bad, got)
		}
	}
}

func TestParseStatSelf(t *testing.T) {
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	s, err := parseStat(b)
	if err != nil || s.dead() || s.PPID != uint32(os.Getppid()) || s.Start == 0 || s.Threads == 0 {
		t.Errorf("own stat: %+v, %v", s, err)
	}
}

func TestParseNSPID(t *testing.T) {
	for in, want := range map[string]uint32{
		"Name:\tx\nTgid:\t9\nNSpid:\t9\t3\t1\nVmPeak: 1\n": 1,
		"NSpid:\t77\n":                   77,
		"NSpid:\n":                       0,
		"NSpid:\tx\n":                    0,
		"Name:\tx\n":                     0,
		"":                               0,
		"NSpid:\t99999999999999999999\n": 0,
	} {
		got, ok := parseNSPID([]byte(in))
		if !ok {
			got = 0
		}
		if got != want || ok != (want != 0) {
			t.Errorf("parseNSPID(%q) = %d, %v", in, got, ok)
		}
	}
}

func FuzzStat(f *testing.F) {
	f.Add([]byte(statLine("cat")))
	f.Add([]byte(statLine("a) R 1\n\xff")))
	f.Add([]byte("NSpid:\t9\t1\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseStat(b); err == nil && len(s.Comm) > maxComm {
			t.Errorf("name of %d bytes", len(s.Comm))
		}
		parseNSPID(b)
	})
}

func TestFindMapping(t *testing.T) {
	p := Process{Mappings: []Mapping{{Begin: 10, End: 20}, {Begin: 20, End: 30}, {Begin: 40, End: 50}}}
	got := map[uint64]int{}
	for addr := range uint64(60) {
		if m := p.Find(stack.Addr(addr)); m != nil {
			got[uint64(m.Begin)]++
		}
	}
	if d := cmp.Diff(map[uint64]int{10: 10, 20: 10, 40: 10}, got); d != "" {
		t.Error(d)
	}
}
