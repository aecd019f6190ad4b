// SPDX-License-Identifier: Apache-2.0

package unwind

// pcSet is a set of addresses, open-addressed: a Go map of a hundred thousand
// takes longer than all else that is done with them. Address 0 is never in it.
type pcSet struct {
	slots []uint64
	used  int
}

func newPCSet(room int) pcSet {
	size := 1024
	for size < 2*room {
		size *= 2
	}
	return pcSet{slots: make([]uint64, size)}
}

// slot returns where pc is or would be.
func (s *pcSet) slot(pc uint64) *uint64 {
	mask := uint64(len(s.slots) - 1)
	for i := pc * 0x9e3779b97f4a7c15 >> 32; ; i++ {
		if at := &s.slots[i&mask]; *at == pc || *at == 0 {
			return at
		}
	}
}

func (s *pcSet) has(pc uint64) bool { return pc != 0 && *s.slot(pc) == pc }

func (s *pcSet) add(pc uint64) {
	at := s.slot(pc)
	if pc == 0 || *at == pc {
		return
	}
	*at = pc
	if s.used++; 2*s.used < len(s.slots) {
		return
	}
	old := s.slots
	s.slots = make([]uint64, 2*len(old))
	for _, pc := range old {
		if pc != 0 {
			*s.slot(pc) = pc
		}
	}
}
