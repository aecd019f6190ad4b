// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/google/pprof/profile"

	"github.com/lowflame/lowflame/benchmarks/measure"
	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/symbolize/debugfile"
)

// garbage is a Java program whose collector, in libjvm, is busy.
const garbage = `class Garbage {
	public static void main(String[] a) {
		java.util.ArrayList<int[]> kept = new java.util.ArrayList<>();
		for (long i = 0; ; i++) {
			kept.add(new int[64]);
			if (kept.size() > 400000) kept.clear();
		}
	}
}
`

// machine records the whole machine while a Java program and an interpreter with
// debugging information are busy, and looks at what frames were given.
func (b *bench) machine(ctx context.Context, jvm, python string) error {
	lowflame, err := measure.Build(ctx, b.dir)
	if err != nil {
		return err
	}
	source := filepath.Join(b.dir, "Garbage.java")
	if err := os.WriteFile(source, []byte(garbage), 0o644); err != nil {
		return err
	}
	java := filepath.Join(filepath.Dir(jvm), "../../bin/java")
	for _, command := range [][]string{
		{java, "-Xmx512m", source},
		{python, "-c", "while True: sorted(str(i) for i in range(100000))"},
	} {
		stop, err := background(ctx, command)
		if err != nil {
			return err
		}
		defer stop()
	}
	cache := filepath.Join(b.dir, "cache")
	run, err := measure.Record(ctx, lowflame, "-a", "-d", "10s", "--symbols=full", "--symbols-wait=2m", "--symbol-cache", cache)
	if err != nil {
		return err
	}
	return b.frames(ctx, run.Profile)
}

// background starts a program in a process group of its own, which stop ends.
func background(ctx context.Context, command []string) (stop func(), err error) {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", command[0], err)
	}
	return func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // it may have ended
		_ = cmd.Wait()
	}, nil
}

// fileFrames counts the frames of samples in a file.
type fileFrames struct {
	file             string
	all, named, line int64
	symbols          bool
	debug            string           // the file with its DWARF, "" if there is none
	bare             map[uint64]int64 // frames without a line, by address
	known            int64            // of those, frames of which the peer knows a line
}

// countFrames counts the frames of p by file.
func (b *bench) countFrames(p *profile.Profile) map[string]*fileFrames {
	files := make(map[string]*fileFrames)
	for _, s := range p.Sample {
		for _, l := range s.Location {
			if l.Mapping == nil || !strings.HasPrefix(l.Mapping.File, "/") || strings.HasPrefix(l.Mapping.File, "//") {
				continue // the kernel, code made at run time
			}
			f := files[l.Mapping.File]
			if f == nil {
				f = &fileFrames{file: l.Mapping.File, bare: make(map[uint64]int64)}
				if err := f.look(l.Mapping.BuildID); err != nil {
					b.report.Line("  not looked at: %s: %v", f.file, err)
				}
				files[l.Mapping.File] = f
			}
			f.add(l, s.Value[0])
		}
	}
	return files
}

// add counts n frames at l.
func (f *fileFrames) add(l *profile.Location, n int64) {
	f.all += n
	if len(l.Line) > 0 {
		f.named += n
	}
	if len(l.Line) > 0 && l.Line[0].Line > 0 && l.Line[0].Function.Filename != "" {
		f.line += n
	} else {
		f.bare[l.Address] += n // a link-time address, see agent's file.mapping
	}
}

// frames judges how many frames of p have names and lines.
func (b *bench) frames(ctx context.Context, p *profile.Profile) error {
	files := b.countFrames(p)
	var symbols, named, dwarf, lines int64
	order := make([]*fileFrames, 0, len(files))
	for _, f := range files {
		order = append(order, f)
		if f.symbols {
			symbols, named = symbols+f.all, named+f.named
		}
		if f.debug != "" {
			if err := f.askPeer(ctx); err != nil {
				return err
			}
			dwarf, lines = dwarf+f.line+f.known, lines+f.line
		}
	}
	if symbols == 0 || dwarf == 0 {
		return errors.New("the recording has no frames to judge")
	}
	slices.SortFunc(order, func(x, y *fileFrames) int { return int(y.all - x.all) })
	b.report.Line("whole machine, 10 s: %d files", len(files))
	for _, f := range order[:min(12, len(order))] {
		b.report.Line("  %7d frames, %6.2f %% named, %6.2f %% with lines, the peer knows %.2f %% more; symbols %-5v DWARF %-5v %s", f.all,
			percent(f.named, f.all), percent(f.line, f.all), percent(f.known, f.all), f.symbols, f.debug != "", f.file)
	}
	b.report.Demand("machine: frames named, files with symbols", percent(named, symbols), 99.5, true, "%")
	b.report.Demand("machine: frames with lines, of those with DWARF", percent(lines, dwarf), 99, true, "%")
	return nil
}

// look finds out what there is to know of a file.
func (f *fileFrames) look(buildID string) error {
	o, handle, err := objfile.OpenFile(f.file)
	if err != nil {
		return err
	}
	defer handle.Close()
	if o.BuildID.String() != buildID {
		return fmt.Errorf("build ID %s, in the profile %s", o.BuildID, buildID)
	}
	found := debugfile.New(debugfile.Config{}).Find(o, f.file, []string{"/"})
	defer found.Close()
	if found.Debug != nil {
		f.debug = filepath.Join(found.Debug.Root, found.Debug.Path)
	}
	_, err = o.Symbols(objfile.SymTab)
	f.symbols = err == nil || found.Symbols != nil
	return nil
}

// askPeer counts the frames without a line of which the peer knows one: of start-up
// code and assembly DWARF says nothing.
func (f *fileFrames) askPeer(ctx context.Context) error {
	addrs := slices.Sorted(maps.Keys(f.bare))
	answers, _, err := askLLVM(ctx, f.debug, addrs)
	if err != nil {
		return err
	}
	for i, a := range answers {
		if len(a) > 0 && !hasNoLine(a[0]) {
			f.known += f.bare[addrs[i]]
		}
	}
	return nil
}

func percent(part, whole int64) float64 { return 100 * float64(part) / float64(max(whole, 1)) }
