// SPDX-License-Identifier: Apache-2.0

package index

import (
	"encoding/binary"
	"fmt"

	"github.com/lowflame/lowflame/objfile"
	"github.com/lowflame/lowflame/stack"
	"github.com/lowflame/lowflame/symbolize/elfsym"
)

const (
	// symbolTarget is about how large blocks of symbols are: small, because they
	// are read from their start.
	symbolTarget = 512
	// symbolBatch is how many symbols are numbered together.
	symbolBatch = 4096
)

// symbolWriter writes symbols, which come in the order of their addresses and do not
// overlap.
type symbolWriter struct {
	section *sectionWriter
	names   *stringWriter
	batch   []symbol
	block   []byte
	key     uint64 // where the block begins
	at      uint64 // where its last symbol ends
	last    uint32 // name of the last symbol
}

type symbol struct {
	begin, end uint64
	name       uint32
}

// AddSymbols adds the functions of a symbol table of o, which t was built from. Of
// several tables the first that covers an address counts: up to 4 can be added.
// Add them after the units, whose names they share.
func (w *Writer) AddSymbols(o *objfile.Object, t *elfsym.Table) error {
	return w.addSymbols(func(yield func(begin, end stack.LinkAddr, name []byte) error) error {
		return t.All(o, func(f elfsym.Func, name []byte) error { return yield(f.Start, f.End, name) })
	})
}

// addSymbols adds what all yields in the order of addresses, without overlap.
func (w *Writer) addSymbols(all func(yield func(begin, end stack.LinkAddr, name []byte) error) error) error {
	return w.do(func() error {
		if len(w.symbols) == maxSymbols {
			return fmt.Errorf("write index: more than %d symbol tables: %w", maxSymbols, ErrTooLarge)
		}
		s := &symbolWriter{section: &sectionWriter{out: &w.out}, names: &w.names}
		w.symbols = append(w.symbols, s.section)
		s.batch = make([]symbol, 0, symbolBatch)
		err := all(func(begin, end stack.LinkAddr, name []byte) error {
			return s.add(uint64(begin), uint64(end), string(name))
		})
		if err != nil {
			return fmt.Errorf("add symbols to index: %w", err)
		}
		if err := s.flush(); err != nil {
			return err
		}
		return s.end()
	})
}

func (w *symbolWriter) add(begin, end uint64, name string) error {
	if len(w.batch) == cap(w.batch) {
		if err := w.flush(); err != nil {
			return err
		}
	}
	w.batch = append(w.batch, symbol{begin: begin, end: end})
	w.names.find(name, &w.batch[len(w.batch)-1].name)
	return nil
}

func (w *symbolWriter) flush() error {
	if err := w.names.flush(); err != nil {
		return err
	}
	for _, s := range w.batch {
		if len(w.block) == 0 {
			w.key, w.at, w.last = s.begin, s.begin, 0
		}
		w.block = binary.AppendUvarint(w.block, s.begin-w.at)
		w.block = binary.AppendUvarint(w.block, s.end-s.begin)
		w.block = binary.AppendVarint(w.block, int64(s.name)-int64(w.last))
		w.at, w.last = s.end, s.name
		if len(w.block) >= symbolTarget {
			if err := w.end(); err != nil {
				return err
			}
		}
	}
	w.batch = w.batch[:0]
	return nil
}

func (w *symbolWriter) end() error {
	if len(w.block) == 0 {
		return nil
	}
	err := w.section.write(w.key, w.block)
	w.block = w.block[:0]
	return err
}

var errSymbols = fmt.Errorf("block of symbols: %w", ErrFormat)

// findSymbol returns the name of the symbol at addr, 0 if there is none.
func findSymbol(block []byte, key, addr uint64) (name uint32, err error) {
	r := reader{data: block}
	for at := key; r.more(); {
		begin := at + r.uvarint()
		size := r.uvarint()
		name += uint32(r.varint())
		if begin > addr {
			break
		}
		if addr-begin < size {
			return name, r.err(errSymbols)
		}
		at = begin + size
	}
	return 0, r.err(errSymbols)
}
