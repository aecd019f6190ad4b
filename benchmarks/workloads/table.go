// SPDX-License-Identifier: Apache-2.0

package workloads

// cflags build C and C++ as distributions do, and without what would make a
// stack easier to walk: no frame pointers, no debug information. Tail calls are
// kept out because a frame replaced by one is in no stack.
var cflags = []string{
	"-O2", "-fomit-frame-pointer", "-fno-optimize-sibling-calls", "-g0", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror",
}

func table() []Workload {
	var all []Workload
	for _, part := range [][]Workload{cTable(), linkTable(), muslTable(), signalTable(), stackTable(), asmTable(), kernelTable(), runtimeTable()} {
		all = append(all, part...)
	}
	return all
}

func c(source string, flags ...string) [][]string {
	return [][]string{append([]string{"CC", "-o", "$OUT", "c/" + source, "-pthread"}, flags...)}
}

func cTable() []Workload {
	var all []Workload
	for _, depth := range []string{"10", "50", "120", "500"} {
		all = append(all, Workload{
			Name: "recursion-" + depth, About: depth + " frames without frame pointers",
			Build: c("recursion.c"), Args: []string{depth},
		})
	}
	return append(all,
		Workload{
			Name: "alloca", About: "frames of variable size: rbp frames and realigned stacks in code without frame pointers",
			Build: c("alloca.c"),
		},
		Workload{
			Name: "exceptions", About: "C++ exceptions thrown through frames, and virtual calls",
			Build: [][]string{{"CXX", "-o", "$OUT", "cpp/exceptions.cpp"}},
			// A third of a percent ends where _Unwind_RaiseException replaces the
			// stack: near enough to what is demanded to need many samples.
			Times: 4,
		},
		Workload{
			Name: "threads", About: "eight threads: stacks that begin at clone",
			Build: c("threads.c"), Hz: 199, Times: 3,
			Threads: []string{
				"worker-0", "worker-1", "worker-2", "worker-3", "worker-4", "worker-5", "worker-6", "worker-7",
			},
		},
		Workload{
			Name: "rename", About: "thread names that are no UTF-8 and break parsers of /proc/PID/stat",
			Build: c("rename.c"), Threads: []string{"a) R 1"},
		},
	)
}

func linkTable() []Workload {
	plt := func(name, about string, flags ...string) Workload {
		build := []string{"CC", "-o", "$OUT", "c/plt.c", "-L$DIR", "-lstep", "-Wl,-rpath,$ORIGIN"}
		library := []string{"CC", "-shared", "-fPIC", "-o", "$DIR/libstep.so", "c/libstep.c"}
		return Workload{Name: name, About: about, Build: [][]string{append(library, flags...), append(build, flags...)}}
	}
	cet := plt("plt-cet", "calls through .plt.sec, with endbr64", "-fcf-protection=full", "-Wl,-z,lazy", "-Wl,-z,ibtplt")
	cet.Arch = []string{"amd64"}
	plugins := [][]string{
		{"CC", "-shared", "-fPIC", "-o", "$DIR/libplugin-a.so", "c/libplugin.c"},
		{"CC", "-shared", "-fPIC", "-DPLUGIN_B", "-o", "$DIR/libplugin-b.so", "c/libplugin.c"},
		{"CC", "-o", "$OUT", "c/dlopen.c"},
	}
	return []Workload{
		plt("plt-lazy", "calls through a lazily bound PLT", "-fplt", "-Wl,-z,lazy"),
		plt("plt-now", "calls through a PLT bound at start", "-fplt", "-Wl,-z,now"),
		cet,
		{Name: "dlopen", About: "a library loaded while the program runs", Build: plugins},
		{
			Name: "dlopen-reload", About: "libraries that replace each other at the same address",
			Build: plugins, Args: []string{"reload"},
		},
		{Name: "static", About: "no dynamic linker, libc in the program", Build: c("recursion.c", "-static")},
		{
			Name: "static-pie", About: "static and position independent",
			Build: c("recursion.c", "-static-pie", "-fPIE"),
		},
	}
}

func muslTable() []Workload {
	musl := func(name, about, source string, flags ...string) Workload {
		build := append([]string{"MUSL", "-o", "$OUT", "c/" + source, "-pthread", `-DLIBC="libc.so"`}, flags...)
		return Workload{Name: name, About: about, Build: [][]string{build}, Arch: []string{"amd64"}}
	}
	threads := musl("musl-threads", "threads of musl", "threads.c")
	threads.Hz, threads.Times = 199, 2
	return []Workload{
		musl("musl", "musl, which has no unwind information and few symbols", "recursion.c"),
		musl("musl-static", "musl in the program", "recursion.c", "-static"),
		threads,
		musl("musl-signal", "a signal handler under musl", "signal.c"),
	}
}

// stackTable is about stacks that are not as most are.
func stackTable() []Workload {
	all := []Workload{
		{Name: "frames", About: "frames of 64 KiB and 1 MiB", Build: c("frames.c")},
		{Name: "vfork", About: "children on their parent's stack, which overwrite its return address", Build: c("vfork.c")},
	}
	return append(all, x86Modes("coroutine", []mode{
		{"ucontext", "coroutines of the C library", nil},
		{"zero", "coroutines switched by code without unwind information", nil},
		{"finish", "the same, above code that nobody called", []string{"NO_RULE", "UNSUPPORTED_RULE"}},
	})...)
}

// mode is what a program does if told so by its first argument.
type mode struct {
	name, about string
	stops       []string
}

// x86Modes returns a workload for each mode of a C program with assembly for x86-64.
func x86Modes(program string, modes []mode) []Workload {
	all := make([]Workload, 0, len(modes))
	for _, m := range modes {
		all = append(all, Workload{
			Name: program + "-" + m.name, About: m.about, Build: c(program + ".c"),
			Args: []string{m.name}, Arch: []string{"amd64"}, Stops: m.stops,
		})
	}
	return all
}

// asmTable is about code that nobody compiled.
func asmTable() []Workload {
	all := []Workload{
		{Name: "libc-strings", About: "string functions in all their variants", Build: c("strings.c", "-fno-builtin")},
		{
			Name: "crypto", About: "OpenSSL's assembly", Build: c("crypto.c", "-l:libcrypto.so.3"),
			// Its Montgomery multiplication finds the caller by *(rsp+8+r9*8)+8.
			Stops: []string{"UNSUPPORTED_RULE"}, MaxStopped: 0.01,
		},
	}
	return append(all, x86Modes("badfp", []mode{
		{"cfi", "a frame pointer that is a number", nil},
		{"bare", "the same in code without unwind information", nil},
		{"forged", "a frame pointer that leads to forged frames", nil},
		{"jit", "a frame pointer that is a number in generated code", []string{"FP_IMPLAUSIBLE"}},
		{"data", "one that points to a variable in generated code", []string{"NO_MAPPING", "FP_IMPLAUSIBLE"}},
	})...)
}

func signalTable() []Workload {
	var all []Workload
	for _, mode := range []struct{ name, about string }{
		{"timer", "a signal handler that interrupts a function anywhere"},
		{"altstack", "a signal handler on a stack of its own"},
		{"raise", "a signal a program sends itself"},
	} {
		all = append(all, Workload{
			Name: "signal-" + mode.name, About: mode.about, Build: c("signal.c"), Args: []string{mode.name},
		})
	}
	return all
}

func kernelTable() []Workload {
	return []Workload{
		{Name: "syscalls", About: "nearly all time in the kernel, as dd", Build: c("syscalls.c")},
		{Name: "vdso", About: "code the kernel maps that is in no file", Build: c("vdso.c")},
		{Name: "jit", About: "machine code in anonymous memory, named by a perf map", Build: c("jit.c")},
	}
}

func runtimeTable() []Workload {
	golang := func(name, about, module string, flags ...string) Workload {
		build := append([]string{"GO", "build", "-C", module, "-o", "$OUT"}, flags...)
		return Workload{Name: name, About: about, Build: [][]string{append(build, ".")}}
	}
	callback := golang("cgo-callback", "C called from Go calls Go back", "cgo")
	callback.Args = []string{"callback"}
	rust := func(name, about string, flags ...string) Workload {
		build := []string{
			"RUSTC", "-C", "opt-level=2", "-C", "panic=abort", "-C", "force-frame-pointers=no",
			"--crate-name", "work", "-o", "$OUT", "rust/recursion.rs",
		}
		return Workload{Name: name, About: about, Build: [][]string{append(build, flags...)}}
	}
	return []Workload{
		rust("rust", "Rust with panic=abort: rustc 1.63 writes no unwind information for functions that call others"),
		rust("rust-tables", "the same with unwind information", "-C", "force-unwind-tables=yes"),
		golang("go", "a thousand goroutines, functions inlined", "goroutines"),
		golang("go-stripped", "Go without symbol table and debug information", "goroutines", "-ldflags=-s -w"),
		golang("go-pie", "position independent Go", "goroutines", "-buildmode=pie"),
		golang("cgo", "Go calls C, on another stack", "cgo"),
		callback,
	}
}
