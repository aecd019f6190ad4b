// SPDX-License-Identifier: Apache-2.0

package pprofexport

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/pprof/profile"

	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/symbolize"
)

// source turns fuzz bytes into strings and numbers.
type source struct{ data []byte }

func (s *source) byte() byte {
	if len(s.data) == 0 {
		return 0
	}
	b := s.data[0]
	s.data = s.data[1:]
	return b
}

func (s *source) number() uint64 {
	var b [8]byte
	n := copy(b[:s.byte()%9], s.data)
	s.data = s.data[n:]
	return binary.LittleEndian.Uint64(b[:])
}

func (s *source) text() string {
	n := int(s.byte())
	if n >= 250 {
		return strings.Repeat(string(s.data[:min(1, len(s.data))])+"é", 3000)
	}
	n = min(n, len(s.data))
	out := string(s.data[:n])
	s.data = s.data[n:]
	return out
}

func (s *source) mapping() *Mapping {
	switch s.byte() % 4 {
	case 0:
		return nil
	case 1:
		return KernelMapping(s.text())
	case 2:
		return AnonMapping(s.number(), s.number())
	}
	return &Mapping{Begin: s.number(), End: s.number(), Off: s.number(), File: s.text(), BuildID: s.text(), Main: s.byte()&1 != 0}
}

func (s *source) frame() *Frame {
	f := &Frame{Addr: s.number(), Mapping: s.mapping()}
	for range s.byte() % 4 {
		f.Lines = append(f.Lines, symbolize.Line{
			Name: s.text(), SystemName: s.text(), File: s.text(), Line: int64(s.number()), StartLine: int64(s.number()),
		})
	}
	return f
}

func FuzzBuilder(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("\x01\x05hello\x02\x03\x04abcd\xff\xfe\xfd\x00\x01\x02 a quick seed \n\x00 with bytes"))
	f.Add(bytes.Repeat([]byte{3, 8, 1, 255, 2, 'x', '\n', 0x80}, 60))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := &source{data: data}
		b := NewBuilder(Info{Version: s.text(), Command: []string{s.text()}, NoTruncatedRoot: s.byte()&1 != 0})
		var pool []*Frame
		for n := 0; n < 64 && len(s.data) > 0; n++ {
			var sample Sample
			for range s.byte() % 8 {
				if i := int(s.byte()); i < len(pool) {
					sample.Frames = append(sample.Frames, pool[i])
					continue
				}
				pool = append(pool, s.frame())
				sample.Frames = append(sample.Frames, pool[len(pool)-1])
			}
			sample.Labels = Labels{PID: uint32(s.number()), TID: uint32(s.number()), Comm: s.text(), Thread: s.text(),
				More: []Label{{s.text(), s.text()}}}
			sample.Count, sample.Stop = int64(s.number()), stack.Stop(s.byte())
			b.Add(sample)
		}
		p := finish(t, b, Quality{Drops: map[string]uint64{s.text(): s.number()}})
		checkStrings(t, p)
		if _, err := profile.Merge([]*profile.Profile{p, p}); err != nil && len(p.Sample) > 0 {
			t.Errorf("merge with itself: %v", err)
		}
	})
}

func checkStrings(t testing.TB, p *profile.Profile) {
	t.Helper()
	check := func(texts ...string) {
		for _, s := range texts {
			if !utf8.ValidString(s) || len(s) > maxText || strings.ContainsFunc(s, unprintable) {
				t.Errorf("string not clean: %.80q (%d bytes)", s, len(s))
			}
		}
	}
	for _, m := range p.Mapping {
		check(m.File, m.BuildID)
	}
	for _, f := range p.Function {
		check(f.Name, f.SystemName, f.Filename)
	}
	check(p.Comments...)
	for _, s := range p.Sample {
		if len(s.Location) == 0 {
			t.Error("sample without a frame")
		}
		for k, v := range s.Label {
			check(k)
			check(v...)
		}
	}
}

func TestClean(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"plain", "std::vector<int>::at(unsigned long)", "std::vector<int>::at(unsigned long)"},
		{"other scripts stay", "größe 日本", "größe 日本"},
		{"invalid bytes, a run of them as one", "a\xff\xfe\xfdb\xc3", "a\ufffdb\ufffd"},
		{"controls", "a\x00\x1b[31mb\u0085\x7f\n", "a\ufffd\ufffd[31mb\ufffd\ufffd\ufffd"},
		{"right-to-left override", "exe\u202etxt\u2028", "exe\ufffdtxt\ufffd"},
		{"too long", strings.Repeat("é", 3000), strings.Repeat("é", 2046) + "…"},
		{"too long and invalid", strings.Repeat("\xffx", 3000), strings.Repeat("\ufffdx", 1023) + "…"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Clean(tt.in)
			if got != tt.want {
				t.Errorf("got %.60q (%d bytes), want %.60q (%d bytes)", got, len(got), tt.want, len(tt.want))
			}
			if Clean(got) != got {
				t.Error("cleaning twice changes it again")
			}
		})
	}
}
