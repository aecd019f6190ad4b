// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"strconv"

	"github.com/lowflame/lowflame/stack"
)

// module is one line of /proc/modules. size counts all of a module's memory,
// which since Linux 6.4 need not be in one piece, so start+size bounds its code
// only from above.
type module struct {
	name, state string
	start       stack.Addr
	size        uint64
}

// maxModules bounds the size of /proc/modules, a line of which is some 80 bytes.
const maxModules = 4 << 20

// readModules returns the loaded modules; a kernel built without modules has no
// such file and gives none.
func readModules(path string) ([]module, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read kernel modules: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxModules))
	if err != nil {
		return nil, fmt.Errorf("read kernel modules: %w", err)
	}
	return parseModules(b), nil
}

// parseModules reads lines "name size refs users state 0xstart [taints]"
// (kernel: m_show in kernel/module/procfs.c).
func parseModules(b []byte) []module {
	var mods []module
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		if len(f) < 6 {
			continue
		}
		size, err := strconv.ParseUint(string(f[1]), 10, 32)
		if err != nil {
			continue
		}
		start, err := strconv.ParseUint(string(bytes.TrimPrefix(f[5], []byte("0x"))), 16, 64)
		if err != nil {
			continue
		}
		mods = append(mods, module{
			name: string(f[0]), state: string(f[4]), start: stack.Addr(start), size: size,
		})
	}
	return mods
}

// fingerprint changes when a module comes, goes or finishes loading, but not
// with the use counts, which change all the time.
func fingerprint(mods []module) uint64 {
	h := fnv.New64a()
	for _, m := range mods {
		fmt.Fprintf(h, "%s %s %x %x\n", m.name, m.state, m.start, m.size)
	}
	return h.Sum64()
}
