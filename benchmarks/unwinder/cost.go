// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/lowflame/lowflame/agent"
	"github.com/lowflame/lowflame/benchmarks/workloads"
)

// Bars. Times are medians of the samples of a run.
const (
	maxRatio      = 0.65 // of the kernel's own walk by frame pointers
	maxWarmFrame  = 45   // ns a frame, 50 frames of a loop
	maxClangFrame = 220  // ns a frame
	minClangEnd   = 99.8 // %
	maxClangTotal = 9000 // ns: both stacks, hash and count
	minSamples    = 2000

	costHz      = 1999
	costSeconds = "3"
)

func measureCost(ctx context.Context, b *bench) error {
	if err := b.deep(ctx); err != nil {
		return err
	}
	return b.clang(ctx)
}

// deep compares the walk of a recursion that has no frame pointers with the
// kernel's walk of the same program with them, both running at once, each on a CPU
// that changes from run to run.
func (b *bench) deep(ctx context.Context) error {
	plain, framed, err := b.buildRecursion(ctx)
	if err != nil {
		return err
	}
	for _, depth := range []string{"50", "120"} {
		var ours, kernels, ratios, frame []float64
		var frames, kernelFrames float64
		for run := range b.runs {
			on := []string{fmt.Sprint(run % 2), fmt.Sprint(1 - run%2)}
			s, err := b.sampleRunning(ctx, agent.Config{Frequency: costHz, Measure: true}, 1,
				[]string{"taskset", "-c", on[0], plain, costSeconds, depth},
				[]string{"taskset", "-c", on[1], framed, costSeconds, depth})
			if err != nil {
				return err
			}
			w, base := &s.costs.Walk, &s.costs.Baseline
			if w.N < minSamples || base.N < minSamples {
				b.Problem(fmt.Sprintf("depth %s: %d and %d samples, want %d", depth, w.N, base.N, minSamples))
				continue
			}
			ours, kernels = append(ours, w.Quantile(0.5)), append(kernels, base.Quantile(0.5))
			ratios = append(ratios, w.Quantile(0.5)/base.Quantile(0.5))
			frame = append(frame, s.costs.Frame.Quantile(0.5))
			frames, kernelFrames = float64(w.Frames)/float64(w.N), float64(base.Frames)/float64(base.N)
		}
		b.Line("depth %s: walk %.2f µs (%.1f frames), kernel by frame pointers %.2f µs (%.1f frames); runs %s",
			depth, median(ours)/1e3, frames, median(kernels)/1e3, kernelFrames, list(ratios))
		b.Demand("walk ÷ bpf_get_stack(user), depth "+depth, median(ratios), maxRatio, false, "")
		if depth == "50" {
			b.Demand("walk, warm, depth 50", median(frame), maxWarmFrame, false, "ns/frame")
		}
	}
	return nil
}

// list writes the values of all runs.
func list(values []float64) string {
	var words []string
	for _, v := range values {
		words = append(words, fmt.Sprintf("%.3g", v))
	}
	return strings.Join(words, ", ")
}

// buildRecursion builds the recursion workload without and with frame pointers.
func (b *bench) buildRecursion(ctx context.Context) (plain, framed string, err error) {
	src, err := workloads.Extract(b.dir)
	if err != nil {
		return "", "", err
	}
	build := func(name string, flags ...string) (string, error) {
		w := workloads.Workload{Name: name, Build: [][]string{append([]string{"CC", "-o", "$OUT", "c/recursion.c"}, flags...)}}
		p, err := w.BuildIn(ctx, workloads.Native(), src, b.dir)
		return p.Path, err
	}
	plain, err1 := build("plain")
	framed, err2 := build("framed", "-fno-omit-frame-pointer", "-mno-omit-leaf-frame-pointer")
	return plain, framed, errors.Join(err1, err2)
}

// clang compiles a large C++ file under the profiler.
func (b *bench) clang(ctx context.Context) error {
	source := filepath.Join(b.dir, "large.cpp")
	if err := os.WriteFile(source, []byte(largeSource(clangFunctions)), 0o644); err != nil {
		return err
	}
	command := []string{"clang++-19", "-O2", "-c", source, "-o", os.DevNull}
	if _, wait, err := b.start(ctx, command); err != nil { // reads the files
		return err
	} else if err := wait(); err != nil {
		return err
	}
	known, err := libraries(ctx, "clang++-19")
	if err != nil {
		return err
	}
	cold, err := b.sampleWhole(ctx, agent.Config{Frequency: costHz / 3, Measure: true}, nil, command...)
	if err != nil {
		return err
	}
	b.Line("clang, never seen before: %.2f %% END, walk %.0f ns/frame", cold.end(), cold.costs.Frame.Quantile(0.5))
	var frame, total, end, depth []float64
	for range b.runs {
		s, err := b.sampleWhole(ctx, agent.Config{Frequency: costHz / 3, Measure: true}, known, command...)
		if err != nil {
			return err
		}
		if s.costs.Walk.N < minSamples {
			b.Problem(fmt.Sprintf("clang: %d samples, want %d", s.costs.Walk.N, minSamples))
		}
		frame = append(frame, s.costs.Frame.Quantile(0.5))
		total = append(total, s.costs.Sample.Quantile(0.5))
		end = append(end, s.end())
		depth = append(depth, float64(s.costs.Walk.Frames)/float64(s.costs.Walk.N))
	}
	b.Line("clang: %.1f frames a sample; runs ns/frame %s; µs/sample %s; %% END %s", median(depth), list(frame), list(scale(total, 1e-3)), list(end))
	b.Demand("clang, walk", median(frame), maxClangFrame, false, "ns/frame")
	b.Demand("clang, whole sample", median(total), maxClangTotal, false, "ns")
	b.Demand("clang, END", median(end), minClangEnd, true, "%")
	return nil
}

// end is the share of stacks walked to the outermost frame, in %.
func (s *sampled) end() float64 { return 100 * float64(s.complete) / float64(max(s.user, 1)) }

// libraries lists a program's file and the libraries it is linked with.
func libraries(ctx context.Context, program string) ([]string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return nil, err
	}
	out, err := exec.CommandContext(ctx, "ldd", path).Output()
	if err != nil {
		return nil, fmt.Errorf("ldd %s: %w", path, err)
	}
	files := []string{path}
	for _, word := range strings.Fields(string(out)) {
		if strings.HasPrefix(word, "/") {
			files = append(files, word)
		}
	}
	return files, nil
}

func scale(values []float64, by float64) []float64 {
	var scaled []float64
	for _, v := range values {
		scaled = append(scaled, v*by)
	}
	return scaled
}

const clangFunctions = 450

// largeSource is C++ of many functions that keep every part of a compiler busy:
// templates, inlining, loops to vectorize, switches, virtual calls.
func largeSource(functions int) string {
	var s strings.Builder
	s.WriteString("template <int N> struct step { static long go(long x) { return step<N - 1>::go(x * N + (x >> 3)); } };\n" +
		"template <> struct step<0> { static long go(long x) { return x; } };\n" +
		"struct shape { virtual long area(long) const = 0; virtual ~shape() {} };\n" +
		"extern long table[4096]; extern const shape *shapes[64];\n")
	for i := range functions {
		fmt.Fprintf(&s, `struct shape%[1]d : shape { long n = %[1]d; long area(long x) const override { return step<%[2]d>::go(x + n); } };
long work%[1]d(long n, double scale) {
	long sum = 0;
	for (long i = 0; i < n; i++) sum += table[(i * %[3]d) & 4095] * i + (long)(scale * i);
	switch (n %% 7) { case 1: sum += shapes[%[4]d]->area(n); break; case 2: sum -= table[n & 7]; break; case 5: sum ^= step<%[2]d>::go(n); break; default: sum *= 3; }
	return shape%[1]d().area(sum) + (n > %[1]d ? table[n & 63] : 0);
}
`, i, 4+i%13, 3+i%11, i%64)
	}
	return s.String()
}
