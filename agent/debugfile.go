// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/objfile"
)

// debugFiles is where distributions install the symbols they take out of files,
// by build ID: the first byte is a directory.
const debugFiles = "/usr/lib/debug/.build-id"

// openDebug opens the file below dir that has the symbols of object. The error is
// objfile.ErrNotFound if object has its own, or there can be no such file. The
// caller closes the handle.
func openDebug(dir string, object *objfile.Object) (handle *os.File, debug *objfile.Object, err error) {
	id := object.BuildID
	if id.Kind != objfile.BuildIDGNU || len(id.ID) < 4 {
		return nil, nil, objfile.ErrNotFound
	}
	if _, err := object.Symbols(objfile.SymTab); !errors.Is(err, objfile.ErrNotFound) {
		return nil, nil, objfile.ErrNotFound
	}
	path := filepath.Join(dir, id.ID[:2], id.ID[2:]+".debug")
	handle, err = os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := handle.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err == nil {
		debug, err = objfile.Open(handle, info.Size())
	}
	if err == nil && debug.BuildID != id {
		err = fmt.Errorf("%s has build ID %s", path, debug.BuildID)
	}
	if err != nil {
		return nil, nil, errors.Join(err, handle.Close())
	}
	return handle, debug, nil
}
