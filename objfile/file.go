// SPDX-License-Identifier: Apache-2.0

package objfile

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// OpenFile opens the ELF file at path, which is to be a regular one. The caller
// closes the second result when the object is no longer used. The error names the
// file, and wraps those of Open.
func OpenFile(path string) (*Object, *os.File, error) {
	// O_NONBLOCK: a named pipe without a writer is no reason to wait.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err // names the file
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err == nil {
		var o *Object
		if o, err = Open(f, info.Size()); err == nil {
			return o, f, nil
		}
	}
	f.Close()
	return nil, nil, fmt.Errorf("%s: %w", path, err)
}
