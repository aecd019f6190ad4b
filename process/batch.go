// SPDX-License-Identifier: Apache-2.0

package process

import (
	"slices"
	"sort"
	"time"

	"github.com/lowflame/lowflame/stack"
)

// batch gathers what changes between two moments at which readers may look, so
// that each image is copied once however many events there are for it.
// Table.writer is held for its whole life and Table.mu by every method but run.
type batch struct {
	t       *Table
	changes map[uint64]*pendingChange // by Process.ID
	order   []*pendingChange
	drafts  []*pendingChange
	jobs    map[uint32]job
}

// pendingChange is a Change in the making.
type pendingChange struct {
	img  *image
	what What
	// adds are mappings not yet in img.p.Mappings, in the order they were made.
	adds []Mapping
	// low and high bound the addresses of adds, when there are any.
	low, high stack.Addr
	// draft says that img.p is a copy nobody else has seen, to be changed.
	draft bool
}

// maxAdds bounds pendingChange.adds: sorting them takes quadratic time.
const maxAdds = 2048

func (t *Table) newBatch() *batch {
	return &batch{t: t, changes: map[uint64]*pendingChange{}, jobs: map[uint32]job{}}
}

// touch returns the change of an image, making img.p a draft.
func (b *batch) touch(img *image, what What) *pendingChange {
	c := b.changes[img.p.ID]
	if c == nil {
		c = &pendingChange{img: img}
		b.changes[img.p.ID] = c
		b.order = append(b.order, c)
	}
	if !c.draft {
		p := *img.p
		b.t.version++
		p.Version = b.t.version
		img.p, c.draft = &p, true
		b.drafts = append(b.drafts, c)
	}
	c.what |= what
	return c
}

// add puts in a new image of p.PID, for which p gives everything but ID and
// Version. list is what its mappings belong to, or nil if p has none. It returns
// nil if there are too many processes.
func (b *batch) add(p Process, list *mapList) *image {
	t := b.t
	if t.stats.Live >= maxLive {
		t.stats.DroppedProcesses++
		return nil
	}
	e := t.procs[p.PID]
	if e == nil {
		e = &entry{}
		t.procs[p.PID] = e
	}
	if list == nil {
		list = &mapList{}
	}
	list.refs++
	t.id++
	p.ID = t.id
	img := &image{p: &p, list: list}
	e.images = append(e.images, img)
	t.stats.Live++
	b.touch(img, NewImage)
	return img
}

// end ends the image in force of e.
func (b *batch) end(e *entry, at uint64) {
	img := e.live()
	if img == nil {
		return
	}
	b.flush(img)
	p := b.touch(img, Ended).img.p
	p.Until = max(at, p.Since, 1)
	t := b.t
	t.stats.Live--
	t.dead = append(t.dead, deadImage{p.PID, p.ID, p.Until})
	if n := len(t.dead) - maxDead; n > 0 {
		for _, d := range t.dead[:n] {
			t.forget(d)
		}
		t.dropDead(n)
	}
	t.stats.Dead = uint64(len(t.dead))
}

// restart makes e the entry of a process with one thread, whose mappings are
// known as of the given epoch.
func (e *entry) restart(epoch uint64) {
	e.leader, e.others, e.untracked, e.epoch = true, nil, false, epoch
}

// A process with too many mappings is read anew after minBackOff at first, and
// each time it still has too many after twice as long, up to maxBackOff.
const (
	minBackOff = 10 * time.Second
	maxBackOff = 10 * time.Minute
)

// flush puts the mappings that wait in the change of img, if any, in place.
func (b *batch) flush(img *image) {
	c := b.changes[img.p.ID]
	if c == nil || len(c.adds) == 0 {
		return
	}
	adds := c.adds
	c.adds = nil
	ms := overlay(img.p.Mappings, adds)
	if len(ms) <= b.room(img.list) {
		b.setMappings(img, ms)
		return
	}
	b.t.stats.DroppedMappings += uint64(len(adds))
	b.touch(img, 0).img.p.Truncated = true
	e := b.t.procs[img.p.PID]
	if monotonic()-e.readAt > uint64(max(e.backOff, minBackOff)) {
		// Most of the mappings may be gone by now; only /proc can tell.
		b.jobs[img.p.PID] = job{level: readAll}
	}
}

// room is how many mappings a list may hold that replaces old.
func (b *batch) room(old *mapList) int {
	used := int(b.t.stats.Mappings)
	if old.refs == 1 {
		used -= old.n
	}
	return min(maxMappings, max(maxMapTotal-used, 0))
}

// setMappings replaces the mappings of img, by a slice nobody else has.
func (b *batch) setMappings(img *image, ms []Mapping) {
	if slices.Equal(img.p.Mappings, ms) {
		return
	}
	p := b.touch(img, Mapped).img.p
	if room := b.room(img.list); len(ms) > room {
		b.t.stats.DroppedMappings += uint64(len(ms) - room)
		p.Truncated = true
		ms = ms[:room:room]
	}
	b.t.release(img.list)
	pathBytes := 0
	for i := range ms {
		if pathBytes += len(ms[i].Path); pathBytes > maxPathBytes {
			ms[i].Path = ""
		}
	}
	b.t.stats.Mappings += uint64(len(ms))
	img.list, p.Mappings = &mapList{refs: 1, n: len(ms)}, ms
}

// mapped adds one mapping, made at the given time, to an image.
func (b *batch) mapped(img *image, m Mapping, at uint64) {
	if old := img.p.Find(m.Begin); old != nil && *old == m && len(b.waiting(img)) == 0 {
		return // a runtime that turns write protection off and on
	}
	b.retire(img, m, at)
	c := b.touch(img, 0)
	if c.img.p.Exe == "" && (m.Kind == KindFile || m.Kind == KindMemfd) {
		// The kernel maps the executable before its interpreter (load_elf_binary).
		c.img.p.Exe = m.Path
	}
	if len(c.adds) == 0 {
		c.low, c.high = m.Begin, m.End
	}
	c.low, c.high = min(c.low, m.Begin), max(c.high, m.End)
	if c.adds = append(c.adds, m); len(c.adds) >= maxAdds {
		b.flush(img)
	}
}

// retire keeps the mappings of img for the samples taken before m replaces some
// of them: one library closed, another loaded in its place.
func (b *batch) retire(img *image, m Mapping, at uint64) {
	if !overlapsSorted(img.p.Mappings, m) && !b.overlapsWaiting(img, m) {
		return
	}
	b.flush(img)
	if len(img.past) == maxPast {
		img.past = append(img.past[:0], img.past[1:]...)
	}
	img.past = append(img.past, past{until: at, mappings: img.p.Mappings})
}

// overlapsSorted reports whether m overlaps one of ms, which are sorted and do
// not overlap.
func overlapsSorted(ms []Mapping, m Mapping) bool {
	i := sort.Search(len(ms), func(i int) bool { return ms[i].End > m.Begin })
	return i < len(ms) && ms[i].Begin < m.End
}

func (b *batch) overlapsWaiting(img *image, m Mapping) bool {
	c := b.changes[img.p.ID]
	if c == nil || len(c.adds) == 0 || m.Begin >= c.high || m.End <= c.low {
		return false
	}
	return slices.ContainsFunc(c.adds, func(old Mapping) bool { return old.Begin < m.End && m.Begin < old.End })
}

func (b *batch) waiting(img *image) []Mapping {
	if c := b.changes[img.p.ID]; c != nil {
		return c.adds
	}
	return nil
}

// publish makes all that changed fit for readers.
func (b *batch) publish() {
	for _, c := range b.drafts { // none is added: what waits is in an image that is a draft
		b.flush(c.img)
		c.draft = false
	}
	b.drafts = b.drafts[:0]
}

// list returns the changes in the order in which their images were first
// touched. Images that turned out not to have changed are left out.
func (b *batch) list() []Change {
	var out []Change
	for _, c := range b.order {
		if c.what != 0 {
			out = append(out, Change{Process: c.img.p, What: c.what})
		}
	}
	return out
}
