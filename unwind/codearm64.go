// SPDX-License-Identifier: Apache-2.0

package unwind

import "encoding/binary"

// armFlow follows the frame of one arm64 function through its code. It is for
// functions without call frame information, above all the vDSO's: that of Linux
// 5.10 has some, those of 6.1 and later have none.
type armFlow struct {
	begin uint64
	code  []byte
	at    []armState // by instruction
	todo  []int      // instructions whose state is new
	wrong bool       // something is not as calls have it
}

// armState is the frame at an instruction. The zero value: not reached.
type armState struct {
	reached bool
	lost    bool  // SP, or where the return address is, is not known
	size    int32 // CFA - SP, bytes
	// record is how far below the CFA FP and LR are saved, side by side; 0 while
	// the return address is in LR.
	record int32
}

// maxARMFrame bounds the frames followed, bytes: what a narrow rule can say.
const maxARMFrame = 8 * 0xffff

// scanARM64 returns the rows of functions, lowest first, that make and drop
// their frames as compilers do. Of others there are none.
func scanARM64(read func(p []byte, pc uint64) int, funcs []codeFunc) []span {
	var rows []span
	for _, f := range funcs {
		if f.part || f.begin&3 != 0 {
			continue
		}
		code := make([]byte, (f.end-f.begin)&^3)
		flow := armFlow{begin: f.begin, code: code[:read(code, f.begin)&^3]}
		rows = append(rows, flow.rows()...)
	}
	return rows
}

func (f *armFlow) rows() []span {
	f.at = make([]armState, len(f.code)/4)
	f.reach(0, armState{reached: true})
	// An instruction is looked at twice at most: lost is final.
	for len(f.todo) > 0 && !f.wrong {
		i := f.todo[len(f.todo)-1]
		f.todo = f.todo[:len(f.todo)-1]
		f.step(i)
	}
	if f.wrong {
		return nil
	}
	var rows []span
	last := Rule(0)
	for i, s := range f.at {
		if r := s.rule(); r != last || i == 0 {
			rows = append(rows, span{f.begin + 4*uint64(i), r})
			last = r
		}
	}
	return append(rows, span{f.begin + uint64(len(f.code)), 0})
}

// rule is the rule of a frame, none if it is not known.
func (s armState) rule() Rule {
	size := uint16(s.size / 8)
	switch slot := s.record/8 - 1; {
	case !s.reached || s.lost || s.size&7 != 0 || s.record&7 != 0:
		return 0
	case s.record == 0:
		return MakeRule(KindSP, FPSame, size)
	case slot >= 1 && slot <= 13:
		return MakeRule(KindSP, uint8(slot), size)
	case s.record == s.size:
		return MakeRule(KindSP, FPRecordAtBase, size)
	}
	return 0
}

// next says that the instruction after i is executed with the frame s. Code that
// runs out of its function has called one that never returns.
func (f *armFlow) next(i int, s armState) {
	if i+1 < len(f.at) {
		f.reach(i+1, s)
	}
}

// reach says that instruction i is executed with the frame s. Where ways that
// disagree meet, nothing is known.
func (f *armFlow) reach(i int, s armState) {
	if i < 0 || i >= len(f.at) {
		f.leave(s)
		return
	}
	old := f.at[i]
	if old.reached {
		if old == s || old.lost {
			return
		}
		s = armState{reached: true, lost: true}
	}
	f.at[i] = s
	f.todo = append(f.todo, i)
}

// leave says that the function is left, by return or by a tail call.
func (f *armFlow) leave(s armState) {
	if !s.lost && (s.size != 0 || s.record != 0) {
		f.wrong = true
	}
}

// step follows instruction i. Encodings: Arm Architecture Reference Manual for
// A-profile, C4.1.
func (f *armFlow) step(i int) {
	w := binary.LittleEndian.Uint32(f.code[4*i:])
	s := f.at[i]
	switch {
	case w&0xfc000000 == 0x14000000: // B
		f.reach(i+int(signed(w, 26)), s)
	case w&0xfc000000 == 0x94000000 || w&0xfe9f0000 == 0xd61f0000 && w>>21&3 == 1: // BL, BLR: LR is overwritten
		s.lost = s.lost || s.record == 0
		f.next(i, s)
	case w&0xff000000 == 0x54000000 || w&0x7e000000 == 0x34000000: // B.cond, CBZ, CBNZ
		f.reach(i+int(signed(w>>5, 19)), s)
		f.next(i, s)
	case w&0x7e000000 == 0x36000000: // TBZ, TBNZ
		f.reach(i+int(signed(w>>5, 14)), s)
		f.next(i, s)
	case w&0xfe9f0000 == 0xd61f0000: // BR, RET and their signed forms
		if w>>21&3 == 2 {
			f.leave(s)
		}
	case w&0xffe0001f == 0xd4200000 || w>>16 == 0: // BRK, UDF
	default:
		s.frame(w)
		f.next(i, s)
	}
}

// frame is the effect of an instruction that is no branch on the frame.
func (s *armState) frame(w uint32) {
	base, to := w>>5&31, w&31
	const fpAndLR = 30<<10 | 29 // Rt2, Rt
	switch {
	case w&0x3a000000 == 0x28000000 && base == arm64SP: // load or store pair
		offset := signed(w>>15, 7) << pairShift(w)
		load, write := w&(1<<22) != 0, w&(1<<23) != 0
		pre := w&(1<<24) != 0
		at := s.size - offset // below the CFA, of the first register
		if write && !pre {
			at = s.size
		}
		if w>>26 == 0xa8>>2 && w&(31<<10|31) == fpAndLR {
			s.save(load, at)
		}
		if write {
			s.move(-offset)
		}
	case w&0x3b200400 == 0x38000400 && base == arm64SP: // load or store, SP changed
		s.move(-signed(w>>12, 9))
	case w&0x3f000000 == 0x11000000 && to == arm64SP: // ADD, SUB immediate
		n := int32(w>>10&0xfff) << (12 * (w >> 22 & 1))
		if w&(1<<30) == 0 {
			n = -n
		}
		s.lost = s.lost || base != arm64SP || w>>31 == 0
		s.move(n)
	case w&0x3fe00000 == 0x0b200000 && to == arm64SP, // ADD, SUB extended register
		w&0x1f800000 == 0x12000000 && w>>29&3 != 3 && to == arm64SP: // AND, ORR, EOR immediate
		s.lost = true
	}
}

// save is a store or load of FP and LR, at bytes below the CFA.
func (s *armState) save(load bool, at int32) {
	switch {
	case !load && s.record == 0:
		s.record = at
		s.lost = s.lost || at < 16
	case load && s.record == at:
		s.record = 0
	default:
		s.lost = true
	}
}

// move lowers SP by n bytes.
func (s *armState) move(n int32) {
	s.size += n
	s.lost = s.lost || s.size < 0 || s.size > maxARMFrame
}

// pairShift is the logarithm of the size of the registers of a load or store pair.
func pairShift(w uint32) uint32 {
	if w&(1<<26) != 0 { // SIMD: 4, 8, 16 bytes
		return 2 + w>>30
	}
	return 2 + w>>31
}

// signed is the number in the low bits of w.
func signed(w uint32, bits int) int32 {
	return int32(w<<(32-bits)) >> (32 - bits)
}
