package stateres

import (
	"bytes"
	"cmp"
	"crypto/sha1" //nolint:gosec // the order of state resolution version 1 is defined with it
	"slices"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
)

// one is version 1 (rooms v1, "State resolution").
func (r *resolver) one() (map[StateKey]matrix.EventID, error) {
	state := map[StateKey]matrix.EventID{} // over what is agreed
	var ids []matrix.EventID
	for _, group := range r.disputed {
		ids = append(ids, group...)
	}
	if err := r.load(ids); err != nil {
		return nil, err
	}
	var keys []StateKey
	for _, id := range ids {
		if ev := r.events[id]; ev != nil {
			keys = append(append(keys, authrules.Needed(ev)...), StateKey{Type: "m.room.create"})
		}
	}
	if err := r.lookup(keys); err != nil {
		return nil, err
	}
	for _, typ := range []string{"m.room.power_levels", "m.room.join_rules", "m.room.member"} {
		for _, key := range r.disputedKeys(func(k StateKey) bool { return k.Type == typ }) {
			if err := r.chain(state, key); err != nil {
				return nil, err
			}
		}
	}
	for _, key := range r.disputedKeys(func(k StateKey) bool { return !resolvedFirst(k.Type) }) {
		if err := r.pick(state, key); err != nil {
			return nil, err
		}
	}
	return state, nil
}

func resolvedFirst(typ string) bool {
	return typ == "m.room.power_levels" || typ == "m.room.join_rules" || typ == "m.room.member"
}

// disputedKeys are the disputed places that match, in an order that depends on nothing else.
func (r *resolver) disputedKeys(match func(StateKey) bool) []StateKey {
	var keys []StateKey
	for key := range r.disputed {
		if match(key) {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b StateKey) int { return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Key, b.Key)) })
	return keys
}

// candidates are the held events of a disputed place by ascending depth, then descending hash of their ID.
func (r *resolver) candidates(key StateKey) []*matrix.Event {
	var events []*matrix.Event
	for _, id := range r.disputed[key] {
		if ev := r.events[id]; ev != nil {
			events = append(events, ev)
		}
	}
	slices.SortFunc(events, func(a, b *matrix.Event) int {
		x, y := sha1.Sum([]byte(a.ID())), sha1.Sum([]byte(b.ID()))
		return cmp.Or(cmp.Compare(a.Depth(), b.Depth()), bytes.Compare(y[:], x[:]))
	})
	return events
}

// chain takes the first candidate of a place and then each that the one before allows, until one is refused.
func (r *resolver) chain(state map[StateKey]matrix.EventID, key StateKey) error {
	for i, e := range r.candidates(key) {
		if err := r.step(); err != nil {
			return err
		}
		if i > 0 && authrules.Check(e, view{r: r, state: state, agreed: true}) != nil {
			return nil
		}
		state[key] = e.ID()
	}
	return nil
}

// pick takes the deepest candidate that is allowed.
func (r *resolver) pick(state map[StateKey]matrix.EventID, key StateKey) error {
	events := r.candidates(key)
	slices.Reverse(events)
	for _, e := range events {
		if err := r.step(); err != nil {
			return err
		}
		if authrules.Check(e, view{r: r, state: state, agreed: true}) == nil {
			state[key] = e.ID()
			return nil
		}
	}
	return nil
}
