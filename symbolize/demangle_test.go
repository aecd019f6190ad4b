// SPDX-License-Identifier: Apache-2.0

package symbolize

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestDemangleName(t *testing.T) {
	long := "_Z4longI" + strings.Repeat("N8some_one13another_namesE", 1) + strings.Repeat("S0_", 90) + "EvT_"
	tests := []struct {
		name, symbol     string
		simplified, full string
	}{
		{"C", "main", "main", "main"},
		{"C, clone of GCC", "compute.constprop.0.isra.0", "compute", "compute"},
		{"C, cold part", "compute.cold", "compute", "compute"},
		{"C, numbered cold part", "compute.part.0.cold.12", "compute", "compute"},
		{"ThinLTO", "helper.llvm.1234567890", "helper", "helper"},
		{"-funique-internal-linkage-names", "helper.__uniq.123.llvm.456", "helper", "helper"},
		{"dots that are no clone", "a.b.c", "a.b.c", "a.b.c"},
		{"nested function of GCC", "inner.0", "inner.0", "inner.0"},
		{"only a suffix", ".cold", ".cold", ".cold"},
		{"version", "memcpy@@GLIBC_2.14", "memcpy", "memcpy"},
		{"stub", "_ZN3Foo3barEi@plt", "Foo::bar@plt", "Foo::bar(int)@plt"},
		{"method", "_ZNK3foo3barEv.part.0", "foo::bar", "foo::bar() const"},
		{"template", "_ZN3FooIiE3barIdEEvT_", "Foo<int>::bar<double>", "void Foo<int>::bar<double>(double)"},
		{"lambda", "_ZZ4mainENKUliE_clEi", "main::{lambda(int)#1}::operator()", "main::{lambda(int)#1}::operator()(int) const"},
		{"anonymous namespace", "_ZN12_GLOBAL__N_13fooEv", "(anonymous namespace)::foo", "(anonymous namespace)::foo()"},
		{"Rust, legacy", "_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE", "core::fmt::Write::write_fmt", "core::fmt::Write::write_fmt"},
		{"Rust, legacy, ThinLTO", "_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE.llvm.12", "core::fmt::Write::write_fmt", "core::fmt::Write::write_fmt"},
		{
			"Rust, legacy, leading underscores", "_ZN3std3sys9backtrace28__rust_begin_short_backtrace17h0123456789abcdefE",
			"std::sys::backtrace::__rust_begin_short_backtrace", "std::sys::backtrace::__rust_begin_short_backtrace",
		},
		{
			"Rust, legacy, trait and underscores", "_ZN43_$LT$a..B$u20$as$u20$core..fmt..Display$GT$6__into17h0123456789abcdefE",
			"<a::B as core::fmt::Display>::__into", "<a::B as core::fmt::Display>::__into",
		},
		{"C++ that is not Rust", "_ZN3foo5__bar17h0000000000000000E", "foo::__bar::h0000000000000000", "foo::__bar::h0000000000000000"},
		{
			"Rust, legacy, one underscore stays", "_ZN3foo4_bar17h0123456789abcdefE", "foo::_bar", "foo::_bar",
		},
		{"Rust, v0", "_RNvCs1234_7mycrate3foo", "mycrate::foo", "mycrate::foo"},
		{"Rust, v0, generic", "_RINvNtC3std3mem8align_ofNtNtC3foo3bar3BazE", "std::mem::align_of::<foo::bar::Baz>", "std::mem::align_of::<foo::bar::Baz>"},
		{"long template arguments go before the name does", long, "long", ""},
		{"not really mangled", "_Zzz", "_Zzz", "_Zzz"},
		{"control characters", "a\x1b[31mb\n\xffc", "a\uFFFD[31mb\uFFFD\uFFFDc", "a\uFFFD[31mb\uFFFD\uFFFDc"},
		{"right-to-left override", "a\u202eb", "a\uFFFDb", "a\uFFFDb"},
		{"letters of the world", "größe_関数", "größe_関数", "größe_関数"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := DemangleName(Simplified, tt.symbol); got != tt.simplified {
				t.Errorf("simplified %q, want %q", got, tt.simplified)
			}
			if got := DemangleName(Full, tt.symbol); got != tt.full && tt.full != "" {
				t.Errorf("full %q, want %q", got, tt.full)
			}
		})
	}
	if got := DemangleName(Mangled, "_Z1fv.cold"); got != "_Z1fv" {
		t.Errorf("mangled %q", got)
	}
}

func TestClipKeepsCharacters(t *testing.T) {
	s := strings.Repeat("é", 300)
	for n := 3; n < 40; n++ {
		got := clip(s, n)
		if len(got) > n || len(got) < n-1 || !utf8.ValidString(got) || !strings.HasSuffix(got, ellipsis) {
			t.Errorf("clip to %d gives %d bytes: %q", n, len(got), got)
		}
	}
	if got := clip("short", 5); got != "short" {
		t.Errorf("clip = %q", got)
	}
}

// TestAgainstCxxfilt compares with c++filt on the C++ symbols of a library.
func TestAgainstCxxfilt(t *testing.T) {
	var symbols []string
	for _, lib := range []string{"/usr/bin/node", "/usr/lib/x86_64-linux-gnu/libstdc++.so.6", "/usr/lib/llvm-19/lib/libLLVM.so.1"} {
		if _, err := os.Stat(lib); err != nil {
			continue
		}
		out, err := exec.Command("nm", "-D", "--defined-only", lib).Output()
		if err != nil {
			t.Skip(err)
		}
		n := 0
		for sc := bufio.NewScanner(bytes.NewReader(out)); sc.Scan() && n < 20000; {
			f := strings.Fields(sc.Text())
			if s, _, _ := strings.Cut(f[len(f)-1], "@"); strings.HasPrefix(s, "_Z") && len(f) == 3 && strings.Contains("TtWw", f[1]) {
				symbols = append(symbols, s)
				n++
			}
		}
	}
	if len(symbols) == 0 {
		t.Skip("no C++ library to take symbols from")
	}
	cmd := exec.Command("c++filt", "-p")
	cmd.Stdin = strings.NewReader(strings.Join(symbols, "\n") + "\n")
	out, err := cmd.Output()
	if err != nil {
		t.Skip(err)
	}
	want := strings.Split(string(out), "\n")
	same, cut, bad := 0, 0, 0
	for i, s := range symbols {
		got := DemangleName(Simplified, s)
		// c++filt spells a few things otherwise, and binutils of other ages do.
		switch w := want[i]; {
		case normalize(got) == normalize(w):
			same++
		case len(w) > MaxName:
			cut++
		default:
			if bad++; bad < 10 {
				t.Logf("%s\n got %s\nwant %s", s, got, w)
			}
		}
	}
	t.Logf("%d same, %d too long, %d other", same, cut, bad)
	if bad > len(symbols)/200 {
		t.Errorf("%d of %d differ", bad, len(symbols))
	}
}

func normalize(s string) string {
	for _, r := range [][2]string{
		{"std::basic_string<char, std::char_traits<char>, std::allocator<char> >", "std::string"},
		{"std::basic_istream<char, std::char_traits<char> >", "std::istream"},
		{"std::basic_ostream<char, std::char_traits<char> >", "std::ostream"},
		{"std::basic_iostream<char, std::char_traits<char> >", "std::iostream"},
		{" >", ">"}, {"[abi:cxx11]", ""}, {" const", ""}, {" ", ""},
	} {
		s = strings.ReplaceAll(s, r[0], r[1])
	}
	return s
}

// hostileNames take a demangler long for their length.
func hostileNames() []string {
	return []string{
		"_Z1f" + strings.Repeat("P", 8000) + "i",
		"_Z1fI" + strings.Repeat("1aI", 2700),
		"_Z1f" + strings.Repeat("1aIS_S_E", 1000),
		"_Z1fIX" + strings.Repeat("pl", 4000),
		"_Z1fIJ" + strings.Repeat("i", 1000) + "EEv" + strings.Repeat("Dp", 3000) + "T_",
		"_Z" + strings.Repeat("Z", 8000) + "1fvE",
		"_R" + strings.Repeat("Nv", 4000) + "C1a",
		"_RINvC1a1b" + strings.Repeat("TB7_B7_E", 1000) + "E",
		"_Z1fI" + strings.Repeat("L_Z1fI", 1300),
		strings.Repeat("_Z", 40000),
		strings.Repeat(".cold", 20000),
	}
}

func TestHostileNamesAreBounded(t *testing.T) {
	for _, mode := range []Demangle{Simplified, Full} {
		limit := map[Demangle]int{Simplified: MaxName, Full: maxFull}[mode]
		for _, s := range hostileNames() {
			start := time.Now()
			got := DemangleName(mode, s)
			if d := time.Since(start); d > 3*time.Second {
				t.Errorf("mode %d: %.20q… took %v", mode, s, d)
			}
			if len(got) > limit || !utf8.ValidString(got) {
				t.Errorf("mode %d: %.20q… gave %d bytes", mode, s, len(got))
			}
		}
	}
}

func FuzzDemangle(f *testing.F) {
	for _, s := range hostileNames() {
		f.Add(s[:min(len(s), 200)])
	}
	f.Add("_ZN3FooIiE3barIdEEvT_")
	f.Add("_RINvNtC3std3mem8align_ofNtNtC3foo3bar3BazE")
	f.Add("a\x1b\xff@plt")
	f.Fuzz(func(t *testing.T, s string) {
		for _, mode := range []Demangle{Simplified, Full, Mangled} {
			got := DemangleName(mode, s)
			if !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Fatalf("%q gave %q", s, got)
			}
			if len(got) > maxFull || (mode != Full && len(got) > MaxName) {
				t.Fatalf("%q gave %d bytes", s, len(got))
			}
		}
	})
}

func BenchmarkDemangle(b *testing.B) {
	names := []string{
		"_ZNSt6vectorIiSaIiEE9push_backERKi",
		"_ZN2v88internal8compiler13JSCallReducer18ReduceArrayForEachEPNS1_4NodeERKNS0_18SharedFunctionInfoE",
		"_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE",
	}
	i := 0
	for b.Loop() {
		if got := DemangleName(Simplified, names[i%3]); strings.HasPrefix(got, "_") {
			b.Fatal(got)
		}
		i++
	}
}
