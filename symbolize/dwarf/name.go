// SPDX-License-Identifier: Apache-2.0

package dwarf

import "errors"

const (
	// maxChain is how many entries a name is looked for in: a concrete function, its
	// abstract one, the declaration of that in a class.
	maxChain = 16
	// maxRemembered bounds what is remembered of other units.
	maxRemembered = 1 << 16
	// maxNames is how many bytes of names a unit may have, each counted once.
	maxNames = 32 << 20
	// maxEntry is the most bytes that are looked at of an entry referred to.
	maxEntry = 2 * maxName
)

var errNoSupplement = errors.New("supplementary file is not there")

// function is what entries say of a function.
type function struct {
	name               string
	declFile, declLine uint32 // declFile as the unit counts files; 0xffffffff if there is none
}

const noFile = 1<<32 - 1

// naming finds the names of functions. It remembers those of one unit by offset in
// it, and some of others.
type naming struct {
	own    map[uint32]function
	others map[otherKey]function
	d      die
	// A hostile unit refers to ever other places in the same long strings. names is
	// how many more bytes of them it gets, work how many of entries are looked at.
	names, work int
}

type otherKey struct {
	f   *file
	off uint64
}

func newNaming() *naming {
	return &naming{own: make(map[uint32]function), others: make(map[otherKey]function)}
}

// reset forgets the unit; the next has size bytes.
func (n *naming) reset(size int) {
	n.names = min(64<<10+64*size, maxNames)
	n.work = 16<<10 + 64*size
	if len(n.own) > maxRemembered {
		n.own = make(map[uint32]function)
	}
	clear(n.own)
}

// of returns the function that the entry d of u, whose bytes are held, is of.
func (n *naming) of(u *unit, d *die) function {
	fn := function{declFile: noFile}
	if n.names < 0 {
		return fn
	}
	linkage := fn.take(u, d, u.buf, true)
	n.names -= len(fn.name)
	next, ok := d.origin()
	if !ok || linkage && fn.declLine != 0 {
		return fn
	}
	to, off, err := u.follow(next)
	if err != nil {
		return fn
	}
	return fn.merge(n.at(u, to, off), linkage)
}

// merge adds what the function that fn is an instance of says.
func (fn function) merge(from function, linkage bool) function {
	if !linkage && from.name != "" {
		fn.name = from.name
	}
	if fn.declFile == noFile {
		fn.declFile = from.declFile
	}
	if fn.declLine == 0 {
		fn.declLine = from.declLine
	}
	return fn
}

// origin returns the reference to what the entry is an instance of or defines.
func (d *die) origin() (value, bool) {
	if v, ok := d.get(slotOrigin); ok {
		return v, true
	}
	return d.get(slotSpecification)
}

// take takes what fn lacks from an entry in b, and reports whether the name is a
// linkage name, which nothing improves. Files are only told by the unit itself.
func (fn *function) take(u *unit, d *die, b []byte, files bool) (linkage bool) {
	if v, ok := d.get(slotDeclFile); ok && files && fn.declFile == noFile {
		fn.declFile = uint32(min(v.v, noFile))
	}
	if v, ok := d.get(slotDeclLine); ok && fn.declLine == 0 {
		fn.declLine = uint32(min(v.v, 1<<32-1))
	}
	if v, ok := d.get(slotLinkage); ok {
		if name := u.str(v, b); name != "" {
			fn.name = name
			return true
		}
	}
	if v, ok := d.get(slotName); ok && fn.name == "" {
		fn.name = u.str(v, b)
	}
	return false
}

// at returns the function whose entry is at off of to's file, seen from u.
func (n *naming) at(u, to *unit, off uint64) function {
	if to == u {
		if fn, ok := n.own[uint32(off-u.off)]; ok {
			return fn
		}
		fn := n.chain(u, to, off)
		n.own[uint32(off-u.off)] = fn
		return fn
	}
	key := otherKey{to.f, off}
	if fn, ok := n.others[key]; ok {
		return fn
	}
	fn := n.chain(nil, to, off)
	if len(n.others) >= maxRemembered {
		clear(n.others)
	}
	n.others[key] = fn
	return fn
}

// chain follows entries from the one at off of at. home is the unit whose files are
// told, nil if none.
func (n *naming) chain(home, at *unit, off uint64) function {
	fn := function{declFile: noFile}
	for range maxChain {
		if n.work < 0 || n.names < 0 {
			break
		}
		b, err := at.read(off, &n.d, &n.work)
		if err != nil {
			break
		}
		linkage := fn.take(at, &n.d, b, at == home)
		n.names -= len(fn.name)
		if linkage {
			break
		}
		v, ok := n.d.origin()
		if !ok {
			break
		}
		if at, off, err = at.follow(v); err != nil {
			break
		}
	}
	return fn
}

// read reads the entry at off, returns the bytes its strings are in, and takes what it
// cost from work.
func (u *unit) read(off uint64, d *die, work *int) ([]byte, error) {
	if u.buf == nil {
		err := u.entry(off, d)
		*work -= len(u.scratch)
		return u.scratch, err
	}
	start := int(off - u.off)
	b := u.buf[:min(start+maxEntry, len(u.buf))]
	code, at := uleb(b, start)
	if code == 0 {
		return nil, errMalformed
	}
	a := u.table.get(code)
	if a == nil {
		return nil, errMalformed
	}
	end := u.table.decode(a, b, at, &u.header, d)
	if end < 0 {
		*work -= len(b) - start
		return nil, errMalformed
	}
	*work -= end - start
	return b, nil
}
