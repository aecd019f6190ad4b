// SPDX-License-Identifier: Apache-2.0

package unwind

import (
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/lowflame/lowflame/stack"
)

// singleStep runs a program from its first instruction in the dynamic linker,
// one instruction at a time up to n, and calls at for each.
func singleStep(t *testing.T, n int, at func(l *live, tid int), path string, args ...string) int {
	t.Helper()
	runtime.LockOSThread()
	cmd := exec.Command(path, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	defer func() {
		cmd.Process.Kill()
		var ws syscall.WaitStatus
		syscall.Wait4(pid, &ws, syscall.WALL, nil)
	}()
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &ws, 0, nil); err != nil {
		t.Fatal(err)
	}
	l := newLive(t, pid)
	for i := range n {
		at(l, pid)
		sig := 0
		if s := ws.StopSignal(); s != syscall.SIGTRAP && s != syscall.SIGSTOP {
			sig = int(s)
		}
		if err := stepOne(pid, sig); err != nil {
			t.Fatal(err)
		}
		if _, err := syscall.Wait4(pid, &ws, 0, nil); err != nil {
			t.Fatal(err)
		}
		if ws.Exited() || ws.Signaled() {
			return i
		}
	}
	return n
}

// stepOne is PTRACE_SINGLESTEP with a signal to deliver.
func stepOne(pid, sig int) error {
	_, _, errno := syscall.RawSyscall6(syscall.SYS_PTRACE, syscall.PTRACE_SINGLESTEP, uintptr(pid), 0, uintptr(sig), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// afterCall reports whether pc is a return address: a call comes before it, or it
// is one that nobody called: the trampoline of a signal or runtime.goexit.
func (l *live) afterCall(pc uint64) bool {
	if ok, seen := l.calls[pc]; seen {
		return ok
	}
	v, _ := l.Word(pc - 8)
	before := func(n int) byte { return byte(v >> (8 * (8 - n))) }
	ok := before(5) == 0xe8
	for _, n := range []int{2, 3, 4, 6, 7} { // call *r/m64 is ff /2
		ok = ok || before(n) == 0xff && before(n-1)>>3&7 == 2
	}
	if c, found := l.At(pc - 1); found && c.Table != nil {
		r, _ := c.Table.Lookup(stack.LinkAddr(pc - 1 - c.Bias))
		ok = ok || r.Kind() == KindSignal || r.Kind() == KindEnd
	}
	l.calls[pc] = ok
	return ok
}

// checkCalls checks all return addresses of a walk that reached the end.
func (l *live) checkCalls(res Result) {
	exact := map[int]bool{0: true}
	for _, n := range res.Interrupted {
		exact[n] = true
	}
	for i, pc := range res.PCs {
		if !exact[i] && !l.afterCall(pc) && l.wrong < 10 {
			l.wrong++
			l.t.Errorf("frame %d is no return address: %q", i, l.names(res))
		}
	}
}

// TestSingleStep walks the stack at every instruction a program executes: in
// the dynamic linker, lazy PLT entries, prologues, epilogues, setjmp, signal
// delivery and return. All of them have to reach the end.
func TestSingleStep(t *testing.T) {
	if testing.Short() {
		t.Skip("walks some 150 000 stacks under ptrace")
	}
	t.Parallel()
	path := build(t, "deep", "gcc", "-O2", "-fno-inline", "-Wl,-z,lazy", "-o", "OUT", "deep.c")
	kinds, known, bad := map[Kind]int{}, map[string]int{}, map[string]int{}
	steps := singleStep(t, 400_000, func(l *live, tid int) {
		res := l.walk(tid, 127)
		if c, ok := l.At(res.PCs[0]); ok {
			r, _ := c.Table.Lookup(stack.LinkAddr(res.PCs[0] - c.Bias))
			kinds[r.Kind()]++
		}
		if res.Stop == stack.StopEnd {
			l.checkCalls(res)
			return
		}
		names := l.names(res)
		if why := knownGap(l, res, names[len(names)-1]); why != "" {
			known[why]++
			return
		}
		key := res.Stop.String() + " in " + names[len(names)-1]
		if bad[key]++; bad[key] == 1 && len(bad) < 10 {
			t.Errorf("%v: %x %q", res.Stop, res.PCs, names)
		}
	}, path, "sdqv")
	t.Logf("%d instructions; rules of the first frame by kind: %v; known gaps: %v", steps, kinds, known)
	gaps := 0
	for _, n := range known {
		gaps += n
	}
	if steps < 50_000 || gaps > steps/5 || kinds[KindPLT] == 0 || kinds[KindSignal] == 0 {
		t.Errorf("%d instructions, %d in known gaps, kinds %v", steps, gaps, kinds)
	}
}

// knownGap explains a walk that cannot reach the end with the information the
// C library has, "" if there is no such explanation.
func knownGap(l *live, res Result, last string) string {
	pc := res.PCs[len(res.PCs)-1]
	c, ok := l.At(pc - 1)
	switch last {
	case "_init", "_fini", "__do_global_dtors_aux", "deregister_tm_clones", "register_tm_clones", "frame_dummy":
		if res.Stop == stack.StopNoRule {
			return "crt files have no CFI"
		}
	}
	// GCC forgets that rbp has been popped in the last two instructions of a
	// DRAP epilogue.
	if res.Stop == stack.StopReadStack && last == "aligned" && len(res.PCs) == 1 {
		return "DRAP epilogue"
	}
	// The return address of __longjmp is said to be in rdx, where it is
	// still mangled (glibc: PTR_DEMANGLE) and stays so for ten instructions.
	if c0, ok := l.At(res.PCs[0]); ok && res.Stop == stack.StopNoMapping {
		r, p := c0.Table.Lookup(stack.LinkAddr(res.PCs[0] - c0.Bias))
		if r.Kind() == KindWide && p.WideRule(r.Off()).RA == WhereReg && p.WideRule(r.Off()).RAArg == 1 {
			return "longjmp mangles"
		}
	}
	// The stack pointer of _dl_runtime_resolve_xsavec is in rbx, which the
	// walk does not follow through calls.
	if ok && res.Stop == stack.StopUnsupportedRule && strings.Contains(last, "ld-linux") {
		r, p := c.Table.Lookup(stack.LinkAddr(pc - 1 - c.Bias))
		if r.Kind() == KindWide && p.WideRule(r.Off()).Reg == 3 {
			return "lazy binding needs rbx"
		}
	}
	return ""
}
