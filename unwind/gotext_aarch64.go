// SPDX-License-Identifier: Apache-2.0

package unwind

import "encoding/binary"

// goARM64 is Go on arm64 (cmd/internal/obj/arm64, preprocess): a function with a
// frame saves LR at the bottom of it, where SP points, and R29 in the word
// below.
type goARM64 struct{}

// sigreturn: Go leaves the trampoline to the vDSO.
func (goARM64) sigreturn() []byte { return nil }

func (goARM64) rows(g *goText, fn *goFunc) {
	for _, d := range fn.deltas {
		switch {
		case d.n < 0 || d.n&7 != 0 || d.n>>3 > 0xffff:
			g.lost(d.pc)
		case fn.name == "crosscall2" && d.n > 0:
			// Called by C, and saves the frame record as C does.
			g.add(d.pc, MakeRule(KindSP, 1, uint16(d.n>>3)))
		default:
			g.add(d.pc, MakeRule(KindGo, 0, uint16(d.n>>3)))
		}
	}
}

// switching: R29 leads back to the stack the function was called on, unless the
// function loads it too (asmcgocall from Go 1.25 on), when nothing does.
func (a goARM64) switching(g *goText, fn *goFunc) {
	a.rows(g, fn)
	if fn.name == "crosscall2" {
		return
	}
	from, loadsFP := loadsSP(fn)
	if from == 0 {
		return
	}
	none := g.wide.rule(lost())
	g.replace(fn, from, func(n int32) (Rule, bool) {
		switch {
		case neverReturns(fn.name):
			return MakeRule(KindEnd, 0, 0), true
		case n == 0: // back on its stack, about to return
			return 0, false
		case n < 16 || n&7 != 0 || loadsFP:
			return none, true
		}
		// The record lies a word below the frame: CFA = R29 + 8 + n.
		return MakeRule(KindFPJump, 0, uint16(n-8)>>3), true
	})
}

// loadsSP returns the PC after the first instruction that sets SP to a register
// other than R20, which prologues use, 0 if there is none; and whether R29 is
// loaded from memory in one of the next two.
func loadsSP(fn *goFunc) (pc uint64, loadsFP bool) {
	word := func(off int) uint32 {
		if off+4 > len(fn.code) {
			return 0
		}
		return binary.LittleEndian.Uint32(fn.code[off:])
	}
	for off := 0; off+4 <= len(fn.code); off += 4 {
		reg := word(off) >> 5 & 31
		if word(off)&^(31<<5) != 0x9100001f || reg == 20 || reg == 31 { // mov sp, xN
			continue
		}
		for _, next := range []uint32{word(off + 4), word(off + 8)} {
			if next&0xffc0001f == 0xf940001d { // ldr x29, [xN, #imm]
				loadsFP = true
			}
		}
		return fn.begin + uint64(off+4), loadsFP
	}
	return 0, false
}
