package stateres

import (
	"cmp"
	"container/heap"
	"iter"
	"math"
	"slices"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
)

// Auth chains are as long as a room is old. All walks along them go as far as what they look for can be, and no further:
// an event's height is above those of all that it rests on.

// lowest is the least height of the events, 0 if that of any is not known.
func (r *resolver) lowest(ids iter.Seq[matrix.EventID]) int64 {
	low := int64(math.MaxInt64)
	for id := range ids {
		if r.events[id] == nil {
			return 0
		}
		low = min(low, r.height(id))
	}
	return low
}

// above says whether an event can rest on one of a height.
func (r *resolver) above(id matrix.EventID, low int64) bool {
	h := r.height(id)
	return h == 0 || h > low
}

// rung is an event on a descent.
type rung struct {
	height int64
	id     matrix.EventID
}

// ladder hands out events from the highest downwards. Those of unknown height come first: none that has a height rests on
// one of them.
type ladder []rung

func (l ladder) Len() int           { return len(l) }
func (l ladder) Swap(i, j int)      { l[i], l[j] = l[j], l[i] }
func (l ladder) Less(i, j int) bool { return l[i].height > l[j].height }

// Push implements heap.Interface.
func (l *ladder) Push(x any) {
	if r, ok := x.(rung); ok {
		*l = append(*l, r)
	}
}

// Pop implements heap.Interface.
func (l *ladder) Pop() any {
	last := (*l)[len(*l)-1]
	*l = (*l)[:len(*l)-1]
	return last
}

// sides is a set of states, a bit for each.
type sides []uint64

// has says whether all of other are in s.
func (s sides) has(other sides) bool {
	for i, b := range other {
		if i >= len(s) && b != 0 || i < len(s) && b&^s[i] != 0 {
			return false
		}
	}
	return true
}

// with is s and other together, in the memory of s where it has some.
func (s sides) with(other sides) sides {
	if s == nil {
		return slices.Clone(other)
	}
	for i, b := range other {
		s[i] |= b
	}
	return s
}

// descent is the walk that finds the auth difference: each event carries the states whose chains lead through it.
type descent struct {
	r       *resolver
	all     sides
	reached map[matrix.EventID]sides // in whose auth chains an event is
	carried map[matrix.EventID]sides // the same, and the states that it is part of
	queued  map[matrix.EventID]bool
	queue   ladder
	open    int // of the queued, those from which not all states are known to go on alike
}

// isOpen says whether the walk has to go on because of a queued event.
func (d *descent) isOpen(id matrix.EventID) bool {
	return !d.carried[id].has(d.all) || d.reached[id] != nil && !d.reached[id].has(d.all)
}

// push queues an event that is held.
func (d *descent) push(id matrix.EventID) {
	if d.queued[id] || d.r.events[id] == nil {
		return
	}
	h := d.r.height(id)
	if h == 0 {
		h = math.MaxInt64
	}
	d.queued[id] = true
	heap.Push(&d.queue, rung{h, id})
	if d.isOpen(id) {
		d.open++
	}
}

// note notes that an event is in the auth chains of states, or only part of states, and says whether that is new.
func (d *descent) note(id matrix.EventID, by sides, inChain bool) bool {
	if d.carried[id].has(by) && (!inChain || d.reached[id].has(by)) {
		return false
	}
	counted := d.queued[id] && d.isOpen(id)
	d.carried[id] = d.carried[id].with(by)
	if inChain {
		d.reached[id] = d.reached[id].with(by)
	}
	switch counts := d.queued[id] && d.isOpen(id); {
	case counted && !counts:
		d.open--
	case counts && !counted:
		d.open++
	}
	return true
}

// seed takes in what all states have of what some events were allowed by, where that was not asked for before: most of
// what only one side leads to is in the chains of these few, and so in all.
func (d *descent) seed(ids []matrix.EventID) error {
	keys := []StateKey{{Type: "m.room.create"}, {Type: "m.room.power_levels"}}
	for _, id := range ids {
		keys = append(keys, authrules.Needed(d.r.events[id])...)
	}
	keys = slices.DeleteFunc(keys, func(key StateKey) bool { return d.r.asked[key] })
	if err := d.r.lookup(keys); err != nil {
		return err
	}
	for _, key := range keys {
		if id, ok := d.r.agreed[key]; ok && d.note(id, d.all, false) {
			d.push(id)
		}
	}
	return nil
}

// level takes the highest events from the queue.
func (d *descent) level() (ids []matrix.EventID) {
	for top := d.queue[0].height; len(d.queue) > 0 && d.queue[0].height == top; {
		next, _ := heap.Pop(&d.queue).(rung)
		ids = append(ids, next.id)
		delete(d.queued, next.id)
		if d.isOpen(next.id) {
			d.open--
		}
	}
	return ids
}

// authDifference adds the events that are in the auth chain of some states but not of all. The walk goes down from what
// the states dispute, the highest events first, and ends where all that is left to look at is in the chains of all: so is
// everything below. What it finds on one side only may be in the chain of what the states agree on, and so in all: that is
// looked at last.
func (r *resolver) authDifference(full map[matrix.EventID]bool) error {
	d := &descent{
		r: r, all: make(sides, (len(r.sets)+63)/64), reached: map[matrix.EventID]sides{}, carried: map[matrix.EventID]sides{},
		queued: map[matrix.EventID]bool{},
	}
	for i, set := range r.sets {
		one := make(sides, len(d.all))
		one[i/64] = 1 << (i % 64)
		d.all = d.all.with(one)
		for key, id := range set {
			if _, disputed := r.disputed[key]; disputed {
				d.carried[id] = d.carried[id].with(one)
			}
		}
	}
	start := make([]matrix.EventID, 0, len(d.carried))
	for id := range d.carried {
		start = append(start, id)
	}
	if err := r.load(start); err != nil {
		return err
	}
	for _, id := range start {
		d.push(id)
	}
	for d.open > 0 {
		if err := d.down(); err != nil {
			return err
		}
	}
	sided := map[matrix.EventID]bool{}
	for id, by := range d.reached {
		if !by.has(d.all) {
			sided[id] = true
		}
	}
	return r.reallySided(full, sided)
}

// down goes from the highest queued events to what they rest on.
func (d *descent) down() error {
	var found []matrix.EventID
	level := d.level()
	if err := d.seed(level); err != nil {
		return err
	}
	for _, id := range level {
		if err := d.r.step(); err != nil {
			return err
		}
		for _, parent := range d.r.events[id].AuthEvents() {
			if d.note(parent, d.carried[id], true) {
				found = append(found, parent)
			}
		}
	}
	if err := d.r.load(found); err != nil {
		return err
	}
	for _, id := range found {
		d.push(id)
	}
	return nil
}

// mainline is the line of power levels that an ordering goes by, as far as it was looked at.
type mainline struct {
	r     *resolver
	place map[matrix.EventID]int // 1 is the newest; also of other lines, where they meet it
	next  matrix.EventID         // not looked at yet
	more  bool
	n     int
}

// never is the place of events whose lines do not meet the mainline.
const never = 1 << 60

// reach looks at the mainline as far down as an event could be in it.
func (m *mainline) reach(id matrix.EventID) error {
	for m.more {
		if err := m.r.load([]matrix.EventID{m.next}); err != nil {
			return err
		}
		if at := m.r.height(m.next); m.r.events[m.next] != nil && at != 0 && at < m.r.height(id) {
			return nil
		}
		if _, loop := m.place[m.next]; loop {
			m.more = false
			return nil
		}
		if err := m.r.step(); err != nil {
			return err
		}
		m.n++
		m.place[m.next] = m.n
		var err error
		if m.next, m.more, err = m.r.powerLevelsOf(m.r.events[m.next]); err != nil {
			return err
		}
	}
	return nil
}

// sortByMainline orders events by how old the power levels are that they stand on, then by time and ID.
func (r *resolver) sortByMainline(events []*matrix.Event, state map[StateKey]matrix.EventID) ([]*matrix.Event, error) {
	m := &mainline{r: r, place: map[matrix.EventID]int{}}
	levels := StateKey{Type: "m.room.power_levels"}
	m.next, m.more = state[levels]
	if !m.more && r.v.StateRes() == 2 {
		m.next, m.more = r.agreed[levels]
	}
	at := make(map[matrix.EventID]int, len(events))
	for _, e := range events {
		n, err := m.meets(e)
		if err != nil {
			return nil, err
		}
		at[e.ID()] = n
	}
	slices.SortFunc(events, func(a, b *matrix.Event) int {
		return cmp.Or(cmp.Compare(at[b.ID()], at[a.ID()]), earlier(a, b))
	})
	return events, nil
}

// meets is where an event's line of power levels meets the mainline; beyond its end if it never does. What is found holds
// for all of the line and is noted in place: lines can be long, and many events can stand on one.
func (m *mainline) meets(e *matrix.Event) (int, error) {
	found := never
	var line []matrix.EventID
	seen := map[matrix.EventID]bool{}
	for at := e; at != nil && !seen[at.ID()]; {
		if err := m.r.step(); err != nil {
			return 0, err
		}
		if err := m.reach(at.ID()); err != nil {
			return 0, err
		}
		if n, ok := m.place[at.ID()]; ok {
			found = n
			break
		}
		seen[at.ID()] = true
		line = append(line, at.ID())
		id, ok, err := m.r.powerLevelsOf(at)
		if err != nil {
			return 0, err
		}
		if !ok {
			break
		}
		at = m.r.events[id]
	}
	for _, id := range line {
		m.place[id] = found
	}
	return found, nil
}
