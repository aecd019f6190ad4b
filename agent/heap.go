// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os"
	"runtime/debug"
	"runtime/metrics"
)

// Garbage collection: rare while memory is small, and as often as it takes to
// stay near heapLimit. What lives beyond that gets its own size as slack, or the
// collector would never rest.
const (
	heapLimit = 48 << 20
	gcPercent = 200
)

// boundHeap sets both, unless the user has with GOGC or GOMEMLIMIT. Call it now
// and then: what lives grows.
func boundHeap() {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	debug.SetGCPercent(gcPercent)
	debug.SetMemoryLimit(max(heapLimit, 2*int64(live[0].Value.Uint64())))
}
