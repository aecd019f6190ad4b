// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"debug/elf"
	"fmt"
	"path"
	"slices"
	"strings"
)

// answer is what a symbolizer says of one address: names and places as file:line, the
// innermost call first.
type answer []frame

type frame struct{ name, place string }

// parseAnswers reads the output of llvm-symbolizer, or of lowflame debug symbol, for n
// addresses. Columns are left out.
func parseAnswers(out []byte, n int) ([]answer, error) {
	var all []answer
	var one answer
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		name := lines.Text()
		if name == "" {
			all, one = append(all, one), nil
			continue
		}
		lines.Scan()
		place := lines.Text()
		colon := strings.LastIndexByte(place, ':')
		if colon < 0 {
			return nil, fmt.Errorf("%q is no place", place)
		}
		one = append(one, frame{name, place[:colon]})
	}
	if len(all) != n {
		return nil, fmt.Errorf("%d answers to %d addresses", len(all), n)
	}
	return all, lines.Err()
}

// tolerance is a difference between two answers that are both right;
// docs/symbols.md has the list.
type tolerance int

const (
	exact      tolerance = iota
	alias                // another symbol of the same address
	noLine               // one says line 0 or none where the other has a place
	symbolOnly           // code without DWARF: the file is the symbol table's
	pathOnly             // another spelling of the same file
	wrong
	tolerances
)

func (t tolerance) String() string {
	return [...]string{"exact", "alias", "no line", "symbol only", "path", "wrong"}[t]
}

// judge compares two answers for an address. aliases has the names of all symbols
// that share an address, see symbolAliases.
func judge(want, got answer, aliases map[string]string) tolerance {
	if slices.Equal(want, got) {
		return exact
	}
	if len(want) == 1 && len(got) == 1 && hasNoLine(want[0]) && hasNoLine(got[0]) && sameName(want[0].name, got[0].name, aliases) {
		return symbolOnly
	}
	if len(want) != len(got) {
		return wrong
	}
	worst := exact
	for i := range want {
		t := judgeFrame(want[i], got[i], aliases)
		if i < len(want)-1 && want[i].name != got[i].name && t != wrong {
			t = wrong // only the outermost is named by a symbol
		}
		worst = max(worst, t)
	}
	return worst
}

func judgeFrame(want, got frame, aliases map[string]string) tolerance {
	switch {
	case want == got:
		return exact
	case !sameName(want.name, got.name, aliases):
		return wrong
	case want.place == got.place:
		return alias
	case hasNoLine(want) || hasNoLine(got):
		return noLine
	case samePlace(want.place, got.place):
		return pathOnly
	}
	return wrong
}

func hasNoLine(f frame) bool { return strings.HasSuffix(f.place, ":0") }

func sameName(a, b string, aliases map[string]string) bool {
	return a == b || aliases[a] != "" && aliases[a] == aliases[b]
}

// samePlace tells two spellings of a place apart from two places: relative paths, and
// ".." that leads through directories that may be links.
func samePlace(a, b string) bool {
	a, b = path.Clean(a), path.Clean(b)
	return a == b || strings.HasSuffix(a, "/"+strings.TrimLeft(b, "./")) || strings.HasSuffix(b, "/"+strings.TrimLeft(a, "./"))
}

// verdict counts how answers compare.
type verdict struct {
	n        int
	by       [tolerances]int
	examples []string // of wrong ones
}

// percent is the share of answers that are right.
func (v *verdict) percent() float64 {
	if v.n == 0 {
		return 0
	}
	return 100 * float64(v.n-v.by[wrong]) / float64(v.n)
}

func (v *verdict) String() string {
	s := fmt.Sprintf("%.2f %% of %d:", v.percent(), v.n)
	for t := exact; t < tolerances; t++ {
		if v.by[t] > 0 {
			s += fmt.Sprintf(" %d %v", v.by[t], t)
		}
	}
	return s
}

// compareAnswers judges all answers.
func compareAnswers(addrs []uint64, want, got []answer, aliases map[string]string) *verdict {
	v := &verdict{n: len(addrs)}
	for i := range addrs {
		t := judge(want[i], got[i], aliases)
		v.by[t]++
		if t == wrong && len(v.examples) < 4 {
			v.examples = append(v.examples, fmt.Sprintf("%#x\n  peer %v\n  ours %v", addrs[i], want[i], got[i]))
		}
	}
	return v
}

// functionSymbols returns the symbols of functions of a file, by address.
func functionSymbols(file string) ([]elf.Symbol, error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, err := f.Symbols()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	all = slices.DeleteFunc(all, func(s elf.Symbol) bool {
		return elf.ST_TYPE(s.Info) != elf.STT_FUNC || s.Section == elf.SHN_UNDEF || s.Size == 0
	})
	slices.SortStableFunc(all, func(a, b elf.Symbol) int {
		switch {
		case a.Value < b.Value:
			return -1
		case a.Value > b.Value:
			return 1
		}
		return 0
	})
	return all, nil
}

// symbolAliases returns for each symbol one that all with its address have in common.
func symbolAliases(symbols []elf.Symbol) map[string]string {
	m := make(map[string]string)
	for i := 0; i < len(symbols); {
		j := i
		for j < len(symbols) && symbols[j].Value == symbols[i].Value {
			m[symbols[j].Name] = symbols[i].Name
			j++
		}
		i = j
	}
	return m
}

// spread returns up to n addresses spread evenly over the functions.
func spread(symbols []elf.Symbol, n int) []uint64 {
	var total uint64
	var last elf.Symbol
	for _, s := range symbols {
		if s.Value != last.Value {
			total += s.Size
		}
		last = s
	}
	if n == 0 || total == 0 {
		return nil
	}
	// Of an odd number of bytes, so that code aligned alike is hit everywhere.
	step := max(total/uint64(n), 1) | 1
	var addrs []uint64
	at := uint64(0)
	last = elf.Symbol{}
	for _, s := range symbols {
		if s.Value == last.Value {
			continue
		}
		last = s
		for ; at < s.Size && len(addrs) < n; at += step {
			addrs = append(addrs, s.Value+at)
		}
		at -= min(at, s.Size)
	}
	return addrs
}
