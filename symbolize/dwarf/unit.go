// SPDX-License-Identifier: Apache-2.0

// Package dwarf reads what DWARF 2 to 5 says of code: functions, what was inlined
// into them, and lines of source. It reads one compilation unit at a time and keeps
// none, so that its memory does not grow with the file.
//
// Everything it reads is hostile: chains have a depth cap, counts are checked
// against the bytes that are there.
package dwarf

import "github.com/lowflame/lowflame/stack"

// Unit is what one compilation unit says of its code. Units of a file may overlap:
// the same COMDAT function may be described by several.
type Unit struct {
	// Files are paths, complete as far as the unit says: with the directory of the
	// file, that joined to the one of the compilation. Index 0 is "", not known.
	Files []string
	// Lines are the rows of the line table, sorted by address, of all sequences
	// whose code was not thrown away by the linker.
	Lines []Line
	// Scopes are functions and inlined calls, each after the one it lies in.
	Scopes []Scope
}

// Line is a row of the line table: it holds from Addr up to the next row's.
type Line struct {
	Addr stack.LinkAddr
	File uint32 // index in Unit.Files
	Line uint32 // 0: no line, and the end of a sequence if End is set
	End  bool
}

// Scope is a function that was compiled, or a call that was inlined.
type Scope struct {
	// Name is the linkage name (DW_AT_linkage_name) or else the name, of the
	// function or what it is an instance of; "" if there is none.
	Name string
	// Ranges are where the code is, in no order. A call lies in its parent's ranges.
	Ranges []Range
	// Parent is the index in Unit.Scopes of what the call was inlined into; -1 for
	// a function.
	Parent int32
	// DeclFile and DeclLine are where the function is declared; 0 if not known.
	DeclFile, DeclLine uint32
	// CallFile and CallLine are the place of the call in Parent; 0 if not known.
	CallFile, CallLine uint32
}

// Range is [Begin, End).
type Range struct{ Begin, End stack.LinkAddr }
