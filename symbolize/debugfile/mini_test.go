// SPDX-License-Identifier: Apache-2.0

package debugfile

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/lowflame/lowflame/internal/testutil"
	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/symbolize"
)

// addMini gives a stripped program what Fedora's find-debuginfo does: the functions that
// are not dynamic symbols, compressed. See "MiniDebugInfo" in the manual of GDB.
func addMini(t testing.TB, p *place, xz ...string) {
	t.Helper()
	const script = `cd "$1"; whole=$2; program=$3; shift 3
nm -D "$program" --format=posix --defined-only | awk '{print $1}' | sort >dynamic
nm "$whole" --format=posix --defined-only | awk '{if ($2 == "T" || $2 == "t" || $2 == "D") print $1}' | sort >functions
comm -13 dynamic functions >keep
objcopy --only-keep-debug "$whole" debug
objcopy -S --remove-section .gdb_index --remove-section .comment --keep-symbols=keep debug mini
xz "$@" -c mini >mini.xz
objcopy --add-section .gnu_debugdata=mini.xz "$program"`
	run(t, "", append([]string{"sh", "-ec", script, "sh", t.TempDir(), p.whole, p.at(p.program)}, xz...)...)
}

func TestMiniDebugInfo(t *testing.T) {
	for name, options := range map[string][]string{
		"as Fedora does":     nil,
		"CRC-32":             {"--check=crc32"},
		"SHA-256":            {"--check=sha256"},
		"no checksum":        {"--check=none"},
		"many blocks":        {"--block-size=1000", "-T2"},
		"gigantic window":    {"--lzma2=dict=1536MiB"},
		"smallest window":    {"--lzma2=dict=4096"},
		"other properties":   {"--lzma2=lc=0,lp=2,pb=0"},
		"sizes in the block": {"-T1", "--block-size=100000000"},
	} {
		t.Run(name, func(t *testing.T) {
			p := build(t)
			addMini(t, p, options...)
			whole := testutil.OpenObject(t, p.whole)
			found := p.find(Config{})
			if found.Symbols == nil || found.Symbols.Source != SourceMini || found.Debug != nil {
				t.Fatalf("found %+v", found)
			}
			s := symbolize.New(symbolize.Config{})
			b := &symbolize.Binary{ID: "program", Object: p.object, Debug: found.Symbols.Object}
			for _, function := range []string{"hidden", "main"} {
				if lines := s.User(b, addressOf(t, whole, function)); len(lines) != 1 || lines[0].Name != function {
					t.Errorf("%s is %+v", function, lines)
				}
			}
		})
	}
	t.Run("a debug file is better", func(t *testing.T) {
		p := build(t)
		addMini(t, p)
		p.put(debugAt)
		p.find(Config{}).want(t, SourceBuildID, debugAt)
	})
}

// TestBadMini gives a program something else in .gnu_debugdata.
func TestBadMini(t *testing.T) {
	small := New(Config{}).c.MaxMiniBytes
	tests := []struct {
		name    string
		content string // a shell command
		max     int64
		reason  Reason
	}{
		{"text", "echo no xz", 0, ReasonMalformed},
		{"nothing", "true", 0, ReasonMalformed},
		{"gzip", "echo a | gzip", 0, ReasonMalformed},
		{"compressed text", "echo a | xz", 0, ReasonMalformed},
		{"half of it", "seq 100000 | xz | head -c 20000", 0, ReasonMalformed},
		{"a filter", "cat /bin/sh | xz --x86 --lzma2", 0, ReasonMalformed},
		{"a bomb", "head -c 20M /dev/zero | xz", 0, ReasonTooLarge},
		{"more than the limit", "cat /bin/sh | xz", 5000, ReasonTooLarge},
		{"more than is left", "cat /bin/sh | xz", small, ReasonTooLarge},
		{"no symbols", "cat /bin/sh | xz", 0, ReasonEmpty},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := build(t)
			section := filepath.Join(t.TempDir(), "section")
			run(t, "", "sh", "-c", tt.content+` >"$1"; objcopy --add-section .gnu_debugdata="$1" "$2"`, "sh", section, p.at(p.program))
			f := New(Config{MaxMiniBytes: tt.max})
			if tt.name == "more than is left" {
				f.mini.Store(4 * small)
			}
			before := f.mini.Load()
			found := f.Find(p.open(), p.program, []string{p.root})
			found.wantMiss(t, tt.reason, p.program)
			if err := found.Close(); err != nil || f.mini.Load() != before {
				t.Errorf("close: %v, %d bytes counted", err, f.mini.Load()-before)
			}
		})
	}
}

// TestMiniMemory decompresses what asks for a window of 1.5 GiB.
func TestMiniMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data.xz")
	run(t, "", "sh", "-c", `seq 1000000 | xz -0 --lzma2=preset=0,dict=1536MiB >"$1"`, "sh", path)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := decompressXZ(io.Discard, bufio.NewReader(bytes.NewReader(data)), 8<<20); err != nil {
		t.Error(err)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 32<<20 {
		t.Errorf("%d MiB allocated", got>>20)
	}
}

// TestXZChecksum changes each byte of a file in turn.
func TestXZChecksum(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data.xz")
	run(t, "", "sh", "-c", `seq 100 | xz >"$1"`, "sh", path)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := new(bytes.Buffer)
	if err := decompressXZ(want, bufio.NewReader(bytes.NewReader(data)), 1<<20); err != nil {
		t.Fatal(err)
	}
	for i := range data {
		changed := bytes.Clone(data)
		changed[i] ^= 0x10
		got := new(bytes.Buffer)
		err := decompressXZ(got, bufio.NewReader(bytes.NewReader(changed)), 1<<20)
		if err == nil && !bytes.Equal(got.Bytes(), want.Bytes()) {
			t.Errorf("byte %d: other data, no error", i)
		}
		if err != nil && !errors.Is(err, errXZ) {
			t.Errorf("byte %d: %v", i, err)
		}
	}
}

func FuzzXZ(f *testing.F) {
	for _, options := range []string{"", "--check=sha256 --block-size=500", "--check=none -0"} {
		path := filepath.Join(f.TempDir(), "data.xz")
		run(f, "", "sh", "-c", `seq 300 | xz $2 >"$1"`, "sh", path, options)
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(data[:len(data)/2])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		const limit = 1 << 20
		w := &counter{limit: limit}
		err := decompressXZ(w, bufio.NewReader(bytes.NewReader(data)), limit)
		if err != nil && !errors.Is(err, errXZ) && !errors.Is(err, objfile.ErrTooLarge) {
			t.Errorf("error of no kind: %v", err)
		}
		if len(data) == 0 {
			return
		}
		// Checksums keep most of what is tried from the decoder.
		stream := append(xzPrefix(data[0]), data[1:]...)
		if err := decompressXZ(&counter{limit: limit}, bufio.NewReader(bytes.NewReader(stream)), limit); err == nil {
			t.Error("a stream without an end was taken")
		}
	})
}

// xzPrefix returns what precedes the data of a block: the header of a stream with
// CRC-32 and that of a block with a window by its property.
func xzPrefix(property byte) []byte {
	flags := []byte{0, 1}
	b := append([]byte(xzMagic), flags...)
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(flags))
	header := []byte{2, 0, lzma2Filter, 1, property % 41, 0, 0, 0}
	return binary.LittleEndian.AppendUint32(append(b, header...), crc32.ChecksumIEEE(header))
}

// counter takes so many bytes.
type counter struct{ n, limit int }

func (c *counter) Write(p []byte) (int, error) {
	if c.n += len(p); c.n > c.limit {
		return 0, objfile.ErrTooLarge
	}
	return len(p), nil
}
