// SPDX-License-Identifier: Apache-2.0

package unwind

import "bytes"

// isBuiltin reports whether a symbol is of one of V8's builtins: machine code made by
// V8's own compiler when it is built, and linked in without call frame information.
func isBuiltin(name []byte) bool { return bytes.HasPrefix(name, []byte("Builtins_")) }

// builtinCalls returns the rows of a builtin whose code is not understood as a whole.
// Whatever it does in between, where it calls others it has a frame with a frame
// pointer: that is how V8 walks its stacks (v8/src/execution/frames.h).
func (c *codeScan) builtinCalls(fn *codeFunc) []span {
	if !c.load(fn) {
		return nil
	}
	var rows []span
	framed := false
	for code, pc := c.flow.code, fn.begin; len(code) > 0; {
		in, ok := decodeX86(code)
		if !ok {
			break
		}
		next := pc + uint64(in.size)
		switch {
		case in.op == x86Mov && in.reg == encRBP && in.rm == encRSP:
			framed = true
		case framed && (in.op == x86Call || in.op == x86CallTo):
			rows = append(rows, span{pc, MakeRule(KindFPWalk, 0, 0)}, span{next, 0})
		}
		code, pc = code[in.size:], next
	}
	return rows
}
