// SPDX-License-Identifier: Apache-2.0

package accuracy

import (
	"slices"
	"strings"

	"github.com/lowflame/lowflame/benchmarks/workloads"
)

// goRuntime begins the names of functions whose callers workloads do not know.
const goRuntime = "runtime."

// checkWrong counts the stacks that contradict what the workload knows: those of
// its functions that are on no chain, frames whose caller is not one of the known
// ones, and whole stacks that begin where none does. A missing frame is a wrong one
// too, unless the stack says that it is cut off.
func (r *Result) checkWrong(rec Recording, truth *workloads.Report) {
	chains := slices.Clone(truth.Present)
	for _, t := range truth.Truth {
		chains = append(chains, t.Chain)
	}
	callers := workloads.NewCallers(chains, goRuntime)
	wrong := make(map[string]int64)
	for _, s := range rec.Samples {
		if !s.user() {
			continue
		}
		if s.throws() {
			continue
		}
		if why := contradiction(&s, truth, callers); why != "" {
			r.Wrong += s.Count
			wrong[why+": "+Format(s.Frames)] += s.Count
		}
	}
	if r.Wrong > 0 {
		r.problem("%d stacks are wrong%s", r.Wrong, Top(wrong, 5))
	}
}

// throws reports whether s caught the C++ runtime at a throw. Its last instructions
// replace the stack it runs on by that of the handler (__builtin_eh_return), which
// its call frame information does not follow.
func (s *Sample) throws() bool {
	return slices.ContainsFunc(s.Frames, func(f workloads.Frame) bool { return strings.HasPrefix(f.Function, "_Unwind_") })
}

// contradiction says what is wrong with a stack, "" if nothing is.
func contradiction(s *Sample, truth *workloads.Report, callers *workloads.Callers) string {
	frames := s.known()
	for i := range truth.Truth {
		t := &truth.Truth[i]
		if !s.counts(t) {
			continue
		}
		fits := func(c workloads.Chain) bool {
			return s.Truncated == "" && c.Match(frames) || s.Truncated != "" && c.MatchTail(frames)
		}
		if !fits(t.Chain) && !slices.ContainsFunc(truth.Present, fits) {
			return t.Function + " is not on its stack"
		}
	}
	if f, ok := callers.Contradict(frames, s.Truncated == ""); ok {
		return "not the caller of " + f.Function
	}
	if s.Truncated == "" && !isRoot(frames[0], truth) {
		return "no stack begins there"
	}
	return ""
}

// known returns the frames that were found, without the one that stands for those
// that were not.
func (s *Sample) known() []workloads.Frame {
	if s.Truncated != "" {
		return s.Frames[1:]
	}
	return s.Frames
}

// roots are functions that stacks begin with: of programs, threads, and Go's
// stacks. What begins in a file of these names is taken for a thread's beginning
// or the dynamic linker, whose functions have no names.
var (
	roots = []string{
		"_start", "__clone", "runtime.goexit", "runtime.mstart", "runtime.mcall", "runtime.morestack",
		"runtime.rt0_go", "runtime.gogo", "runtime.clone", "runtime.sigreturn__sigaction", "runtime.rt_sigreturn",
		"runtime.goexit0", "runtime.systemstack_switch", "runtime.asmcgocall_no_g",
	}
	rootFiles = []string{"libc.so.", "libc.so", "ld-linux-", "ld-musl-", "ld.so"}
)

func isRoot(f workloads.Frame, truth *workloads.Report) bool {
	name := workloads.PlainName(f.Function)
	base := f.Binary[strings.LastIndexByte(f.Binary, '/')+1:]
	return f.Kernel || slices.Contains(roots, name) || strings.HasPrefix(name, "_rt0_") ||
		slices.ContainsFunc(rootFiles, func(file string) bool { return strings.HasPrefix(base, file) }) ||
		slices.ContainsFunc(truth.Truth, func(t workloads.Truth) bool { return t.Chain.MatchRoot(f) })
}
