// SPDX-License-Identifier: Apache-2.0

package process

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A process that makes as much executable memory as the kernel lets it costs
// little CPU time, is cut at the limit, and keeps its libraries.
func TestManyMappings(t *testing.T) {
	bin := compile(t, steps+`
int main(void) {
	step();
	char *at = (char *)0x100000000000;
	int n = 0;
	for (; n < 60000; n++, at += 8192)
		if (mmap(at, 4096, PROT_READ|PROT_EXEC, MAP_PRIVATE|MAP_ANONYMOUS|MAP_FIXED_NOREPLACE, -1, 0) != at) break;
	printf("%d\n", n); fflush(stdout);
	step();
	munmap((void *)0x100000000000, at - (char *)0x100000000000); say("gone");
	step(); return 0;
}`)
	w := watch(t)
	p := startTarget(t, exec.Command(bin))
	w.until("start", func() bool { q := w.Live(p.pid); return q != nil && q.Exe == bin })
	go func() { _, _ = p.in.Write([]byte("\n")) }() // the kernel waits for nobody
	var before, after unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &before); err != nil {
		t.Fatal(err)
	}
	w.until("the limit", func() bool { return w.Live(p.pid).Truncated })
	if !p.out.Scan() || p.out.Text() != "60000" {
		t.Fatalf("%q mappings made", p.out.Text())
	}
	for range 20 {
		w.Apply(readSoFar(t, w.s))
	}
	if err := unix.Getrusage(unix.RUSAGE_SELF, &after); err != nil {
		t.Fatal(err)
	}
	cpu := time.Duration(after.Utime.Nano() - before.Utime.Nano() + after.Stime.Nano() - before.Stime.Nano())
	q := w.Live(p.pid)
	t.Logf("%d mappings known, %v of CPU time, sideband %+v, table %+v", len(q.Mappings), cpu, w.s.Stats(), w.Stats())
	if len(q.Mappings) > maxMappings || len(q.Mappings) < maxAnon || cpu > 10*time.Second {
		t.Errorf("%d mappings, %v", len(q.Mappings), cpu)
	}
	checkLibc := func() {
		t.Helper()
		if !slices.ContainsFunc(w.Live(p.pid).Mappings, func(m Mapping) bool { return strings.Contains(m.Path, "libc.so") }) {
			t.Error("libc is not among the mappings")
		}
	}
	checkLibc()
	p.step(t)
	w.Rescan(p.pid)
	if q := w.Live(p.pid); q.Truncated || len(q.Mappings) > 20 {
		t.Errorf("after they were unmapped: %d mappings, truncated %v", len(q.Mappings), q.Truncated)
	}
	checkLibc()
	checkStats(t, w.Table)
}
