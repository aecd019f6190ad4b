// SPDX-License-Identifier: Apache-2.0

package debugfile

import (
	"encoding/hex"
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lowflame/lowflame/internal/hostile"
	"github.com/lowflame/lowflame/objfile"
)

// maxLink is the most a section that names a file holds: a path and a build ID.
const maxLink = unix.PathMax + 256

var errLink = errors.New("names no file")

// link is what .gnu_debuglink says.
type link struct {
	name string
	crc  uint32 // CRC-32 of the whole file (IEEE, reflected)
}

// readLink reads .gnu_debuglink: a name, zeros up to the next multiple of 4, and a
// checksum. It wraps objfile.ErrNotFound if there is none. See "Separate Debug
// Files" in the manual of GDB.
func readLink(o *objfile.Object) (link, error) {
	data, err := sectionOf(o, ".gnu_debuglink")
	if err != nil {
		return link{}, err
	}
	return parseLink(data)
}

func parseLink(data []byte) (link, error) {
	c := hostile.NewCursor(data)
	name := c.CString()
	c.Skip(int(-uint(c.Off()) & 3))
	l := link{string(name), c.Uint32()}
	if err := c.Err(); err != nil {
		return link{}, err
	}
	return l, checkName(l.name)
}

// checkName refuses what no path can be.
func checkName(name string) error {
	if name == "" || len(name) >= unix.PathMax || strings.ContainsAny(name, "\x00\n") {
		return errLink
	}
	return nil
}

// altLink is what .gnu_debugaltlink or .debug_sup says.
type altLink struct {
	path    string
	buildID string // hexadecimal
}

// readAltLink reads .gnu_debugaltlink, a path and the bytes of a build ID, or what
// became of it in DWARF 5 §7.3.6, .debug_sup. It wraps objfile.ErrNotFound if there is
// neither.
func readAltLink(o *objfile.Object) (altLink, error) {
	data, err := sectionOf(o, ".gnu_debugaltlink")
	if err == nil {
		return parseAltLink(data)
	}
	if !errors.Is(err, objfile.ErrNotFound) {
		return altLink{}, err
	}
	if data, err = sectionOf(o, ".debug_sup"); err != nil {
		return altLink{}, err
	}
	return parseSup(data)
}

func parseAltLink(data []byte) (altLink, error) {
	c := hostile.NewCursor(data)
	path := c.CString()
	return newAltLink(&c, path, c.Len())
}

// parseSup parses .debug_sup. In the supplementary file itself, which refers to no
// other, is_supplementary is 1.
func parseSup(data []byte) (altLink, error) {
	c := hostile.NewCursor(data)
	version, isSup := c.Uint16(), c.Uint8()
	if c.OK() && (version < 2 || version > 5 || isSup != 0) {
		return altLink{}, objfile.ErrNotFound
	}
	path := c.CString()
	n := c.Uleb()
	return newAltLink(&c, path, int(min(n, maxLink+1)))
}

func newAltLink(c *hostile.Cursor, path []byte, idBytes int) (altLink, error) {
	id := c.Bytes(idBytes)
	if err := c.Err(); err != nil {
		return altLink{}, err
	}
	if len(id) < minBuildID || len(id) > maxBuildID {
		return altLink{}, errLink
	}
	a := altLink{string(path), hex.EncodeToString(id)}
	return a, checkName(a.path)
}

// A build ID of linkers has 8 to 32 bytes; what is shorter than two cannot be cut in
// a directory and a name.
const (
	minBuildID = 2
	maxBuildID = 64
)

// sectionOf returns the bytes of a small section.
func sectionOf(o *objfile.Object, name string) ([]byte, error) {
	s, ok := o.Section(name)
	if !ok {
		return nil, objfile.ErrNotFound
	}
	return o.Data(s, maxLink)
}
