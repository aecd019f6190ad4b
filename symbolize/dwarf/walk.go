// SPDX-License-Identifier: Apache-2.0

package dwarf

import "errors"

const (
	// maxDepth is how deep entries may lie in one another.
	maxDepth = 1024
	// maxScopes is how many functions and calls a unit may have.
	maxScopes = 512 << 10
)

// errTooMuch is the error of a unit that is larger than it may be.
var errTooMuch = errors.New("larger than the limit")

// level is an entry whose children are read.
type level struct {
	scope    int32 // what calls lie in; -1: nothing that has code
	function bool  // it is a function or lies in one
}

// walker reads the entries of a unit. Its memory is used again for the next.
type walker struct {
	u      *unit
	lines  *lineTable
	names  *naming
	code   *code
	types  bool // functions may lie in types
	scopes []Scope
	ranges []Range
	spans  []span // of ranges, per scope: ranges moves while it grows
	levels []level
	d      die
}

type span struct{ first, last int }

// walk reads all entries of u, whose bytes are held, but the first.
func (w *walker) walk(u *unit) error {
	w.u = u
	w.scopes, w.ranges, w.spans = w.scopes[:0], w.ranges[:0], w.spans[:0]
	w.names.reset(len(u.buf))
	w.code.budget = min(1<<10+4*len(u.buf), maxRanges)
	w.types = functionsInTypes(u.language)
	if err := w.entries(); err != nil {
		return err
	}
	for i, s := range w.spans {
		w.scopes[i].Ranges = w.ranges[s.first:s.last:s.last]
	}
	return nil
}

// functionsInTypes reports whether a language's compilers put functions with code
// among the members of types. Those of C and C++ declare them there and define them
// outside, but for types that are declared in a function.
func functionsInTypes(language uint64) bool {
	switch language {
	case 0x01, 0x02, 0x04, 0x0c, 0x1a, 0x1d, 0x21, 0x2b, 0x2c, 0x8001: // C, C++, assembler
		return false
	}
	return true
}

// entries reads entries in the order they lie in, without recursion.
func (w *walker) entries() error {
	u, b := w.u, w.u.buf
	at := int(u.first)
	code, at := uleb(b, at)
	root := u.table.get(code)
	if code == 0 || root == nil {
		return errMalformed
	}
	if at = u.table.decode(root, b, at, &u.header, &w.d); at < 0 {
		return errMalformed
	}
	if !root.children {
		return nil
	}
	w.levels = append(w.levels[:0], level{scope: -1})
	for len(w.levels) > 0 && at < len(b) {
		if code, at = uleb(b, at); at < 0 {
			return errMalformed
		}
		if code == 0 {
			w.levels = w.levels[:len(w.levels)-1]
			continue
		}
		a := u.table.get(code)
		if a == nil {
			return errMalformed
		}
		var err error
		if at, err = w.entry(a, at); err != nil {
			return err
		}
	}
	return nil
}

// entry reads one entry and returns where the next is that matters.
func (w *walker) entry(a *abbrev, at int) (int, error) {
	if a.fixed >= 0 && !a.children {
		return at + int(a.fixed), nil
	}
	u := w.u
	at = u.table.decode(a, u.buf, at, &u.header, &w.d)
	if at < 0 {
		return at, errMalformed
	}
	in := w.levels[len(w.levels)-1]
	scope, enter := in.scope, false
	switch a.action {
	case doFunction:
		var err error
		if scope, enter, err = w.function(); err != nil {
			return at, err
		}
	case doInline:
		var err error
		if scope, err = w.call(scope); err != nil {
			return at, err
		}
		enter = true
	case doPass:
		enter = true
	case doType:
		enter = w.types || in.function
	}
	if !a.children {
		return at, nil
	}
	if !enter {
		return w.skip(at)
	}
	if len(w.levels) >= maxDepth {
		return at, errTooMuch
	}
	w.levels = append(w.levels, level{scope, in.function || a.action == doFunction})
	return at, nil
}

// skip skips the children of the entry w.d, which begin at at.
func (w *walker) skip(at int) (int, error) {
	u, b := w.u, w.u.buf
	if next := w.sibling(at); next > 0 {
		return next, nil
	}
	for depth := 1; depth > 0; {
		var code uint64
		if code, at = uleb(b, at); at < 0 {
			return at, errMalformed
		}
		if code == 0 {
			depth--
			continue
		}
		a := u.table.get(code)
		if a == nil {
			return at, errMalformed
		}
		if a.fixed >= 0 {
			if at += int(a.fixed); a.children {
				depth++
			}
			continue
		}
		if at = u.table.decode(a, b, at, &u.header, &w.d); at < 0 {
			return at, errMalformed
		}
		if !a.children {
			continue
		}
		if next := w.sibling(at); next > 0 {
			at = next
			continue
		}
		depth++
	}
	return at, nil
}

// sibling returns where the entry after w.d's children begins, 0 if it does not say.
func (w *walker) sibling(at int) int {
	v, ok := w.d.get(slotSibling)
	if !ok {
		return 0
	}
	to := v.v
	if v.form == formRefAddr {
		to -= w.u.off
	}
	if to < uint64(at) || to > uint64(len(w.u.buf)) {
		return 0
	}
	return int(to)
}

// function reads the function w.d. enter is false if there can be no code in it.
func (w *walker) function() (scope int32, enter bool, err error) {
	if w.d.has>>slotDeclaration&1 != 0 {
		return -1, false, nil
	}
	if w.d.has&(1<<slotLow|1<<slotRanges) == 0 {
		return -1, true, nil
	}
	first := len(w.ranges)
	if err := w.addRanges(); err != nil {
		return -1, false, err
	}
	if len(w.ranges) == first {
		return -1, true, nil // thrown away, but what lies in it need not be
	}
	scope, err = w.add(first, -1)
	return scope, true, err
}

// call reads the inlined call w.d in a scope. Without code there are none in it.
func (w *walker) call(in int32) (scope int32, err error) {
	if in < 0 {
		return -1, nil
	}
	first := len(w.ranges)
	if err := w.addRanges(); err != nil {
		return -1, err
	}
	if len(w.ranges) == first {
		return -1, nil
	}
	if scope, err = w.add(first, in); err != nil {
		return -1, err
	}
	s := &w.scopes[scope]
	if v, ok := w.d.get(slotCallFile); ok {
		s.CallFile = w.lines.file(v.v)
	}
	if v, ok := w.d.get(slotCallLine); ok {
		s.CallLine = uint32(v.v)
	}
	return scope, nil
}

func (w *walker) addRanges() (err error) {
	w.ranges, err = w.u.ranges(&w.d, w.code, w.ranges)
	if errors.Is(err, errMalformed) {
		return nil // of this entry nothing is known, of others there may be
	}
	return err
}

// add appends a scope for w.d with ranges from first on.
func (w *walker) add(first int, parent int32) (int32, error) {
	if len(w.scopes) >= maxScopes {
		return -1, errTooMuch
	}
	fn := w.names.of(w.u, &w.d)
	s := Scope{Name: fn.name, Parent: parent, DeclLine: fn.declLine}
	if fn.declFile != noFile {
		s.DeclFile = w.lines.file(uint64(fn.declFile))
	}
	w.scopes = append(w.scopes, s)
	w.spans = append(w.spans, span{first, len(w.ranges)})
	return int32(len(w.scopes) - 1), nil
}
