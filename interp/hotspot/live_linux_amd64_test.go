// SPDX-License-Identifier: Apache-2.0

package hotspot

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/process"
	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/unwind"
)

func TestDev(t *testing.T) {
	pid := os.Getenv("HSPID")
	if pid == "" {
		t.Skip()
	}
	maps, _ := os.ReadFile("/proc/" + pid + "/maps")
	var bias uint64
	var syms Symbols
	for line := range strings.Lines(string(maps)) {
		if strings.Contains(line, "libjvm.so") && strings.Contains(line, "r-xp") {
			var b, e, off uint64
			fmt.Sscanf(line, "%x-%x r-xp %x", &b, &e, &off)
			path := strings.Fields(line)[5]
			f, _ := os.Open(path)
			st, _ := f.Stat()
			o, err := objfile.Open(f, st.Size())
			if err != nil {
				t.Fatal(err)
			}
			var ok bool
			bias, ok = o.Bias(stack.Addr(b), stack.Addr(e), stack.FileOff(off))
			t.Log(ok, bias)
			syms, ok = FindSymbols(o)
			t.Log(ok, len(syms))
		}
	}
	_ = process.KindAnon
	mem, err := os.Open("/proc/" + pid + "/mem")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	v, err := Open(syms, bias, mem)
	t.Log("open", time.Since(began))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		began = time.Now()
		chunks, ranges, err := v.Refresh()
		t.Log("refresh", time.Since(began), len(chunks), ranges, err, len(v.known))
	}
	var lostBlobs, nm, rows int
	var bytes uint64
	for _, k := range v.known {
		rows += len(k.rows)
		name := v.blobNames[k.name]
		bytes += k.end - k.begin
		lost := uint64(0)
		for i, r := range k.rows[:len(k.rows)-1] {
			if r.Rule == v.code.Lost() {
				lost += k.rows[i+1].PC - r.PC
			}
		}
		if strings.HasSuffix(name, "nmethod") {
			nm++
			if lost > 0 {
				lostBlobs++
				t.Logf("LOST %s %#x-%#x %d of %d words %d complete %d", name, k.begin, k.end, lost, k.end-k.begin, k.words, k.complete)
			}
		} else if lost > 0 && !strings.HasPrefix(name, "C1 Run") {
			t.Logf("%s %#x: lost %d of %d, words %d", name, k.begin, lost, k.end-k.begin, k.words)
		}
	}
	t.Log(nm, "nmethods", lostBlobs, "with lost", rows, "rows", bytes, "code bytes")
	_ = unwind.AMD64
}
