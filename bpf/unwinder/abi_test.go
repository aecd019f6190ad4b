// SPDX-License-Identifier: GPL-2.0

package unwinder

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/unwind"
)

// enumerators reads the values of the enums and numeric macros of abi.h, as a C
// compiler counts them.
func enumerators(t *testing.T) map[string]int {
	t.Helper()
	text, err := os.ReadFile("abi.h")
	if err != nil {
		t.Fatal(err)
	}
	text = regexp.MustCompile(`(?s)/\*.*?\*/`).ReplaceAll(text, nil)
	values := make(map[string]int)
	for _, body := range regexp.MustCompile(`(?s)enum \w+ \{(.*?)\};`).FindAllSubmatch(text, -1) {
		next := 0
		for item := range strings.SplitSeq(string(body[1]), ",") {
			name, expr, given := strings.Cut(strings.TrimSpace(item), "=")
			if name = strings.TrimSpace(name); !regexp.MustCompile(`^UNW_\w+$`).MatchString(name) {
				continue
			}
			if given {
				next = evaluate(t, expr)
			}
			values[name] = next
			next++
		}
	}
	for _, m := range regexp.MustCompile(`#define (UNW_\w+) ([(\w <)]+)`).FindAllSubmatch(text, -1) {
		values[string(m[1])] = evaluate(t, string(m[2]))
	}
	return values
}

func evaluate(t *testing.T, expr string) int {
	t.Helper()
	expr = strings.NewReplacer("(", "", ")", "", "ULL", "").Replace(strings.TrimSpace(expr))
	base, shift, shifted := strings.Cut(expr, "<<")
	n, err := strconv.Atoi(strings.TrimSpace(base))
	if err != nil {
		t.Fatalf("abi.h: cannot evaluate %q", expr)
	}
	if shifted {
		by, err := strconv.Atoi(strings.TrimSpace(shift))
		if err != nil {
			t.Fatalf("abi.h: cannot evaluate %q", expr)
		}
		n <<= by
	}
	return n
}

func TestConstantsAgree(t *testing.T) {
	c := enumerators(t)
	for name, want := range map[string]int{
		"UNW_KIND_NONE": int(unwind.KindNone), "UNW_KIND_SP": int(unwind.KindSP), "UNW_KIND_FP": int(unwind.KindFP),
		"UNW_KIND_PLT": int(unwind.KindPLT), "UNW_KIND_GO": int(unwind.KindGo), "UNW_KIND_SIGNAL": int(unwind.KindSignal),
		"UNW_KIND_END": int(unwind.KindEnd), "UNW_KIND_WIDE": int(unwind.KindWide),
		"UNW_KIND_FP_WALK": int(unwind.KindFPWalk), "UNW_KIND_FP_JUMP": int(unwind.KindFPJump),
		"UNW_FP_SAME": unwind.FPSame, "UNW_FP_RECORD_AT_BASE": unwind.FPRecordAtBase, "UNW_FP_UNKNOWN": unwind.FPUnknown,
		"UNW_WHERE_SAME": int(unwind.WhereSame), "UNW_WHERE_CFA": int(unwind.WhereCFA), "UNW_WHERE_REG": int(unwind.WhereReg),
		"UNW_WHERE_FP": int(unwind.WhereFP), "UNW_WHERE_UNKNOWN": int(unwind.WhereUnknown),
		"UNW_MAP_NO_RULE": int(MapNoRule), "UNW_MAP_TABLE": int(MapTable), "UNW_MAP_FP": int(MapFP), "UNW_MAP_MISSING": int(MapMissing),
		"UNW_PROC_SETTLED":  procSettled,
		"UNW_FILTER_SAMPLE": filterSample, "UNW_FILTER_BASELINE": filterBaseline, "UNW_MAX_CGROUPS": MaxCgroups,
		"UNW_COST_WALK": costWalk, "UNW_COST_FRAME": costFrame, "UNW_COST_SAMPLE": costSample,
		"UNW_COST_BASELINE": costBaseline, "UNW_COSTS": numCosts, "UNW_COST_BUCKETS": costBuckets,
		"UNW_PROC_MAPPINGS": maxProcessMappings, "UNW_PAGE_ROWS": unwind.MaxPageRows, "UNW_MAX_USER": MaxUserFrames, "UNW_MAX_KERNEL": MaxKernelFrames,
		"UNW_WIDE_WORDS": unwind.WideWords, "UNW_REGS": unwind.NumRegs, "UNW_FP_WALK_MAX": unwind.FPWalkMax,
		"UNW_SHARD_WORDS": unwind.MaxPieceWords, "UNW_SHARDS": maxShards, "UNW_CHUNKS": maxChunks, "UNW_CHUNK_ENTRIES": chunkMappings,
	} {
		if got, ok := c[name]; !ok || got != want {
			t.Errorf("%s is %d in abi.h (found: %v), %d in Go", name, got, ok, want)
		}
	}
	if got := len(bpfUnwStats{}.Stops); stack.NumStops > got {
		t.Errorf("%d stops, but unw_stats counts %d", stack.NumStops, got)
	}
	if got := int(unsafe.Sizeof(bpfUnwMapping{})) * chunkMappings; got != chunkBytes {
		t.Errorf("a chunk of mappings has %d bytes, not %d", got, chunkBytes)
	}
}
