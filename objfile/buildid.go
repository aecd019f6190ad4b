// SPDX-License-Identifier: Apache-2.0

package objfile

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"

	"github.com/lowflame/lowflame/internal/hostile"
)

// BuildIDKind says where a build ID comes from.
type BuildIDKind uint8

// The kinds of build ID, best first.
const (
	// BuildIDGNU is the NT_GNU_BUILD_ID note.
	BuildIDGNU BuildIDKind = iota + 1
	// BuildIDGo is the note of the Go linker.
	BuildIDGo
	// BuildIDHash is a hash of the ends of a file that has neither.
	BuildIDHash
)

// BuildID identifies the contents of a file, wherever it lies. Comparable.
type BuildID struct {
	Kind BuildIDKind
	// ID is hexadecimal, but for BuildIDGo, where it is the text in the note.
	ID string
}

// String returns the ID without its kind.
func (b BuildID) String() string { return b.ID }

// IsZero reports whether b is the zero BuildID.
func (b BuildID) IsZero() bool { return b == BuildID{} }

const (
	maxNoteBytes   = 64 << 10 // of one segment or section
	maxNoteRegions = 64
	maxNotes       = 1024 // of one region
	maxGNUID       = 64
	maxGoID        = 256

	noteGoBuildID = 4 // ELF_NOTE_GOBUILDID_TAG in cmd/internal/buildid
	noteGNUID     = 3 // NT_GNU_BUILD_ID

	hashedBytes = 4096 // at each end of the file
)

type note struct {
	name, desc []byte
	typ        uint32
}

// notes calls yield for each note in data until it returns false. Padding is to
// align bytes, which is 8 in segments that say so and 4 in all others (gABI, "Note
// Section"; the GNU property note brought 8).
func notes(data []byte, align uint64, yield func(note) bool) {
	if align != 8 {
		align = 4
	}
	c := hostile.NewCursor(data)
	for range maxNotes {
		namesz, descsz, typ := c.Uint32(), c.Uint32(), c.Uint32()
		name := c.Bytes(int(namesz))
		c.Skip(padding(c.Off(), align))
		desc := c.Bytes(int(descsz))
		if !c.OK() || !yield(note{name: bytes.TrimRight(name, "\x00"), desc: desc, typ: typ}) {
			return
		}
		// The last note may lack its padding.
		c.Skip(min(padding(c.Off(), align), c.Len()))
	}
}

func padding(off int, align uint64) int {
	return int(-uint64(off) & (align - 1))
}

// noteRegion is a place in the file with notes.
type noteRegion struct{ off, size, align uint64 }

func (o *Object) noteRegions() []noteRegion {
	var regions []noteRegion
	for _, p := range o.progs {
		if p.typ == elf.PT_NOTE && len(regions) < maxNoteRegions {
			regions = append(regions, noteRegion{p.off, p.filesz, p.align})
		}
	}
	for i := range o.Sections {
		s := &o.Sections[i]
		if s.Type == elf.SHT_NOTE && len(regions) < 2*maxNoteRegions {
			// .note.gnu.property is the only section with padding to 8, and it is
			// of no use here.
			regions = append(regions, noteRegion{s.Off, s.Size, 4})
		}
	}
	return regions
}

// readBuildID sets BuildID and GoBuildID. Notes that cannot be read do not
// matter: there is always the hash.
func (o *Object) readBuildID() error {
	var gnu []byte
	buf := make([]byte, 0, 512)
	for _, g := range o.noteRegions() {
		size := min(g.size, maxNoteBytes)
		if !o.has(g.off, size) {
			continue
		}
		if uint64(cap(buf)) < size {
			buf = make([]byte, 0, size)
		}
		buf = buf[:size]
		if err := o.read(buf, g.off); err != nil {
			continue
		}
		notes(buf, g.align, func(n note) bool {
			switch {
			case string(n.name) == "GNU" && n.typ == noteGNUID && gnu == nil && 0 < len(n.desc) && len(n.desc) <= maxGNUID:
				gnu = bytes.Clone(n.desc)
			case string(n.name) == "Go" && n.typ == noteGoBuildID && o.GoBuildID == "" && len(n.desc) <= maxGoID:
				o.GoBuildID = string(n.desc)
			}
			return true
		})
	}
	switch {
	case gnu != nil:
		o.BuildID = BuildID{BuildIDGNU, hex.EncodeToString(gnu)}
	case identifies(o.GoBuildID):
		o.BuildID = BuildID{BuildIDGo, o.GoBuildID}
	default:
		id, err := o.hash()
		if err != nil {
			return err
		}
		o.BuildID = BuildID{BuildIDHash, id}
	}
	return nil
}

// identifies reports whether a Go build ID differs from build to build: Bazel and
// others set it to one word to make builds reproducible.
func identifies(id string) bool { return len(id) >= 40 }

// hash identifies a file without notes by its first and last bytes and its size.
func (o *Object) hash() (string, error) {
	h := sha256.New()
	n := min(uint64(o.size), hashedBytes)
	buf := make([]byte, n)
	for _, off := range []uint64{0, uint64(o.size) - n} {
		if err := o.read(buf, off); err != nil {
			return "", err
		}
		h.Write(buf)
	}
	h.Write(binary.LittleEndian.AppendUint64(nil, uint64(o.size)))
	return hex.EncodeToString(h.Sum(nil)[:20]), nil
}
