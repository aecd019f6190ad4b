// SPDX-License-Identifier: Apache-2.0

package index

import "slices"

// maxHidden bounds how many pieces wait below another one: to 8 MiB, for a piece
// takes 2 KiB at most. Real ones are copies of a function, no longer than it.
const maxHidden = 4096

// overlay goes through pieces in the order of where they begin and shows at each
// address the one of the lowest rank.
type overlay struct {
	merger *merger
	// show is told of code in the order of addresses.
	show func(p *piece, begin, end uint64) error
	// active are those that have begun and will be shown, sorted by falling rank
	// and, which is the same, by falling end.
	active []*piece
	free   []*piece
}

func (o *overlay) run() error {
	pos := uint64(0)
	for {
		if len(o.active) == 0 {
			next := o.merger.head()
			if next == nil {
				return nil
			}
			pos = next.begin
		}
		if err := o.begin(pos); err != nil {
			return err
		}
		for n := len(o.active); n > 0 && o.active[n-1].end <= pos; n-- {
			o.drop(n-1, n)
		}
		if len(o.active) == 0 {
			continue
		}
		top := o.active[len(o.active)-1]
		limit, err := o.visible(top)
		if err != nil {
			return err
		}
		if err := o.show(top, pos, limit); err != nil {
			return err
		}
		pos = limit
	}
}

// begin takes the pieces that begin at or before pos.
func (o *overlay) begin(pos uint64) error {
	for p := o.merger.head(); p != nil && p.begin <= pos; p = o.merger.head() {
		o.add(p)
		if err := o.merger.take(); err != nil {
			return err
		}
	}
	return nil
}

// visible returns how far top, which has the lowest rank of those active, is shown.
// It takes what is hidden up to there.
func (o *overlay) visible(top *piece) (uint64, error) {
	for p := o.merger.head(); p != nil && p.begin < top.end; p = o.merger.head() {
		if p.rank < top.rank {
			return p.begin, nil
		}
		o.add(p)
		if err := o.merger.take(); err != nil {
			return 0, err
		}
	}
	return top.end, nil
}

// add keeps a copy of p unless it is hidden up to its end, and drops what it hides. Of
// pieces of one rank the one that comes first counts.
func (o *overlay) add(p *piece) {
	i := len(o.active)
	for i > 0 && o.active[i-1].rank <= p.rank {
		if o.active[i-1].end >= p.end {
			return
		}
		i--
	}
	j := i
	for j > 0 && o.active[j-1].end <= p.end {
		j--
	}
	o.drop(j, i)
	if len(o.active) >= maxHidden {
		o.drop(0, 1)
		j = max(j-1, 0)
	}
	c := &piece{}
	if n := len(o.free); n > 0 {
		c, o.free = o.free[n-1], o.free[:n-1]
	}
	*c = piece{p.begin, p.end, p.rank, append(c.data[:0], p.data...)}
	o.active = slices.Insert(o.active, j, c)
}

func (o *overlay) drop(i, j int) {
	o.free = append(o.free, o.active[i:j]...)
	o.active = slices.Delete(o.active, i, j)
}
