// SPDX-License-Identifier: Apache-2.0

package symbolize

import (
	"github.com/lowflame/lowflame/symbolize/jit"
	"github.com/lowflame/lowflame/symbolize/kernel"
)

// Stats counts what a Symbolizer did since New, and what it holds now.
type Stats struct {
	Named   uint64 // addresses that got a name
	Unnamed uint64 // addresses that got none
	Errors  uint64 // lookups that met a file that could not be read

	Tables     uint64 // symbol tables of ELF files held
	TableBytes uint64 // their heap
	Builds     uint64 // how often one was built
	GoTables   uint64 // tables of Go programs held
	GoOpens    uint64 // how often one was opened
	CacheBytes uint64 // heap of results

	Kernel kernel.Stats
	JIT    jit.Stats
}

func (s *Stats) count(named bool) {
	if named {
		s.Named++
	} else {
		s.Unnamed++
	}
}

// Stats returns the counters.
func (s *Symbolizer) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	tables, bytes, builds := s.elf.Stats()
	st.Tables, st.TableBytes, st.Builds = uint64(tables), uint64(bytes), builds
	tables, opens := s.golang.Stats()
	st.GoTables, st.GoOpens = uint64(tables), opens
	st.CacheBytes = uint64(s.locations.Cost() + s.funcs.Cost() + s.named.Cost() + s.strings.Cost())
	st.Kernel, st.JIT = s.kernel.Stats(), s.jit.Stats()
	return st
}
