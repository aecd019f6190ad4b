// SPDX-License-Identifier: Apache-2.0

package file

import (
	"fmt"
	"io"
	"os"

	"github.com/google/pprof/profile"
)

// maxRead is the largest profile read, compressed.
const maxRead = 1 << 30

// Read reads a profile in pprof's format. "-" is standard input.
func Read(path string) (*profile.Profile, error) {
	f := os.Stdin
	if path != "-" {
		var err error
		if f, err = os.Open(path); err != nil {
			return nil, err // names the file
		}
		defer f.Close()
	}
	p, err := profile.Parse(io.LimitReader(f, maxRead))
	if err != nil {
		return nil, fmt.Errorf("read profile %s: %w", path, err)
	}
	return p, nil
}
