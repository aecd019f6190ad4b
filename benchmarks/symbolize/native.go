// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/lowflame/lowflame/objfile"
)

const (
	asked = 10_000 // addresses
	mib   = 1 << 20
	// largeFile is the size of debugging information from which a build may take more.
	largeFile = 512 * mib
)

// debugOf returns the debug file of an installed file.
func debugOf(file string) (string, error) {
	o, handle, err := objfile.OpenFile(file)
	if err != nil {
		return "", err
	}
	defer handle.Close()
	id := o.BuildID.String()
	if len(id) < 3 {
		return "", fmt.Errorf("%s has no build ID", file)
	}
	return filepath.Join("/usr/lib/debug/.build-id", id[:2], id[2:]+".debug"), nil
}

// native measures a file with DWARF: as it is, and with its sections decompressed if
// they are compressed.
func (b *bench) native(ctx context.Context, name, file string) error {
	plain := filepath.Join(b.dir, "plain")
	if out, err := exec.CommandContext(ctx, "objcopy", "--decompress-debug-sections", file, plain).CombinedOutput(); err != nil {
		return fmt.Errorf("decompress %s: %w\n%s", file, err, out)
	}
	defer os.Remove(plain)
	debugBytes, err := debugSize(plain)
	if err != nil {
		return err
	}
	before, err := os.Stat(file)
	if err != nil {
		return err
	}
	after, err := os.Stat(plain)
	if err != nil {
		return err
	}
	b.report.Line("%s: %s, %d MiB, %d MiB of debugging information", name, file, before.Size()/mib, debugBytes/mib)
	if after.Size() > before.Size()+before.Size()/10 {
		if err := b.nativeFile(ctx, name+", compressed", file, debugBytes); err != nil {
			return err
		}
	}
	return b.nativeFile(ctx, name+", uncompressed", plain, debugBytes)
}

func (b *bench) nativeFile(ctx context.Context, name, file string, debugBytes int64) error {
	symbols, err := functionSymbols(file)
	if err != nil {
		return err
	}
	addrs, aliases := spread(symbols, asked), symbolAliases(symbols)
	want, theirs, err := askLLVM(ctx, file, addrs)
	if err != nil {
		return err
	}
	to := filepath.Join(b.dir, "index")
	defer os.Remove(to)
	_, built, err := runTool(ctx, nil, b.self, modeBuild, file, to)
	if err != nil {
		return err
	}
	out, warm, err := runTool(ctx, addrs, b.self, modeQuery, to)
	if err != nil {
		return err
	}
	got, err := parseAnswers(out, len(addrs))
	if err != nil {
		return err
	}
	st, err := os.Stat(to)
	if err != nil {
		return err
	}
	v := compareAnswers(addrs, want, got, aliases)
	b.report.Line("  %s: %s %v; build %v; %d addresses %v", name, peer, theirs, built, len(addrs), warm)
	b.report.Line("  agreement %v", v)
	for _, example := range v.examples {
		b.report.Line("  %s", example)
	}
	peak := 100.0
	if debugBytes > largeFile {
		peak = 128
	}
	b.report.Demand(name+": agreement", v.percent(), 99.5, true, "%")
	if debugBytes < 100*mib {
		return nil // the bars are for large files
	}
	b.report.Demand(name+": index warm ÷ peer, CPU", warm.cpu.Seconds()/theirs.cpu.Seconds(), 1.0/20, false, "")
	b.report.Demand(name+": index warm, peak memory", float64(warm.rss)/mib, 20, false, "MiB")
	b.report.Demand(name+": build ÷ peer, CPU", built.cpu.Seconds()/theirs.cpu.Seconds(), 1, false, "")
	b.report.Demand(name+": build, peak memory", float64(built.rss)/mib, peak, false, "MiB")
	b.report.Demand(name+": index ÷ debugging information", 100*float64(st.Size())/float64(debugBytes), 6, false, "%")
	return nil
}

// debugSize is the size of the debug sections of a file.
func debugSize(file string) (int64, error) {
	f, err := elf.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var n int64
	for _, s := range f.Sections {
		if strings.HasPrefix(s.Name, ".debug_") {
			n += int64(s.Size)
		}
	}
	return n, nil
}
