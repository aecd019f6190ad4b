// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/internal/unwindcheck"
	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/unwind"
)

const (
	largeFrames, smallFrames = 5_000_000, 100_000 // bytes of .eh_frame
	worstListed              = 12
	buildsPerRun             = 5
)

// tableFile is what is measured of one ELF file.
type tableFile struct {
	path   string
	frames int    // bytes of .eh_frame
	bytes  int    // of the table
	rows   int    // of the table
	cfi    int    // bytes of the table of .eh_frame alone
	code   uint64 // bytes that have call frame information, and
	lost   map[string]uint64
	why    error // what was malformed
}

func (f *tableFile) perRow() float64 { return float64(f.bytes) / float64(max(f.rows, 1)) }
func (f *tableFile) share() float64  { return 100 * float64(f.cfi) / float64(f.frames) }

// lostBytes is how much code no rule can express.
func (f *tableFile) lostBytes() (n uint64) {
	for _, bytes := range f.lost {
		n += bytes
	}
	return n
}

// expressed is the percentage of code whose rows have a rule.
func (f *tableFile) expressed() float64 {
	return 100 - 100*float64(f.lostBytes())/float64(max(f.code, 1))
}

// measureTables measures the tables of every ELF file below /usr/lib and /usr/bin.
func measureTables(ctx context.Context, b *bench) error {
	files, err := tableFiles(ctx, "/usr/lib", "/usr/bin")
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return errors.New("no ELF file with an .eh_frame below /usr/lib and /usr/bin")
	}
	b.Line("%d ELF files with an .eh_frame below /usr/lib and /usr/bin", len(files))
	tableSizes(b, files)
	tableCoverage(b, files)
	if err := tableSpeed(b); err != nil {
		return err
	}
	return tableTruth(ctx, b)
}

// tableFiles measures the ELF files below dirs that have an .eh_frame, each once
// however many names it has.
func tableFiles(ctx context.Context, dirs ...string) ([]tableFile, error) {
	var files []tableFile
	seen := map[[2]uint64]bool{}
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return ctx.Err() // directories nobody may read have nothing to run
			}
			var st unix.Stat_t
			if unix.Lstat(path, &st) != nil || seen[[2]uint64{st.Dev, st.Ino}] {
				return ctx.Err()
			}
			seen[[2]uint64{st.Dev, st.Ino}] = true
			if f, ok := measureFile(path); ok {
				files = append(files, f)
			}
			return ctx.Err()
		})
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", dir, err)
		}
	}
	return files, nil
}

// measureFile measures a file; false if it has no .eh_frame.
func measureFile(path string) (tableFile, bool) {
	o, file, err := objfile.OpenFile(path)
	if err != nil {
		return tableFile{}, false
	}
	defer file.Close()
	frames, _, _, _, err := o.EHFrame()
	if err != nil {
		return tableFile{}, false
	}
	f := tableFile{path: path, frames: len(frames)}
	coverage, err := unwind.Represent(o)
	f.code, f.lost = coverage.Code, coverage.Lost
	table, err2 := unwind.Build(o)
	cfi, err3 := unwind.BuildCFI(o)
	f.why = cmp.Or(err, err2, err3)
	if table == nil || cfi == nil || f.code == 0 {
		return f, false
	}
	f.bytes, f.cfi = tableBytes(table), tableBytes(cfi)
	for range table.Rows() {
		f.rows++
	}
	return f, true
}

func tableBytes(t *unwind.Table) int {
	n := 0
	for i := range t.Pieces {
		n += 4 * len(t.Pieces[i].Words)
	}
	return n
}

// sizeClass sums up files by the size of their .eh_frame.
type sizeClass struct {
	files, frames, bytes, cfi, rows int
	most                            float64 // bytes/row
	over                            int     // files whose share is above maxShare
}

const maxShare = 50 // percent of .eh_frame

func (c *sizeClass) add(f *tableFile) {
	c.files++
	c.frames, c.bytes, c.cfi, c.rows = c.frames+f.frames, c.bytes+f.bytes, c.cfi+f.cfi, c.rows+f.rows
	c.most = max(c.most, f.perRow())
	if f.share() > maxShare {
		c.over++
	}
}

// tableSizes judges how large tables are.
func tableSizes(b *bench, files []tableFile) {
	b.Line("")
	b.Line("%-22s %6s %12s %12s %7s %10s %10s %10s", ".eh_frame", "files", ".eh_frame", "tables", "share", "bytes/row", "most", "over 50 %")
	limits := []int{0, 1 << 10, 1 << 12, 1 << 14, 1 << 16, smallFrames, 1_000_000, largeFrames, 1 << 40}
	var all, small sizeClass
	for i, least := range limits[:len(limits)-1] {
		var c sizeClass
		for j := range files {
			if f := &files[j]; f.frames > least && f.frames <= limits[i+1] {
				c.add(f)
				all.add(f)
				if f.frames <= smallFrames {
					small.add(f)
				}
			}
		}
		if c.files > 0 {
			b.Line("%-22s %6d %12d %12d %6.1f%% %10.2f %10.2f %10d", fmt.Sprintf("over %d bytes", least), c.files, c.frames, c.bytes,
				100*float64(c.cfi)/float64(c.frames), float64(c.bytes)/float64(c.rows), c.most, c.over)
		}
	}
	b.Line("")
	demandMost(b, "bytes/row, .eh_frame > 5 MB, most", 1.3, "bytes", files, largeFrames, (*tableFile).perRow)
	demandMost(b, "bytes/row, .eh_frame > 100 KB, most", 3.2, "bytes", files, smallFrames, (*tableFile).perRow)
	demandMost(b, "table of .eh_frame > 100 KB, largest share", maxShare, "%", files, smallFrames, (*tableFile).share)
	b.Demand("tables of all .eh_frame together, share", 100*float64(all.cfi)/float64(all.frames), maxShare, false, "%")
	b.Line("%d of %d files up to 100 KB have a table of more than half their .eh_frame. Their runs are used once or", small.over, small.files)
	b.Line("twice, which costs a word a row, and a row is 6 bytes of .eh_frame. All of these tables take %.1f MiB.", float64(small.bytes)/(1<<20))
}

// demandMost judges the file with the most of something, of those whose .eh_frame
// is larger than least.
func demandMost(b *bench, name string, limit float64, unit string, files []tableFile, least int, of func(*tableFile) float64) {
	most, path := 0.0, "no such file"
	for i := range files {
		if f := &files[i]; f.frames > least && of(f) > most {
			most, path = of(f), f.path
		}
	}
	b.Demand(name, most, limit, false, unit)
	b.Line("    %s", path)
}

// tableCoverage judges how much code has rows that no rule expresses.
func tableCoverage(b *bench, files []tableFile) {
	b.Line("")
	var code, lost uint64
	reasons := map[string]uint64{}
	for i := range files {
		f := &files[i]
		code += f.code
		lost += f.lostBytes()
		for reason, n := range f.lost {
			reasons[reason] += n
		}
		if f.why != nil {
			b.Line("%s: %v", f.path, f.why)
		}
	}
	worst := slices.SortedFunc(slices.Values(files), func(x, y tableFile) int { return cmp.Compare(x.expressed(), y.expressed()) })
	b.Demand("code bytes with rules, of those with CFI", 100-100*float64(lost)/float64(code), 99.9, true, "%")
	b.Demand("the same, in the worst file", worst[0].expressed(), 99.9, true, "%")
	b.Line("%d of %d bytes have no rule:", lost, code)
	for _, reason := range slices.Sorted(maps.Keys(reasons)) {
		b.Line("%10d  %s", reasons[reason], reason)
	}
	b.Line("files with the largest part of such code:")
	for _, f := range worst[:min(worstListed, len(worst))] {
		if f.lostBytes() == 0 {
			break
		}
		b.Line("%9.4f %%  %7d of %9d bytes  %s", f.expressed(), f.lostBytes(), f.code, f.path)
		for _, reason := range slices.Sorted(maps.Keys(f.lost)) {
			b.Line("    %10d  %s", f.lost[reason], reason)
		}
	}
}

// tableSpeed judges how fast the tables published first are made, all that
// unwind.BuildFirst does included.
func tableSpeed(b *bench) error {
	b.Line("")
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for _, name := range []string{"libLLVM", "node, frame pointers"} {
		i := slices.IndexFunc(unwindcheck.Files, func(f unwindcheck.File) bool { return f.Name == name })
		path := unwindcheck.Files[i].Path()
		if path == "" {
			return fmt.Errorf("%s: no %s is installed", name, unwindcheck.Files[i].Pattern)
		}
		if err := fileSpeed(b, path); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// fileSpeed judges how fast the table of one file is made.
func fileSpeed(b *bench, path string) error {
	o, file, err := objfile.OpenFile(path)
	if err != nil {
		return err
	}
	defer file.Close()
	frames, _, _, _, err := o.EHFrame()
	if err != nil {
		return err
	}
	first, err := buildTime(b, o, unwind.BuildFirst)
	if err != nil {
		return err
	}
	all, err := buildTime(b, o, unwind.Build)
	if err != nil {
		return err
	}
	cfi, err := buildTime(b, o, unwind.BuildCFI)
	if err != nil {
		return err
	}
	rate := func(ms float64) float64 { return float64(len(frames)) / ms / 1000 }
	b.Demand("table published first of "+filepath.Base(path), rate(first), 90, true, "MB/s")
	b.Line("    %d bytes of .eh_frame: %.1f ms of CPU time for the table published first, %.1f ms (%.1f MB/s) from call frame", len(frames), first, cfi, rate(cfi))
	b.Line("    information alone; %.1f ms (%.1f MB/s) for the table that a sample in code without any has made", all, rate(all))
	return nil
}

// buildTime returns the CPU time of build, in milliseconds, the median of many.
func buildTime(b *bench, o *objfile.Object, build func(*objfile.Object) (*unwind.Table, error)) (float64, error) {
	var times []float64
	for range b.runs * buildsPerRun {
		runtime.GC()
		before, err := cpuTime()
		if err != nil {
			return 0, err
		}
		t, err := build(o)
		if err != nil {
			return 0, err
		}
		after, err := cpuTime()
		if err != nil {
			return 0, err
		}
		runtime.KeepAlive(t)
		times = append(times, float64(after-before)/1e6)
	}
	return median(times), nil
}

// cpuTime is the CPU time of the process, that of its garbage collector included.
func cpuTime() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts); err != nil {
		return 0, fmt.Errorf("read CPU clock: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}

// tableTruth judges whether tables say what readelf says.
func tableTruth(ctx context.Context, b *bench) error {
	b.Line("")
	rows, differ := 0, 0
	excluded := map[string]int{}
	for _, f := range unwindcheck.Files {
		if err := ctx.Err(); err != nil {
			return err
		}
		path := f.Path()
		if path == "" {
			b.Line("%-34s is not installed", f.Name)
			continue
		}
		res, err := unwindcheck.Compare(ctx, path)
		if err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
		b.Line("%-34s %9d rows, %d disagree", f.Name, res.Rows, res.Differ)
		for _, e := range res.Examples {
			b.Line("    %s", e)
		}
		rows, differ = rows+res.Rows, differ+res.Differ
		for reason, n := range res.Excluded {
			excluded[reason] += n
		}
	}
	b.Demand("rows compared with readelf", float64(rows), 300_000, true, "")
	b.Demand("rows that disagree", float64(differ), 0, false, "")
	b.Line("rows of which a part could not be compared, the rest agreeing:")
	for _, reason := range slices.Sorted(maps.Keys(excluded)) {
		b.Line("%10d  %s", excluded[reason], reason)
	}
	return nil
}
