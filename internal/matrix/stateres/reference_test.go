package stateres

import (
	"bytes"
	"cmp"
	"crypto/sha1"
	"maps"
	"slices"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
)

// reference resolves states as the pages of the room versions say, sentence by sentence, and as slowly as that is. It
// shares nothing with the algorithm under test but the auth rules.
type reference struct {
	v        matrix.RoomVersion
	events   map[matrix.EventID]*matrix.Event
	rejected map[matrix.EventID]bool
}

type idSet = map[matrix.EventID]bool

func (f reference) resolve(sets []state) state {
	if f.v == 1 {
		return f.first(sets)
	}
	unconflicted, conflicted := state{}, idSet{}
	for _, s := range sets {
		for key := range s {
			same := true
			for _, other := range sets {
				same = same && other[key] == s[key]
			}
			if same {
				unconflicted[key] = s[key]
			} else {
				conflicted[s[key]] = true
			}
		}
	}
	if len(conflicted) == 0 {
		return unconflicted
	}
	full := maps.Clone(conflicted)
	maps.Copy(full, f.authDifference(sets))
	partial := maps.Clone(unconflicted)
	if f.v >= 12 {
		maps.Copy(full, f.subgraph(conflicted))
		partial = state{}
	}
	// 1. Select the set X of all power events that appear in the full conflicted set. For each such power event P,
	// enlarge X by adding the events from P's auth chain which also belong to the full conflicted set.
	x := idSet{}
	for id := range full {
		if f.isPowerEvent(id) {
			x[id] = true
			for a := range f.chain(id) {
				if full[a] {
					x[a] = true
				}
			}
		}
	}
	// 2. Apply the iterative auth checks algorithm, starting from the unconflicted state map.
	f.iterate(partial, f.powerOrder(x))
	// 3. Take all remaining events and order them by the mainline ordering based on the power level in the partially
	// resolved state. 4. Apply the iterative auth checks to them.
	var rest []matrix.EventID
	for id := range full {
		if !x[id] && f.events[id] != nil {
			rest = append(rest, id)
		}
	}
	f.iterate(partial, f.mainlineOrder(rest, partial[StateKey{Type: "m.room.power_levels"}]))
	// 5. Update the result by replacing any event with the event with the same key from the unconflicted state map.
	maps.Copy(partial, unconflicted)
	return partial
}

// chain is the auth chain of an event: its auth events, theirs, and so on.
func (f reference) chain(id matrix.EventID) idSet {
	out := idSet{}
	var walk func(matrix.EventID)
	walk = func(id matrix.EventID) {
		if e := f.events[id]; e != nil {
			for _, a := range e.AuthEvents() {
				if !out[a] {
					out[a] = true
					walk(a)
				}
			}
		}
	}
	walk(id)
	return out
}

// authDifference: the union of the full auth chains without their intersection.
func (f reference) authDifference(sets []state) idSet {
	count := map[matrix.EventID]int{}
	for _, s := range sets {
		whole := idSet{}
		for _, id := range s {
			maps.Copy(whole, f.chain(id))
		}
		for id := range whole {
			count[id]++
		}
	}
	out := idSet{}
	for id, n := range count {
		if n < len(sets) {
			out[id] = true
		}
	}
	return out
}

// subgraph: all events on paths of auth events between any two events of the conflicted state set, the ends included.
func (f reference) subgraph(conflicted idSet) idSet {
	out := idSet{}
	for top := range conflicted {
		above := f.chain(top)
		above[top] = true
		for mid := range above {
			below := f.chain(mid)
			below[mid] = true
			for end := range below {
				if conflicted[end] {
					out[mid] = true
				}
			}
		}
	}
	return out
}

func (f reference) isPowerEvent(id matrix.EventID) bool {
	e := f.events[id]
	if e == nil {
		return false
	}
	key, _ := e.StateKey()
	switch e.Type() {
	case "m.room.power_levels", "m.room.join_rules":
		return key == ""
	case "m.room.member":
		membership, _ := matrix.GetString(e.Content(), "membership")
		return key != string(e.Sender()) && (membership == "leave" || membership == "ban")
	}
	return false
}

// senderLevel is the power level of an event's sender at the event: by its own auth events.
func (f reference) senderLevel(e *matrix.Event) int64 {
	at := authrules.Map{}
	for _, id := range e.AuthEvents() {
		if a := f.events[id]; a != nil {
			key, _ := a.StateKey()
			at[StateKey{Type: a.Type(), Key: key}] = a
		}
	}
	if f.v >= 12 {
		for _, c := range f.events {
			if c.Type() == "m.room.create" {
				at[StateKey{Type: "m.room.create"}] = c
			}
		}
	}
	levels := authrules.LevelsOf(f.v, at)
	return levels.UserLevel(e.Sender())
}

// powerOrder is the reverse topological power ordering, picked one by one.
func (f reference) powerOrder(set idSet) (out []matrix.EventID) {
	left := idSet{}
	for id := range set {
		if f.events[id] != nil {
			left[id] = true
		}
	}
	for len(left) > 0 {
		var best *matrix.Event
	next:
		for id := range left {
			e := f.events[id]
			for _, a := range e.AuthEvents() {
				if left[a] {
					continue next
				}
			}
			if best == nil || cmp.Or(cmp.Compare(f.senderLevel(best), f.senderLevel(e)), cmp.Compare(e.OriginServerTS(), best.OriginServerTS()), cmp.Compare(e.ID(), best.ID())) < 0 {
				best = e
			}
		}
		delete(left, best.ID())
		out = append(out, best.ID())
	}
	return out
}

// iterate is the iterative auth checks algorithm.
func (f reference) iterate(s state, order []matrix.EventID) {
	for _, id := range order {
		e := f.events[id]
		at := authrules.Map{}
		for _, a := range e.AuthEvents() {
			if ev := f.events[a]; ev != nil && !f.rejected[a] {
				key, _ := ev.StateKey()
				at[StateKey{Type: ev.Type(), Key: key}] = ev
			}
		}
		if f.v >= 12 { // the creation is known by the room's ID
			for _, c := range f.events {
				if c.Type() == "m.room.create" {
					at[StateKey{Type: "m.room.create"}] = c
				}
			}
		}
		for key, held := range s {
			if ev := f.events[held]; ev != nil {
				at[key] = ev
			}
		}
		if authrules.Check(e, at) == nil {
			key, _ := e.StateKey()
			s[StateKey{Type: e.Type(), Key: key}] = id
		}
	}
}

func (f reference) levelsOf(id matrix.EventID) matrix.EventID {
	if e := f.events[id]; e != nil {
		for _, a := range e.AuthEvents() {
			if ev := f.events[a]; ev != nil && ev.Type() == "m.room.power_levels" {
				return a
			}
		}
	}
	return ""
}

// mainlineOrder is the mainline ordering based on an m.room.power_levels.
func (f reference) mainlineOrder(list []matrix.EventID, levels matrix.EventID) []matrix.EventID {
	place := map[matrix.EventID]int{}
	for n := 0; levels != ""; n++ {
		place[levels] = n
		levels = f.levelsOf(levels)
	}
	at := func(id matrix.EventID) int {
		for ; id != ""; id = f.levelsOf(id) {
			if n, ok := place[id]; ok {
				return n
			}
		}
		return 1 << 40
	}
	slices.SortFunc(list, func(a, b matrix.EventID) int {
		return cmp.Or(cmp.Compare(at(b), at(a)), cmp.Compare(f.events[a].OriginServerTS(), f.events[b].OriginServerTS()), cmp.Compare(a, b))
	})
	return list
}

// first is the algorithm of room version 1.
func (f reference) first(sets []state) state {
	values := map[StateKey]idSet{}
	for _, s := range sets {
		for key, id := range s {
			if values[key] == nil {
				values[key] = idSet{}
			}
			values[key][id] = true
		}
	}
	resolved := state{}
	for key, ids := range values {
		if len(ids) == 1 {
			for id := range ids {
				resolved[key] = id
			}
		}
	}
	allowed := func(e *matrix.Event) bool {
		at := authrules.Map{}
		for key, id := range resolved {
			at[key] = f.events[id]
		}
		return authrules.Check(e, at) == nil
	}
	ordered := func(key StateKey) (list []*matrix.Event) { // ascending depth, descending sha1(event_id)
		for id := range values[key] {
			list = append(list, f.events[id])
		}
		slices.SortFunc(list, func(a, b *matrix.Event) int {
			x, y := sha1.Sum([]byte(a.ID())), sha1.Sum([]byte(b.ID()))
			return cmp.Or(cmp.Compare(a.Depth(), b.Depth()), -bytes.Compare(x[:], y[:]))
		})
		return list
	}
	conflicted := func(want func(StateKey) bool) (keys []StateKey) {
		for key, ids := range values {
			if len(ids) > 1 && want(key) {
				keys = append(keys, key)
			}
		}
		slices.SortFunc(keys, func(a, b StateKey) int { return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Key, b.Key)) })
		return keys
	}
	early := []string{"m.room.power_levels", "m.room.join_rules", "m.room.member"}
	for _, typ := range early {
		for _, key := range conflicted(func(k StateKey) bool { return k.Type == typ }) {
			for i, e := range ordered(key) {
				if i > 0 && !allowed(e) {
					break
				}
				resolved[key] = e.ID()
			}
		}
	}
	for _, key := range conflicted(func(k StateKey) bool { return !slices.Contains(early, k.Type) }) {
		list := ordered(key)
		slices.Reverse(list)
		for _, e := range list {
			if allowed(e) {
				resolved[key] = e.ID()
				break
			}
		}
	}
	return resolved
}
