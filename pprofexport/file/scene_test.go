// SPDX-License-Identifier: Apache-2.0

package file

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/lowflame/lowflame/pprofexport"
	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/symbolize"
)

const hostileName = `</script><img src=x onerror=alert(1)><!--<script>"'&;` + "\n\u2028{{data}}"

func testBuilder() *pprofexport.Builder {
	return pprofexport.NewBuilder(pprofexport.Info{
		Start: time.Unix(1700000000, 0), Period: 10 * time.Millisecond, Version: "v0-test",
	})
}

func frameAt(m *pprofexport.Mapping, addr uint64, names ...string) *pprofexport.Frame {
	f := &pprofexport.Frame{Addr: addr, Mapping: m}
	for i, n := range names {
		f.Lines = append(f.Lines, symbolize.Line{Name: n, SystemName: "_Z" + n, File: "/src/" + n + ".c", Line: int64(10 + i), StartLine: 7})
	}
	return f
}

// scene is a small profile with one of everything.
func scene(t testing.TB) *profile.Profile {
	t.Helper()
	app := &pprofexport.Mapping{Begin: 0x400000, End: 0x500000, Off: 0x1000, File: "/opt/app", BuildID: "ccdd", Main: true}
	libc := &pprofexport.Mapping{Begin: 0x7f0000000000, End: 0x7f0000200000, Off: 0x28000, File: "/usr/lib/libc.so.6", BuildID: "aabb"}
	jit := pprofexport.AnonMapping(0x7e0000000000, 0x7e0000010000)
	main := frameAt(app, 0x400100, "main")
	work := frameAt(app, 0x400200, "inner", "work")
	spin := frameAt(app, 0x400300, "spin")
	evil := frameAt(app, 0x400400, hostileName)
	read := frameAt(pprofexport.KernelMapping(""), 0xffffffff81000010, "ksys_read")
	nft := frameAt(pprofexport.KernelMapping("nf_tables"), 0xffffffffc0000010, "nft_do_chain")
	compiled := frameAt(jit, 0x7e0000000100, "Lfoo;.bar")
	bare := &pprofexport.Frame{Addr: 0x7f0000001234, Mapping: libc}
	lost := &pprofexport.Frame{Addr: 0x1234}

	b := testBuilder()
	one := pprofexport.Labels{PID: 7, Comm: "app", Thread: "worker"}
	two := pprofexport.Labels{PID: 8, Comm: "other app", Thread: "t\n2"}
	add := func(n int64, l pprofexport.Labels, stop stack.Stop, frames ...*pprofexport.Frame) {
		b.Add(pprofexport.Sample{Frames: frames, Labels: l, Count: n, Stop: stop})
	}
	add(50, one, stack.StopEnd, spin, main)
	add(20, one, stack.StopEnd, work, main)
	add(10, one, stack.StopEnd, read, bare, work, main)
	add(8, two, stack.StopEnd, compiled, main)
	add(6, two, stack.StopNoRule, nft, read, bare)
	add(4, one, stack.StopEnd, evil, spin, main)
	add(1, two, stack.StopKthread, nft)
	add(1, pprofexport.Labels{}, stack.StopNoMapping, lost)
	return build(t, b)
}

func build(t testing.TB, b *pprofexport.Builder) *profile.Profile {
	t.Helper()
	p, err := b.Profile(pprofexport.Quality{Duration: 10 * time.Second, CPU: 30 * time.Millisecond, MemoryBytes: 40 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// forest is a profile whose call tree has about n nodes, the same each time.
func forest(t testing.TB, n int) *profile.Profile {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	app := &pprofexport.Mapping{Begin: 0x400000, End: 0x4000000, File: "/opt/app", Main: true}
	var frames []*pprofexport.Frame
	for i := range 3000 {
		frames = append(frames, frameAt(app, 0x400000+uint64(i), fmt.Sprintf("pkg%d.Function%d", i%40, i)))
	}
	b := testBuilder()
	var path []*pprofexport.Frame // outermost first
	for nodes := 0; nodes < n; {
		path = path[:max(0, len(path)-1-int(r.ExpFloat64()*6))]
		for grown := false; !grown || r.IntN(4) > 0 && len(path) < 60; grown = true {
			branch := r.IntN(2 + len(path)/3) // the deeper, the more ways to go on
			path = append(path, frames[(len(path)*53+branch*7)%len(frames)])
			nodes++
		}
		leafFirst := make([]*pprofexport.Frame, len(path))
		for i, f := range path {
			leafFirst[len(path)-1-i] = f
		}
		b.Add(pprofexport.Sample{Frames: leafFirst, Count: 1 + int64(r.IntN(20)), Stop: stack.StopEnd})
	}
	return build(t, b)
}

// comb is a profile of stacks that have nothing in common.
func comb(t testing.TB, stacks, depth int) *profile.Profile {
	t.Helper()
	app := &pprofexport.Mapping{Begin: 0x400000, End: 0x4000000, File: "/opt/app", Main: true}
	b := testBuilder()
	for i := range stacks {
		var frames []*pprofexport.Frame
		for j := range depth {
			frames = append(frames, frameAt(app, 0x400000+uint64(i*depth+j), fmt.Sprintf("f%d_%d", i, j)))
		}
		b.Add(pprofexport.Sample{Frames: frames, Count: 5, Stop: stack.StopEnd})
	}
	return build(t, b)
}
