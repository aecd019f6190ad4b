// SPDX-License-Identifier: Apache-2.0

package agent

import "github.com/go-kit/log/level"

// addDebug opens the symbols of a file that are in one of their own, or compressed
// in it.
func (f *files) addDebug(loaded *file, roots []string) {
	found := f.debug.Symbols(loaded.object, loaded.path, roots)
	for _, m := range found.Missing {
		level.Debug(f.logger).Log("msg", "no symbols there", "path", loaded.path, "tried", m.Place, "reason", m.Reason, "err", m.Err)
	}
	if found.Symbols == nil || found.Symbols.Handle == nil {
		return
	}
	f.debugs++
	loaded.debug, loaded.binary.Debug = found.Symbols, found.Symbols.Object
}
