// SPDX-License-Identifier: Apache-2.0

package layers

import "slices"

// Rules is what Check holds a tree to. Packages are written as their directory
// below the module's root; "x/..." matches x and everything below it.
type Rules struct {
	Module string
	// Imports lists, per package, the packages of the module that its code may
	// import. The most specific key wins. A package without a key is an error:
	// whoever adds one decides which layer it is in.
	Imports map[string][]string
	// Homes lists, per outside module, the packages that may import it.
	// A module without a key may be imported by no one.
	Homes map[string][]string
	// TestOnly are outside modules that only tests import.
	TestOnly []string
	// Restricted lists, per package of the standard library, the packages that
	// may import it; standard packages without a key are free.
	Restricted map[string][]string
	// Starters are the packages that may start goroutines.
	Starters []string
	// Free are packages held only to Imports and Homes: what runs beside the
	// program rather than in it.
	Free []string
}

// Lowflame returns the rules of this module. Layers, lowest first:
//
//	stack, objfile                  0
//	process, unwind, symbolize      1
//	interp/*                        2
//	bpf/unwinder, pprofexport       3
//	pprofexport/*, store, regress   4
//	agent, web                      5
//	cmd/*, benchmarks/*             6
//
// No import goes up, none goes sideways within a layer.
func Lowflame() Rules {
	ground := []string{"stack", "objfile/...", "internal/hostile"}
	names := slices.Concat(ground, []string{"process", "symbolize/..."})
	export := []string{"process", "stack", "symbolize", "pprofexport"}
	agent := slices.Concat(names, []string{
		"unwind", "interp/...", "bpf/unwinder", "pprofexport/...", "store", "regress", "internal/preflight",
	})
	return Rules{
		Module: "github.com/lowflame/lowflame",
		Imports: map[string][]string{
			"internal/hostile":    nil,
			"stack":               nil,
			"objfile/...":         ground,
			"process":             ground,
			"unwind":              ground,
			"symbolize/...":       append([]string{"symbolize/..."}, ground...),
			"interp/...":          append([]string{"interp", "unwind"}, names...),
			"bpf/unwinder":        {"stack", "unwind", "interp/..."},
			"pprofexport":         {"process", "stack", "symbolize"},
			"pprofexport/...":     {"pprofexport"},
			"store":               export,
			"regress":             export,
			"agent":               agent,
			"web":                 {"store", "regress", "pprofexport/..."},
			"cmd/...":             append([]string{"agent", "web"}, agent...),
			"benchmarks/...":      {"..."},
			"internal/preflight":  nil,
			"internal/layers":     nil,
			"internal/readelf":    nil,
			"internal/testreport": nil,
			"internal/testutil":   {"stack", "objfile"},
			// Compares what unwind makes; unwind's own tests use readelf alone.
			"internal/unwindcheck": {"stack", "objfile", "unwind", "internal/readelf"},
			"internal/gen/...":     nil,

			"internal/kernelmatrix/...": {"benchmarks/...", "pprofexport"},
		},
		Homes: map[string][]string{
			"github.com/cilium/ebpf":              {"bpf/unwinder"},
			"github.com/google/pprof":             {"pprofexport/...", "store", "regress", "web", "benchmarks/...", "internal/kernelmatrix/..."},
			"github.com/go-kit/log":               {"cmd/...", "agent", "pprofexport/..."},
			"github.com/alecthomas/kong":          {"cmd/..."},
			"github.com/klauspost/compress":       {"objfile/...", "pprofexport/...", "store"},
			"github.com/ianlancetaylor/demangle":  {"symbolize/..."},
			"github.com/ulikunitz/xz":             {"symbolize/debugfile"},
			"github.com/prometheus/client_golang": {"agent"},
			"github.com/parca-dev/parca":          {"pprofexport/parca"},
			"google.golang.org/grpc":              {"pprofexport/parca"},
			"golang.org/x/sync":                   {"agent"},
			"golang.org/x/sys": {
				"internal/hostile", "process", "bpf/unwinder", "symbolize/...", "agent", "cmd/...", "internal/preflight",
				"benchmarks/...", "internal/kernelmatrix/...",
			},
		},
		TestOnly: []string{"github.com/google/go-cmp", "golang.org/x/arch"},
		Restricted: map[string][]string{
			"C":           nil, // one static binary
			"os/exec":     {"cmd/...", "agent", "symbolize/builder"},
			"os/signal":   {"cmd/..."},
			"math/rand":   nil, // guessable ids; crypto/rand costs nothing at our rates
			"debug/dwarf": nil, // these three disclaim hardening against hostile files
			"debug/gosym": nil,
			"plugin":      nil,

			"math/rand/v2": nil,
		},
		Starters: []string{"agent", "cmd/..."},
		Free: []string{
			"benchmarks/...", "internal/testutil", "internal/testreport", "internal/gen/...", "internal/readelf", "internal/unwindcheck", "internal/kernelmatrix/...",
		},
	}
}
