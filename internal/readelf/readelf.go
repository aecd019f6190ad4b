// SPDX-License-Identifier: Apache-2.0

// Package readelf reads what readelf --debug-dump=frames-interp prints, for tests
// and measurements that compare unwind tables with it.
package readelf

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"debug/elf"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Row is a row of an entry. Columns that readelf leaves out, prints as undefined,
// or as the same value are "u"; a register is its name.
type Row struct {
	PC, End     uint64 // the addresses it covers
	CFA, FP, RA string
}

// Rows runs readelf on a file and returns the rows of all entries in a section,
// ".eh_frame" or ".debug_frame", by PC.
func Rows(ctx context.Context, path, section string) ([]Row, error) {
	// The status is 1 if a separate debug file is missing.
	out, err := exec.CommandContext(ctx, "readelf", "--debug-dump=frames-interp", path).Output()
	if len(out) == 0 {
		return nil, fmt.Errorf("readelf %s: %w", path, err)
	}
	f, err := elf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	machine := f.Machine
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	rows, err := parse(out, section, machine)
	if err != nil {
		return nil, fmt.Errorf("readelf %s: %w", path, err)
	}
	return rows, nil
}

func parse(out []byte, section string, machine elf.Machine) ([]Row, error) {
	p := parser{machine: machine, cies: map[string]Row{}, raRegs: map[string]string{}, section: section}
	sc := bufio.NewScanner(bytes.NewReader(out))
	for sc.Scan() {
		if err := p.line(sc.Text()); err != nil {
			return nil, fmt.Errorf("line %q: %w", sc.Text(), err)
		}
	}
	if err := sc.Err(); err != nil {
		return nil, err
	}
	p.flush()
	slices.SortStableFunc(p.rows, func(a, b Row) int { return cmp.Compare(a.PC, b.PC) })
	return p.rows, nil
}

// parser parses readelf's output line by line.
type parser struct {
	machine elf.Machine
	section string
	on      bool           // in that section
	cies    map[string]Row // by offset: the initial row
	raReg   string         // of the CIE, and by its offset
	raRegs  map[string]string
	cie     string // offset of the CIE being read, "" in an FDE
	initial Row
	columns []string
	begin   uint64
	end     uint64
	entry   []Row
	rows    []Row
}

var (
	head = regexp.MustCompile(`^([0-9a-f]+) [0-9a-f]+ [0-9a-f]+ (CIE|FDE)(?: cie=([0-9a-f]+) pc=([0-9a-f]+)\.\.([0-9a-f]+)| .* ra=(\d+))?`)
	// A register rule is two words, "r10 (r10)": DWARF number and name.
	inRegister = regexp.MustCompile(` r\d+ \((\w+)\)`)
)

func (p *parser) line(l string) error {
	if strings.HasPrefix(l, "Contents of the ") {
		p.flush()
		p.on = strings.HasPrefix(l, "Contents of the "+p.section+" ")
		return nil
	}
	if !p.on || l == "" {
		return nil
	}
	if m := head.FindStringSubmatch(l); m != nil {
		return p.head(m)
	}
	if strings.Contains(l, "(") {
		l = inRegister.ReplaceAllString(l, " $1")
	}
	f := strings.Fields(l)
	if len(f) > 0 && f[0] == "LOC" {
		p.columns = f
		return nil
	}
	if p.columns == nil || len(f) != len(p.columns) || f[1] == "ZERO" {
		return nil
	}
	return p.row(f)
}

// head begins an entry.
func (p *parser) head(m []string) error {
	p.flush()
	p.columns, p.cie = nil, ""
	if m[2] == "CIE" {
		p.cie = m[1]
		p.raReg, p.raRegs[m[1]] = m[6], m[6]
		p.cies[p.cie] = p.unsaved(Row{CFA: "u", FP: "u", RA: "u"})
		return nil
	}
	var ok bool
	if p.initial, ok = p.cies[m[3]]; !ok {
		return fmt.Errorf("no CIE %s", m[3])
	}
	p.raReg = p.raRegs[m[3]]
	p.begin, _ = strconv.ParseUint(m[4], 16, 64)
	p.end, _ = strconv.ParseUint(m[5], 16, 64)
	return nil
}

func (p *parser) row(f []string) error {
	pc, err := strconv.ParseUint(f[0], 16, 64)
	if err != nil {
		return err
	}
	r := Row{PC: pc, CFA: f[1], FP: "u", RA: "u"}
	for i, c := range p.columns {
		v := f[i]
		if v == "s" {
			v = "u"
		}
		switch c {
		case "rbp", "x29":
			r.FP = v
		case "ra":
			r.RA = v
		}
	}
	r = p.unsaved(r)
	if p.cie != "" {
		p.cies[p.cie] = r
		return nil
	}
	p.entry = append(p.entry, r)
	return nil
}

// unsaved completes a row of an entry whose return address column is not the
// usual register: without a rule the address is in that register
// (.cfi_return_column).
func (p *parser) unsaved(r Row) Row {
	if p.raReg != "16" && p.raReg != "30" && r.RA == "u" {
		r.RA = p.register(p.raReg)
	}
	return r
}

// register is the name of a register that readelf prints as a number.
func (p *parser) register(n string) string {
	if p.machine == elf.EM_AARCH64 {
		return "x" + n
	}
	names := map[string]string{"0": "rax", "1": "rdx", "2": "rcx", "3": "rbx", "4": "rsi", "5": "rdi", "6": "rbp", "7": "rsp"}
	return cmp.Or(names[n], "r"+n)
}

// flush ends an entry.
func (p *parser) flush() {
	if p.end > p.begin {
		if len(p.entry) == 0 { // readelf prints no row if all is as in the CIE
			r := p.initial
			r.PC = p.begin
			p.entry = append(p.entry, r)
		}
		for i, r := range p.entry {
			r.End = p.end
			if i+1 < len(p.entry) {
				r.End = p.entry[i+1].PC
			}
			if r.End > r.PC && r.PC < p.end {
				p.rows = append(p.rows, r)
			}
		}
	}
	p.entry, p.begin, p.end = p.entry[:0], 0, 0
}
