// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"time"

	"github.com/go-kit/log/level"

	"github.com/lowflame/lowflame/bpf/unwinder"
	"github.com/lowflame/lowflame/unwind"
)

// complete replaces the table of a file by one that code without call frame
// information has been looked at for. It returns whether it did: false if the
// table was not partial. It is tried once, whatever comes of it.
//
// Processes that use the old table have to be published again, see
// publisher.completed. Its memory is kept: a child being forked copies what the
// program knows of its parent, and no one can tell which table that is. There is
// one such table at most for each large file.
func (f *files) complete(one *file) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	old := one.table.Load()
	if old == nil || !old.Table.Partial || one.looked {
		return false
	}
	one.looked = true
	began := time.Now()
	table, err := unwind.Build(one.object)
	var in *unwinder.InstalledTable
	if table != nil && len(table.Pieces) > 0 {
		in, err = f.unwinder.InstallTable(table)
	}
	level.Debug(f.logger).Log("msg", "completed table", "path", one.path, "took", time.Since(began), "err", err)
	if in == nil {
		return false
	}
	one.table.Store(in)
	return true
}
