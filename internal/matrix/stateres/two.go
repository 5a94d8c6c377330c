package stateres

import (
	"cmp"
	"container/heap"
	"maps"
	"slices"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
)

// two is version 2, and 2.1 where the room's version has it (rooms v2 and v12, "State resolution").
func (r *resolver) two() (map[StateKey]matrix.EventID, error) {
	full, err := r.fullConflicted()
	if err != nil {
		return nil, err
	}
	create, err := r.create()
	if err != nil {
		return nil, err
	}
	state := map[StateKey]matrix.EventID{} // over what is agreed, in version 2; over nothing in 2.1
	power, err := r.powerEvents(full)
	if err != nil {
		return nil, err
	}
	first, err := r.sortByPower(power, create)
	if err != nil {
		return nil, err
	}
	if err := r.iterate(state, first, create); err != nil {
		return nil, err
	}
	var rest []*matrix.Event
	for id := range full {
		if ev := r.events[id]; ev != nil && !power[id] {
			rest = append(rest, ev)
		}
	}
	sorted, err := r.sortByMainline(rest, state)
	if err != nil {
		return nil, err
	}
	if err := r.iterate(state, sorted, create); err != nil {
		return nil, err
	}
	return state, r.reapply(state)
}

// reapply puts what all states agree on back into its places.
func (r *resolver) reapply(state map[StateKey]matrix.EventID) error {
	keys := make([]StateKey, 0, len(state))
	for key := range state {
		keys = append(keys, key)
	}
	if err := r.lookup(keys); err != nil {
		return err
	}
	for _, key := range keys {
		if id, ok := r.agreed[key]; ok {
			state[key] = id
		}
	}
	return nil
}

// lookupNeeded asks for the agreed events that the checks of some events look at.
func (r *resolver) lookupNeeded(ids map[matrix.EventID]bool) error {
	keys := []StateKey{{Type: "m.room.create"}, {Type: "m.room.power_levels"}}
	for id := range ids {
		if ev := r.events[id]; ev != nil {
			keys = append(keys, authrules.Needed(ev)...)
		}
	}
	return r.lookup(keys)
}

// fullConflicted is the full conflicted set: the disputed events, the auth difference, and in version 2.1 the conflicted
// state subgraph.
func (r *resolver) fullConflicted() (map[matrix.EventID]bool, error) {
	full := map[matrix.EventID]bool{}
	for _, ids := range r.disputed {
		for _, id := range ids {
			full[id] = true
		}
	}
	if err := r.authDifference(full); err != nil {
		return nil, err
	}
	if err := r.lookupNeeded(full); err != nil {
		return nil, err
	}
	if r.v.StateRes() == 21 {
		return full, r.subgraph(full)
	}
	return full, nil
}

// reallySided adds to the full conflicted set what is not in the auth chain of anything that all states have.
func (r *resolver) reallySided(full, sided map[matrix.EventID]bool) error {
	if len(sided) == 0 {
		return nil
	}
	if err := r.lookupNeeded(full); err != nil {
		return err
	}
	if err := r.lookupNeeded(sided); err != nil {
		return err
	}
	near := make([]matrix.EventID, 0, len(r.agreed))
	for _, id := range r.agreed {
		near = append(near, id)
	}
	if err := r.strike(near, sided); err != nil {
		return err
	}
	if len(sided) > 0 {
		if err := r.common.InChain(sided); err != nil {
			return err
		}
	}
	for id := range sided {
		full[id] = true
	}
	return nil
}

// subgraph adds every event on a path of auth events from one disputed event to another.
func (r *resolver) subgraph(full map[matrix.EventID]bool) error {
	var disputed []matrix.EventID
	for _, ids := range r.disputed {
		disputed = append(disputed, ids...)
	}
	if err := r.load(disputed); err != nil {
		return err
	}
	low := r.lowest(slices.Values(disputed))          // nothing below leads to one of them
	children := map[matrix.EventID][]matrix.EventID{} // the other way round, among ancestors of disputed events
	seen := map[matrix.EventID]bool{}
	for frontier := disputed; len(frontier) > 0; {
		if err := r.load(frontier); err != nil {
			return err
		}
		var next []matrix.EventID
		for _, id := range frontier {
			if seen[id] {
				continue
			}
			seen[id] = true
			if err := r.step(); err != nil {
				return err
			}
			ev := r.events[id]
			if ev == nil || !r.above(id, low) {
				continue
			}
			for _, parent := range ev.AuthEvents() {
				children[parent] = append(children[parent], id)
				next = append(next, parent)
			}
		}
		frontier = next
	}
	// Whatever can be reached from a disputed event downwards lies above another disputed event already: children holds
	// only edges on the way up from one.
	below := map[matrix.EventID]bool{}
	for frontier := disputed; len(frontier) > 0; {
		var next []matrix.EventID
		for _, id := range frontier {
			if below[id] {
				continue
			}
			below[id] = true
			full[id] = true
			next = append(next, children[id]...)
		}
		frontier = next
	}
	return nil
}

// powerEvents are the power events of the full conflicted set and what of their auth chains is in the set: of their whole
// chains, also where the way leads through what is agreed.
func (r *resolver) powerEvents(full map[matrix.EventID]bool) (map[matrix.EventID]bool, error) {
	power, seen := map[matrix.EventID]bool{}, map[matrix.EventID]bool{}
	low := r.lowest(maps.Keys(full))
	var frontier []matrix.EventID
	for id := range full {
		if ev := r.events[id]; ev != nil && isPower(ev) {
			frontier = append(frontier, id)
			seen[id] = true
		}
	}
	for len(frontier) > 0 {
		if err := r.load(frontier); err != nil {
			return nil, err
		}
		var next []matrix.EventID
		for _, id := range frontier {
			if err := r.step(); err != nil {
				return nil, err
			}
			ev := r.events[id]
			if ev == nil {
				continue
			}
			if full[id] {
				power[id] = true
			}
			if !r.above(id, low) {
				continue // nothing of the set is further down
			}
			for _, parent := range ev.AuthEvents() {
				if !seen[parent] {
					seen[parent] = true
					next = append(next, parent)
				}
			}
		}
		frontier = next
	}
	return power, nil
}

// isPower says whether an event might take somebody's ability to do something away.
func isPower(e *matrix.Event) bool {
	switch e.Type() {
	case "m.room.power_levels", "m.room.join_rules":
		return e.StateKeyEquals("")
	case "m.room.member":
		m := e.Membership()
		return (m == "leave" || m == "ban") && !e.StateKeyEquals(string(e.Sender()))
	}
	return false
}

// ranked is an event with its sender's power, for the order of candidates.
type ranked struct {
	ev    *matrix.Event
	level int64
}

// ranks orders candidates: more power first, then earlier, then the smaller ID.
type ranks []ranked

func (h ranks) Len() int      { return len(h) }
func (h ranks) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h ranks) Less(i, j int) bool {
	a, b := h[i], h[j]
	if a.level != b.level {
		return a.level > b.level
	}
	return earlier(a.ev, b.ev) < 0
}

// Push implements heap.Interface.
func (h *ranks) Push(x any) {
	if r, ok := x.(ranked); ok {
		*h = append(*h, r)
	}
}

// Pop implements heap.Interface.
func (h *ranks) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

func earlier(a, b *matrix.Event) int {
	return cmp.Or(cmp.Compare(a.OriginServerTS(), b.OriginServerTS()), cmp.Compare(a.ID(), b.ID()))
}

// sortByPower is the reverse topological power ordering: Kahn's algorithm over the auth events among the set.
func (r *resolver) sortByPower(set map[matrix.EventID]bool, create *matrix.Event) ([]*matrix.Event, error) {
	waiting := map[matrix.EventID]int{}
	children := map[matrix.EventID][]matrix.EventID{}
	levels := make(map[matrix.EventID]int64, len(set))
	for id := range set {
		if err := r.step(); err != nil {
			return nil, err
		}
		levels[id] = r.senderLevel(r.events[id], create)
		for _, parent := range unique(r.events[id].AuthEvents()) {
			if set[parent] {
				waiting[id]++
				children[parent] = append(children[parent], id)
			}
		}
	}
	h := &ranks{}
	for id := range set {
		if waiting[id] == 0 {
			*h = append(*h, ranked{r.events[id], levels[id]})
		}
	}
	heap.Init(h)
	sorted := make([]*matrix.Event, 0, len(set))
	for h.Len() > 0 {
		next, _ := heap.Pop(h).(ranked)
		sorted = append(sorted, next.ev)
		for _, id := range children[next.ev.ID()] {
			if waiting[id]--; waiting[id] == 0 {
				heap.Push(h, ranked{r.events[id], levels[id]})
			}
		}
	}
	return sorted, nil
}

func unique(ids []matrix.EventID) []matrix.EventID {
	return slices.Compact(slices.Sorted(slices.Values(ids)))
}

// maxLevels bounds the power levels kept at hand, each of which may name thousands of users.
const maxLevels = 64

// senderLevel is the power of an event's sender by the event's own auth events. What levels say is worked out once: many
// events stand on the same, which may be long.
func (r *resolver) senderLevel(e *matrix.Event, create *matrix.Event) int64 {
	state := authrules.Map{}
	if create != nil {
		state[StateKey{Type: "m.room.create"}] = create
	}
	var key [2]matrix.EventID
	for _, id := range e.AuthEvents() {
		a := r.events[id]
		if a == nil {
			continue
		}
		at := keyOf(a)
		state[at] = a
		switch at {
		case StateKey{Type: "m.room.create"}:
			key[0] = id
		case StateKey{Type: "m.room.power_levels"}:
			key[1] = id
		}
	}
	levels, known := r.levels[key]
	if !known {
		if len(r.levels) >= maxLevels {
			clear(r.levels)
		}
		levels = authrules.LevelsOf(r.v, state)
		r.levels[key] = levels
	}
	return levels.UserLevel(e.Sender())
}

// powerLevelsOf is the m.room.power_levels among an event's auth events.
func (r *resolver) powerLevelsOf(e *matrix.Event) (matrix.EventID, bool, error) {
	if e == nil {
		return "", false, nil
	}
	if err := r.load(e.AuthEvents()); err != nil {
		return "", false, err
	}
	for _, id := range e.AuthEvents() {
		if a := r.events[id]; a != nil && a.Type() == "m.room.power_levels" && a.StateKeyEquals("") {
			return id, true, nil
		}
	}
	return "", false, nil
}

// iterate is the iterative auth checks algorithm: each event in turn is taken if the state so far allows it.
func (r *resolver) iterate(state map[StateKey]matrix.EventID, events []*matrix.Event, create *matrix.Event) error {
	for _, e := range events {
		if err := r.step(); err != nil {
			return err
		}
		if err := r.load(e.AuthEvents()); err != nil {
			return err
		}
		w := view{r: r, state: state, agreed: r.v.StateRes() == 2, auth: map[StateKey]*matrix.Event{}, create: create}
		for _, id := range e.AuthEvents() {
			if a := r.events[id]; a != nil && !r.rejected(id) {
				w.auth[keyOf(a)] = a
			}
		}
		if authrules.Check(e, w) == nil {
			state[keyOf(e)] = e.ID()
		}
	}
	return nil
}
