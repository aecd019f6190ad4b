// SPDX-License-Identifier: Apache-2.0

package elfsym

import (
	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/stack"
)

// All calls yield for each range of t in the order of addresses, with the name as
// Name gives it, valid within the call. It reads names from o, which has the contents
// t was built from, and leaves out the ranges whose name cannot be read. An error of
// yield ends it.
func (t *Table) All(o *objfile.Object, yield func(f Func, name []byte) error) error {
	var names [2]*objfile.Names
	for i := range t.funcs {
		f := Func{Start: t.base + stack.LinkAddr(t.funcs[i].off), ID: uint32(t.funcs[i].name)}
		f.End = f.Start + stack.LinkAddr(t.funcs[i].size)
		ref, table := t.funcs[i].name, objfile.SymTab
		if ref&inDynSym != 0 {
			table = objfile.DynSym
		}
		if names[table] == nil {
			syms, err := o.Symbols(table)
			if err != nil {
				return err
			}
			names[table] = syms.Names()
		}
		name, err := names[table].Bytes(uint32(ref & nameMask))
		if err != nil {
			continue
		}
		if ref&isPLT != 0 {
			name = append(name, "@plt"...)
		}
		if err := yield(f, name); err != nil {
			return err
		}
	}
	return nil
}
