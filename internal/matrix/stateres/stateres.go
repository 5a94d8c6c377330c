// Package stateres resolves states of a room that differ into one: state resolution version 1 (room version 1), version
// 2 (room versions 2 to 11) and version 2.1 (room version 12), as pure functions. The answer depends on the set of
// states alone, not on their order, and so is the same on every server.
package stateres

import (
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
	return ResolveWithin(v, sets, get, rejected, func() error { return nil })
}

// ResolveWithin is Resolve for states that strangers made: whoever crafts them decides how long it takes. step is called
// for each piece of work, an event looked at once, and ends the resolution if it returns an error.
func ResolveWithin(v matrix.RoomVersion, sets []map[StateKey]matrix.EventID, get Fetch, rejected func(matrix.EventID) bool, step func() error) (map[StateKey]matrix.EventID, error) {
	agreed, disputed := separate(sets, v.StateRes() == 1)
	if len(disputed) == 0 {
		return agreed, nil
	}
	r := &resolver{v: v, sets: sets, agreed: agreed, disputed: disputed, get: get, rejected: rejected, step: step,
		events: map[matrix.EventID]*matrix.Event{}, levels: map[[2]matrix.EventID]authrules.Levels{}}
	if v.StateRes() == 1 {
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
	agreed   map[StateKey]matrix.EventID
	disputed map[StateKey][]matrix.EventID
	get      Fetch
	rejected func(matrix.EventID) bool
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

// create finds the room's create event: in the states, or by the room's ID.
func (r *resolver) create() (*matrix.Event, error) {
	id, ok := r.agreed[StateKey{Type: "m.room.create"}]
	if !ok {
		return nil, nil
	}
	if err := r.load([]matrix.EventID{id}); err != nil {
		return nil, err
	}
	return r.events[id], nil
}

// keyOf is the place that a state event fills.
func keyOf(e *matrix.Event) StateKey {
	key, _ := e.StateKey()
	return StateKey{Type: e.Type(), Key: key}
}

// view is the state that an event is checked against: what is resolved so far, over the event's own auth events.
type view struct {
	r      *resolver
	state  map[StateKey]matrix.EventID
	auth   map[StateKey]*matrix.Event
	create *matrix.Event
}

// Get implements authrules.State.
func (w view) Get(typ, stateKey string) *matrix.Event {
	key := StateKey{Type: typ, Key: stateKey}
	if id, ok := w.state[key]; ok {
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
