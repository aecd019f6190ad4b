// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/lowflame/lowflame/internal/testutil"
	"github.com/lowflame/lowflame/stack"
)

// armSource has what the vDSO has: functions without a frame that make system
// calls, and frames with loops and early returns.
const armSource = `
typedef unsigned long u64;
u64 other(u64 *);
void stop(void) __attribute__((noreturn));
static inline u64 syscall1(u64 n, u64 a) {
	register u64 x8 asm("x8") = n; register u64 x0 asm("x0") = a;
	asm volatile("svc #0" : "+r"(x0) : "r"(x8) : "memory");
	return x0;
}
u64 leaf(volatile u64 *p, u64 n) { u64 r = 0; while (*p & 1) r += p[n]; return n > 15 ? syscall1(113, n) : r; }
u64 frame(u64 *p, u64 n) { for (u64 i = 0; i < n; i++) p[i] += other(p); return n & 1 ? 0 : other(p + 1) + n; }
u64 large(u64 n) { u64 a[400]; for (u64 i = 0; i < n % 400; i++) a[i] = i; return other(a) + a[n % 400]; }
u64 leaflarge(u64 n) { volatile u64 a[30]; for (u64 i = 0; i < 30; i++) a[i] = i; return a[n % 30]; }
u64 tail(u64 *p) { return other(p + 3); }
u64 many(u64 *p, double d, double e) { double f = d; for (int i = 0; i < 9; i++) { f = f * e + other(p) * d; p[i] = f + p[1] * p[2]; } return f; }
u64 ends(u64 *p) { if (other(p) > 3) stop(); return other(p) * 7 + p[0]; }
u64 vary(u64 n) { u64 *p = __builtin_alloca(n); return other(p) + p[0]; }
`

// TestScanARM64 compares what the scan finds with the call frame information of
// the same code. What it knows must be right, and it must know all but a function
// whose stack pointer moves by a variable.
func TestScanARM64(t *testing.T) {
	const gcc = "aarch64-linux-gnu-gcc"
	if _, err := exec.LookPath(gcc); err != nil {
		t.Skip(err)
	}
	for _, flags := range [][]string{
		{"-O2"}, {"-Os"}, {"-O1", "-fno-omit-frame-pointer"}, {"-O2", "-mbranch-protection=standard"}, {"-O3", "-fomit-frame-pointer"},
	} {
		o := testutil.OpenObject(t, armLibrary(t, gcc, flags))
		table, err := Build(o)
		if err != nil {
			t.Fatal(err)
		}
		src := sources{segs: executable(o)}
		syms := codeSyms{o: o, segEnd: src.code}
		if !syms.read(src.segs) {
			t.Fatal("no functions")
		}
		known, all := 0, 0
		for _, f := range sortFuncs(syms.funcs) {
			rows := scanARM64(syms.code, []codeFunc{{begin: f.begin, end: f.end}})
			got := Rule(0)
			for pc := f.begin; pc < f.end; pc += 4 {
				for len(rows) > 0 && rows[0].pc <= pc {
					got, rows = rows[0].rule, rows[1:]
				}
				want := table.rule(pc)
				if want.Kind() == KindFP || want.Kind() == KindWide { // vary; LR saved without FP
					continue
				}
				if all++; got == 0 {
					continue
				}
				// Once they are loaded again, FP and LR are in two places.
				loaded := MakeRule(KindSP, FPSame, want.Off())
				if known++; got != want && (want.Kind() != KindSP || got != loaded) {
					t.Errorf("%v: %#x: rule %#x, the call frame information says %#x", flags, pc, got, want)
				}
			}
		}
		t.Logf("%v: %d of %d instructions known", flags, known, all)
		if all < 60 || known < all*9/10 {
			t.Errorf("%v: %d of %d instructions known, want 90 %%", flags, known, all)
		}
	}
}

func armLibrary(t *testing.T, gcc string, flags []string) string {
	t.Helper()
	dir := t.TempDir()
	source, out := filepath.Join(dir, "a.c"), filepath.Join(dir, "a.so")
	if err := os.WriteFile(source, []byte(armSource), 0o600); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"-shared", "-fPIC", "-nostdlib", "-o", out, source}, flags...)
	if text, err := exec.CommandContext(t.Context(), gcc, args...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return out
}

func (t *Table) rule(pc uint64) Rule {
	for i := range t.Pieces {
		if p := &t.Pieces[i]; pc >= uint64(p.Start) && pc < uint64(p.End) {
			return p.Lookup(stack.LinkAddr(pc))
		}
	}
	return 0
}

// FuzzScanARM64 holds that any code ends in rows in order.
func FuzzScanARM64(f *testing.F) {
	f.Add([]byte("\xfd\x7b\xb8\xa9\xfd\x03\x00\x91\xfd\x7b\xc8\xa8\xc0\x03\x5f\xd6"))
	f.Add([]byte("\xff\x43\x00\xd1\x00\x00\x00\x14\xff\xff\xff\x17\xff\x43\x00\x91\xc0\x03\x5f\xd6"))
	f.Fuzz(func(t *testing.T, code []byte) {
		const begin = 0x1000
		rows := scanARM64(func(p []byte, pc uint64) int { return copy(p, code[pc-begin:]) },
			[]codeFunc{{begin: begin, end: begin + uint64(len(code))}})
		for i := range rows {
			if i > 0 && rows[i].pc <= rows[i-1].pc && rows[i].rule != 0 {
				t.Fatalf("rows %d and %d at %#x and %#x", i-1, i, rows[i-1].pc, rows[i].pc)
			}
			if end := begin + uint64(len(code)); rows[i].pc < begin || rows[i].pc > end {
				t.Fatalf("row at %#x, the function ends at %#x", rows[i].pc, end)
			}
		}
	})
}
