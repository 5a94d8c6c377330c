package authrules

import (
	"fmt"

	"conclave/internal/matrix"
)

// Needed are the places of the state that decide about an event and that its auth_events name (server-server API,
// "Auth events selection").
func Needed(e *matrix.Event) []StateKey {
	var key *string
	if k, ok := e.StateKey(); ok {
		key = &k
	}
	return NeededFor(e.Version(), e.Type(), key, e.Sender(), e.Content())
}

// NeededFor is Needed for an event that is not made yet.
func NeededFor(v matrix.RoomVersion, typ string, stateKey *string, sender matrix.UserID, content []byte) []StateKey {
	if typ == "m.room.create" {
		return nil
	}
	keys := make([]StateKey, 0, 6)
	add := func(k StateKey) {
		for _, have := range keys {
			if have == k {
				return
			}
		}
		keys = append(keys, k)
	}
	if !v.RoomIDIsCreateHash() {
		add(StateKey{"m.room.create", ""})
	}
	add(StateKey{"m.room.power_levels", ""})
	add(StateKey{"m.room.member", string(sender)})
	if typ != "m.room.member" || stateKey == nil {
		return keys
	}
	add(StateKey{"m.room.member", *stateKey})
	membership, _ := matrix.GetString(content, "membership")
	switch membership {
	case "join", "invite", "knock":
		add(StateKey{"m.room.join_rules", ""})
	}
	if token, ok := matrix.GetString(content, "third_party_invite", "signed", "token"); ok && membership == "invite" {
		add(StateKey{"m.room.third_party_invite", token})
	}
	if via, ok := matrix.GetString(content, "join_authorised_via_users_server"); ok && membership == "join" && v.RestrictedJoins() {
		add(StateKey{"m.room.member", via})
	}
	return keys
}

// CheckAuthEvents applies the rules on an event's auth_events: each once, each of those that the selection names, none
// rejected, all of the same room, the create event among them where the version wants that.
func CheckAuthEvents(e *matrix.Event, auth []*matrix.Event, rejected func(matrix.EventID) bool) error {
	if e.Type() == "m.room.create" {
		return nil
	}
	v := e.Version()
	n := numbersOf(v).auth
	wanted := map[StateKey]bool{}
	for _, key := range Needed(e) {
		wanted[key] = true
	}
	seen := map[StateKey]bool{}
	create := false
	for _, a := range auth {
		key, ok := a.StateKey()
		at := StateKey{a.Type(), key}
		switch {
		case seen[at]:
			return refuse(fmt.Sprintf("%d.1", n), "two auth events are of the same place")
		case !ok || !wanted[at]:
			return refuse(fmt.Sprintf("%d.2", n), "an auth event of type %.64s does not belong there", a.Type())
		case rejected(a.ID()):
			return refuse(fmt.Sprintf("%d.3", n), "an auth event was rejected")
		case a.RoomID() != e.RoomID():
			return refuse(fmt.Sprintf("%d.5", n), "an auth event is of another room")
		}
		seen[at] = true
		create = create || a.Type() == "m.room.create"
	}
	if !create && !v.RoomIDIsCreateHash() {
		return refuse(fmt.Sprintf("%d.4", n), "the room's creation is not among the auth events")
	}
	return nil
}
