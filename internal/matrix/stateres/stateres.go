// Package stateres resolves states of a room that differ into one: state resolution version 1 (room version 1), version
// 2 (room versions 2 to 11) and version 2.1 (room version 12), as pure functions. The answer depends on the set of
// states alone, not on their order, and so is the same on every server.
package stateres

import (
	"maps"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
)

// StateKey names a place in a state.
type StateKey = authrules.StateKey

// Fetch finds events by ID; those that are not held are left out of the answer.
type Fetch func([]matrix.EventID) (map[matrix.EventID]*matrix.Event, error)

// Resolve resolves states of a room. get is asked in batches for the events of the states and their auth chains;
// rejected says whether an event that get returned was rejected.
func Resolve(v matrix.RoomVersion, sets []map[StateKey]matrix.EventID, get Fetch, rejected func(matrix.EventID) bool) (map[StateKey]matrix.EventID, error) {
	return ResolveWithin(v, sets, get, rejected, func(matrix.EventID) int64 { return 0 }, func() error { return nil })
}

// Height says how high an event stands on what it rests on: an event is higher than each of its auth events, and one that
// has none is at least 1. It is asked about events that Fetch returned. 0 is for an event whose height is not known; then
// none that rests on it may have one. Heights decide nothing: with them auth chains, which grow with a room for ever, are
// looked at only as far down as the states differ.
type Height func(matrix.EventID) int64

// ResolveWithin is Resolve for states that strangers made: whoever crafts them decides how long it takes. step is called
// for each piece of work, an event looked at once, and ends the resolution if it returns an error.
func ResolveWithin(v matrix.RoomVersion, sets []map[StateKey]matrix.EventID, get Fetch, rejected func(matrix.EventID) bool, height Height, step func() error) (map[StateKey]matrix.EventID, error) {
	agreed, disputed := separate(sets, v.StateRes() == 1)
	if len(disputed) == 0 {
		return agreed, nil
	}
	r := newResolver(v, sets, disputed, get, rejected, height, step)
	ids := make([]matrix.EventID, 0, len(agreed))
	for _, id := range agreed {
		ids = append(ids, id)
	}
	r.common = Common{
		Lookup: func(keys []StateKey) (map[StateKey]matrix.EventID, error) { return agreed, nil },
		InChain: func(wanted map[matrix.EventID]bool) error {
			return r.strike(ids, wanted)
		},
	}
	state, err := r.resolve()
	if err != nil {
		return nil, err
	}
	for key, id := range agreed {
		state[key] = id
	}
	return state, nil
}

// Common is the part of large states that all of them have alike, of which little has to be looked at.
type Common struct {
	// Lookup finds what fills some places of it. It may return more than was asked for.
	Lookup func([]StateKey) (map[StateKey]matrix.EventID, error)
	// InChain removes from wanted the events that are in the auth chain of the common part.
	InChain func(wanted map[matrix.EventID]bool) error
}

// ResolveParts is ResolveWithin for states of which only the places are given in which they differ, and the rest can be
// asked for. It returns what fills these places then, and others that came to be filled; those of the common part stay as
// they are, whatever it says of them.
func ResolveParts(v matrix.RoomVersion, sets []map[StateKey]matrix.EventID, common Common, get Fetch, rejected func(matrix.EventID) bool, height Height, step func() error) (map[StateKey]matrix.EventID, error) {
	agreed, disputed := separate(sets, v.StateRes() == 1)
	if len(disputed) == 0 {
		return agreed, nil
	}
	r := newResolver(v, sets, disputed, get, rejected, height, step)
	for key, id := range agreed { // version 1: some have it, none has another
		r.agreed[key] = id
	}
	r.common = common
	state, err := r.resolve()
	if err != nil {
		return nil, err
	}
	for key, id := range agreed {
		state[key] = id
	}
	return state, nil
}

func newResolver(v matrix.RoomVersion, sets []map[StateKey]matrix.EventID, disputed map[StateKey][]matrix.EventID, get Fetch, rejected func(matrix.EventID) bool, height Height, step func() error) *resolver {
	return &resolver{v: v, sets: sets, disputed: disputed, get: get, rejected: rejected, height: height, step: step,
		agreed: map[StateKey]matrix.EventID{}, asked: map[StateKey]bool{},
		events: map[matrix.EventID]*matrix.Event{}, levels: map[[2]matrix.EventID]authrules.Levels{}}
}

func (r *resolver) resolve() (map[StateKey]matrix.EventID, error) {
	if r.v.StateRes() == 1 {
		return r.one()
	}
	return r.two()
}

// separate divides the places of states into those that all of them fill alike and the others. A place that some states
// leave empty is disputed, but in version 1, which speaks of different events only.
func separate(sets []map[StateKey]matrix.EventID, emptyAgrees bool) (agreed map[StateKey]matrix.EventID, disputed map[StateKey][]matrix.EventID) {
	agreed, disputed = map[StateKey]matrix.EventID{}, map[StateKey][]matrix.EventID{}
	for _, set := range sets {
		for key, id := range set {
			if _, done := disputed[key]; done {
				continue
			}
			if _, done := agreed[key]; done {
				continue
			}
			var different []matrix.EventID
			all := true
			for _, other := range sets {
				theirs, has := other[key]
				all = all && (has || emptyAgrees) && (!has || theirs == id)
				if has && !contains(different, theirs) {
					different = append(different, theirs)
				}
			}
			if all {
				agreed[key] = id
			} else {
				disputed[key] = different
			}
		}
	}
	return agreed, disputed
}

func contains(list []matrix.EventID, id matrix.EventID) bool {
	for _, have := range list {
		if have == id {
			return true
		}
	}
	return false
}

// resolver is one resolution under way.
type resolver struct {
	v        matrix.RoomVersion
	sets     []map[StateKey]matrix.EventID
	common   Common
	agreed   map[StateKey]matrix.EventID // of the common part, what was asked for
	asked    map[StateKey]bool
	disputed map[StateKey][]matrix.EventID
	get      Fetch
	rejected func(matrix.EventID) bool
	height   Height
	step     func() error
	events   map[matrix.EventID]*matrix.Event       // nil: not held
	levels   map[[2]matrix.EventID]authrules.Levels // by creation and m.room.power_levels
}

// fetchSize is how many events are asked for at a time.
const fetchSize = 1000

// load fetches events that are not known yet.
func (r *resolver) load(ids []matrix.EventID) error {
	var missing []matrix.EventID
	for _, id := range ids {
		if _, known := r.events[id]; !known {
			r.events[id] = nil
			missing = append(missing, id)
		}
	}
	for len(missing) > 0 {
		n := min(len(missing), fetchSize)
		found, err := r.get(missing[:n])
		if err != nil {
			return err
		}
		for id, ev := range found {
			r.events[id] = ev
		}
		missing = missing[n:]
	}
	return nil
}

// lookup asks for places of the common part and fetches the events in them.
func (r *resolver) lookup(keys []StateKey) error {
	var missing []StateKey
	for _, key := range keys {
		if _, disputed := r.disputed[key]; !disputed && !r.asked[key] {
			r.asked[key] = true
			missing = append(missing, key)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	found, err := r.common.Lookup(missing)
	if err != nil {
		return err
	}
	ids := make([]matrix.EventID, 0, len(missing))
	for _, key := range missing {
		if id, ok := found[key]; ok {
			r.agreed[key] = id
		}
		if id, ok := r.agreed[key]; ok {
			ids = append(ids, id)
		}
	}
	return r.load(ids)
}

// create finds the room's create event, which all states have.
func (r *resolver) create() (*matrix.Event, error) {
	key := StateKey{Type: "m.room.create"}
	if err := r.lookup([]StateKey{key}); err != nil {
		return nil, err
	}
	id, ok := r.agreed[key]
	if !ok {
		return nil, nil
	}
	return r.events[id], nil
}

// strike removes from wanted what is in the auth chains of events. It ends early when nothing is left.
func (r *resolver) strike(from []matrix.EventID, wanted map[matrix.EventID]bool) error {
	low := r.lowest(maps.Keys(wanted))
	seen := map[matrix.EventID]bool{}
	for frontier := from; len(frontier) > 0 && len(wanted) > 0; {
		if err := r.load(frontier); err != nil {
			return err
		}
		var next []matrix.EventID
		for _, id := range frontier {
			if err := r.step(); err != nil {
				return err
			}
			ev := r.events[id]
			if ev == nil || !r.above(id, low) {
				continue
			}
			for _, parent := range ev.AuthEvents() {
				if !seen[parent] {
					seen[parent] = true
					delete(wanted, parent)
					next = append(next, parent)
				}
			}
		}
		frontier = next
	}
	return nil
}

// keyOf is the place that a state event fills.
func keyOf(e *matrix.Event) StateKey {
	key, _ := e.StateKey()
	return StateKey{Type: e.Type(), Key: key}
}

// view is the state that an event is checked against: what is resolved so far, over what all states agree on where
// the algorithm begins with that, over the event's own auth events.
type view struct {
	r      *resolver
	state  map[StateKey]matrix.EventID
	agreed bool
	auth   map[StateKey]*matrix.Event
	create *matrix.Event
}

// Get implements authrules.State.
func (w view) Get(typ, stateKey string) *matrix.Event {
	key := StateKey{Type: typ, Key: stateKey}
	id, ok := w.state[key]
	if !ok && w.agreed {
		id, ok = w.r.agreed[key]
	}
	if ok {
		if ev := w.r.events[id]; ev != nil {
			return ev
		}
	}
	if ev := w.auth[key]; ev != nil {
		return ev
	}
	if typ == "m.room.create" && stateKey == "" {
		return w.create
	}
	return nil
}
