// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/lowflame/lowflame/benchmarks/workloads"
)

const report = `{"pid":7,"cpu_ns":1,"truth":[{"function":"hot","under":true,"share":1,` +
	`"chain":["_start","...","main","run","(even odd)*2","unit","hot"]}]}`

const whole = "recursion;_start;__libc_start;main;run;even;odd;even;odd;unit;hot"

// TestFoldedJudgement has one row per way for a recording to be wrong.
func TestFoldedJudgement(t *testing.T) {
	for _, test := range []struct {
		name, lines string
		ok          bool
	}{
		{"as it should be", whole + " 95\n" + strings.TrimSuffix(whole, "hot") + "clock_gettime 5\n", true},
		{"kernel frames below", whole + ";asm_sysvec_apic_timer_interrupt 50\n", true},
		{"libc at start", whole + " 50\nrecursion;_start;__libc_start;memcpy 50\n", true},
		{"before exec", whole + " 50\nlowflame;runtime.goexit;main.main 50\n", true},
		{"too few samples", whole + " 19\n", false},
		{"no samples", "", false},
		{"a level is missing", "recursion;_start;__libc_start;main;run;even;odd;even;unit;hot 100\n", false},
		{"root is missing", "recursion;main;run;even;odd;even;odd;unit;hot 100\n", false},
		{"cut off", whole + " 94\nrecursion;[truncated: NO_RULE];hot 6\n", false},
		{"no names", "recursion;0x401900;0x4036ef;0x401a28 100\n", false},
		{"some without names", whole + " 80\nrecursion;_start;__libc_start;main;0x401c86;hot 20\n", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			truth, err := workloads.ParseReport([]byte(report))
			if err != nil {
				t.Fatal(err)
			}
			r := recording{command: []string{"/bin/recursion"}}
			j, err := r.judgeFolded(test.lines, truth)
			if err != nil {
				t.Fatal(err)
			}
			if problems := j.problems(); (len(problems) == 0) != test.ok {
				t.Errorf("ok %v, want %v: %v %q", !test.ok, test.ok, j, problems)
			}
		})
	}
}

func TestParseFoldedRefuses(t *testing.T) {
	for _, text := range []string{"a;b\n", "a;b x\n", "a;b 0\n", " 1\n"} {
		if rec, err := parseFolded(text); err == nil {
			t.Errorf("%q is taken for %v", text, rec)
		}
	}
}

func TestParseLoad(t *testing.T) {
	const log = "    load_test.go:44: loaded in 1.5s, verified instructions map[unw_exit:37 unw_fork:64 unw_sample:"
	for text, want := range map[string]load{
		log + "15596]\n": {1500 * time.Millisecond, "15596"},
		log + "0]\n":     {1500 * time.Millisecond, "-"},
	} {
		if got, err := parseLoad(text); err != nil || got != want {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
	if got, err := parseLoad("--- PASS: TestLoad\n"); err == nil {
		t.Errorf("a log without it gives %v", got)
	}
}

func TestLossless(t *testing.T) {
	for line, ok := range map[string]bool{
		"3.3 s · 586 samples · 99.8 % complete stacks · 0 lost · 100.0 % symbolized · lowflame used 57.2 % of one CPU, 53 MiB":  true,
		"3.3 s · 586 samples · 99.8 % complete stacks · 10 lost · 100.0 % symbolized · lowflame used 57.2 % of one CPU, 53 MiB": false,
		"": false,
	} {
		if _, err := lossless([]byte("flat flat%\n" + line + "\n")); (err == nil) != ok {
			t.Errorf("%q: %v, want ok %v", line, err, ok)
		}
	}
}

func TestCompleteShare(t *testing.T) {
	defer func() { total = shareOfAll{} }()
	for _, test := range []struct {
		user, complete int64
		ok             bool
	}{{0, 0, false}, {1000, 990, true}, {1000, 989, false}} {
		total = shareOfAll{}
		total.add(judgement{user: test.user, complete: test.complete})
		if _, err := completeShare(); (err == nil) != test.ok {
			t.Errorf("%+v: %v", test, err)
		}
	}
}

// TestStatic has a program with its libraries in itself, so that their functions
// are in no other file.
func TestStatic(t *testing.T) {
	for chain, want := range map[string]string{
		"main → run → ?@libc.so.6 → ... → ?@libc.so.6 → on_signal → hot": "main → run → ... → on_signal → hot",
		"?@libc.so.6 → ?@libc.so.6 → worker → unit":                      "... → worker → unit",
		"run → __cxa_throw@libstdc++.so.6 → ...":                         "run → __cxa_throw → ...",
		"run → jit_hot@[anon]":                                           "run → jit_hot@[anon]",
		"_start → ... → (even odd)*25 → unit":                            "_start → ... → (even odd)*25 → unit",
	} {
		parsed, err := workloads.ParseChain(strings.Split(chain, arrow))
		if err != nil {
			t.Fatal(err)
		}
		if got := staticChain(parsed).String(); got != want {
			t.Errorf("%s becomes %s, want %s", chain, got, want)
		}
	}
}
