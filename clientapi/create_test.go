package clientapi_test

import (
	"slices"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
)

// TestNewRooms makes rooms with everything that can be asked for, and has people forget one.
func TestNewRooms(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		t.Run("events", func(t *testing.T) { firstEvents(t, s) })
		t.Run("content", func(t *testing.T) { creationContent(t, s) })
		t.Run("forget", func(t *testing.T) { forgottenRooms(t, s) })
	})
}

func firstEvents(t *testing.T, s *testserver.Server) {
	proof.Of(t, "RM-01")
	alice, bob := s.Register(testserver.Unique("alice")), s.Register(testserver.Unique("bob"))
	for _, version := range []string{"10", "12"} {
		room := alice.CreateRoom(object{
			"room_version": version, "preset": "public_chat", "room_alias_name": testserver.Unique("new"), "name": "name", "topic": "topic", "invite": []string{bob.ID},
			"initial_state": []object{
				{"type": "org.test.own", "state_key": "a", "content": object{}}, {"type": "m.room.name", "content": object{"name": "overridden"}},
				{"type": "m.room.guest_access", "content": object{"guest_access": "can_join"}},
			},
		})
		var kinds []string
		for _, e := range testserver.Events(alice.Must("GET", testserver.Path("rooms", room, "messages")+"?dir=f&limit=50", nil).Body["chunk"]) {
			kind, _ := e["type"].(string)
			if kind == "m.room.member" {
				kind = testserver.At(e, "content", "membership").(string) + " " + e["state_key"].(string)
			}
			kinds = append(kinds, kind)
		}
		want := []string{
			"m.room.create", "join " + alice.ID, "m.room.power_levels", "m.room.canonical_alias", "m.room.join_rules", "m.room.history_visibility",
			"org.test.own", "m.room.name", "m.room.guest_access", "m.room.name", "m.room.topic", "invite " + bob.ID,
		}
		if !slices.Equal(kinds, want) {
			t.Errorf("the events of a new room of version %s are\n%q, want\n%q", version, kinds, want)
		}
		if name := alice.Must("GET", testserver.Path("rooms", room, "state", "m.room.name", ""), nil).Body["name"]; name != "name" {
			t.Errorf("it is called %v", name)
		}
	}
}

func creationContent(t *testing.T, s *testserver.Server) {
	proof.Of(t, "RM-04")
	alice, bob, carol := s.Register(testserver.Unique("alice")), s.Register(testserver.Unique("bob")), s.Register(testserver.Unique("carol"))
	for version, creator := range map[string]any{"10": alice.ID, "11": nil} {
		room := alice.CreateRoom(object{
			"room_version": version, "is_direct": true, "invite": []string{bob.ID, "@nobody:" + string(s.Name), carol.ID},
			"creation_content": object{"type": "org.test.kind", "org.test.own": object{"a": 1}, "room_version": "1", "creator": bob.ID},
		})
		create := alice.Must("GET", testserver.Path("rooms", room, "state", "m.room.create", ""), nil).Body
		if create["type"] != "org.test.kind" || testserver.At(create, "org.test.own", "a") != 1.0 || create["room_version"] != version || create["creator"] != creator {
			t.Errorf("the creation of version %s says %v", version, create)
		}
		for _, u := range []*testserver.User{bob, carol} { // that nobody cannot be invited is no harm to the others
			direct := false
			for _, e := range testserver.Events(testserver.At(u.Sync("", 0), "rooms", "invite", room, "invite_state", "events")) {
				direct = direct || e["state_key"] == u.ID && testserver.At(e, "content", "is_direct") == true
			}
			if !direct {
				t.Errorf("%s is not invited to a direct chat of version %s", u.ID, version)
			}
		}
	}
}

func forgottenRooms(t *testing.T, s *testserver.Server) {
	proof.Of(t, "RM-09")
	alice, bob, room := together(t, s)
	forget := testserver.Path("rooms", room, "forget")
	messages := testserver.Path("rooms", room, "messages") + "?dir=b"
	stranger := s.Register(testserver.Unique("stranger"))
	stranger.Refused(404, "M_NOT_FOUND", "POST", forget, object{})
	bob.Refused(400, "M_UNKNOWN", "POST", forget, object{})
	alice.Say(room, "to be forgotten")
	since := token(bob.Sync("", 0))
	bob.Must("POST", testserver.Path("rooms", room, "leave"), object{})
	if testserver.At(bob.Sync(since, 0), "rooms", "leave", room) == nil {
		t.Error("the room that was left is not in sync")
	}
	bob.Must("GET", messages, nil) // leaving alone does not forget, as m.forget_forced_upon_leave says
	bob.Must("POST", forget, object{})
	bob.Refused(403, "M_FORBIDDEN", "GET", messages, nil)
	left := bob.Sync("", 0, "filter", `{"room":{"include_leave":true}}`)
	if testserver.At(left, "rooms", "leave", room) != nil {
		t.Error("the forgotten room is in sync")
	}
	// Who comes back has not forgotten it any more; for those who stay nothing has changed.
	alice.Invite(room, bob.ID)
	bob.Join(room)
	bob.Must("GET", messages, nil)
	for _, u := range []*testserver.User{alice, bob} {
		u.Must("POST", testserver.Path("rooms", room, "leave"), object{})
		u.Must("POST", forget, object{})
		u.Refused(403, "M_FORBIDDEN", "GET", messages, nil)
	}
}
