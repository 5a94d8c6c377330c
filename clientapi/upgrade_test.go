package clientapi

import (
	"net/http"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
)

func TestUpgradeRoom(t *testing.T) {
	proof.Of(t, "RM-05")
	s := testserver.Start(t, testserver.Options{})
	alice, bob := s.Register("alice"), s.Register("bob")
	old := alice.CreateRoom(testserver.JSON{"preset": "public_chat", "room_version": "10"})
	bob.Join(old)
	path := testserver.Path("rooms", old, "upgrade")
	bob.Refused(http.StatusForbidden, "M_FORBIDDEN", "POST", path, testserver.JSON{"new_version": "12"})
	alice.Refused(http.StatusBadRequest, "M_UNSUPPORTED_ROOM_VERSION", "POST", path, testserver.JSON{"new_version": "from the future"})
	alice.Refused(http.StatusBadRequest, "M_INVALID_PARAM", "POST", path, testserver.JSON{"new_version": "12", "additional_creators": []string{"nobody"}})
	made, _ := alice.Must("POST", path, testserver.JSON{"new_version": "12", "additional_creators": []string{bob.ID}}).Body["replacement_room"].(string)
	bob.Join(made)
	tomb := bob.Must("GET", testserver.Path("rooms", old, "state", "m.room.tombstone"), nil).Body
	create := bob.Must("GET", testserver.Path("rooms", made, "state", "m.room.create"), nil).Body
	if tomb["replacement_room"] != made || testserver.At(create, "predecessor", "room_id") != old {
		t.Errorf("the tombstone %v, the creation %v", tomb, create)
	}
	bob.Refused(http.StatusForbidden, "M_FORBIDDEN", "PUT", testserver.Path("rooms", old, "send", "m.room.message", "t"), testserver.JSON{"msgtype": "m.text", "body": "late"})
}

// TestUpgradeKeepsWhatIsPersonal: whoever comes into the replacement finds the tags and push rules of the old room there,
// unless the old room knows nothing of being replaced by it.
func TestUpgradeKeepsWhatIsPersonal(t *testing.T) {
	proof.Of(t, "RM-06")
	s := testserver.Start(t, testserver.Options{})
	alice, bob := s.Register("alice"), s.Register("bob")
	old := alice.CreateRoom(testserver.JSON{"preset": "public_chat", "room_version": "10"})
	bob.Join(old)
	tags := func(u *testserver.User, room string) string {
		return testserver.Path("user", u.ID, "rooms", room, "account_data", "m.tag")
	}
	rule := func(kind, id string) string { return testserver.Path("pushrules", "global", kind, id) }
	favourite := testserver.JSON{"tags": testserver.JSON{"m.favourite": testserver.JSON{"order": 0.5}}}
	none := []any{}
	for _, u := range []*testserver.User{alice, bob} {
		u.Must("PUT", tags(u, old), favourite)
		u.Must("PUT", rule("room", old), testserver.JSON{"actions": none})
		u.Must("PUT", rule("override", old), testserver.JSON{"actions": none, "conditions": []any{testserver.JSON{"kind": "event_match", "key": "room_id", "pattern": old}}})
		u.Must("PUT", rule("override", "mine"), testserver.JSON{"actions": none, "conditions": []any{testserver.JSON{"kind": "event_match", "key": "room_id", "pattern": old}}})
		u.Must("PUT", rule("override", "mine")+"/enabled", testserver.JSON{"enabled": false})
	}
	made, _ := alice.Must("POST", testserver.Path("rooms", old, "upgrade"), testserver.JSON{"new_version": "12"}).Body["replacement_room"].(string)
	bob.Join(made)
	for _, u := range []*testserver.User{alice, bob} {
		if got := u.Must("GET", tags(u, made), nil).Body; testserver.At(got, "tags", "m.favourite", "order") != 0.5 {
			t.Errorf("the tags of %s are %v", u.ID, got)
		}
		if got := u.Must("GET", rule("room", made), nil).Body; got["enabled"] != true {
			t.Errorf("the room rule of %s is %v", u.ID, got)
		}
		for id, on := range map[string]bool{made: true, "mine " + made: false} {
			got := u.Must("GET", rule("override", id), nil).Body
			conditions, _ := got["conditions"].([]any)
			if got["enabled"] != on || len(conditions) != 1 || testserver.At(conditions[0], "pattern") != made {
				t.Errorf("the rule %q of %s is %v", id, u.ID, got)
			}
		}
		u.Must("GET", rule("room", old), nil)
	}
	liar := alice.CreateRoom(testserver.JSON{"preset": "public_chat", "creation_content": testserver.JSON{"predecessor": testserver.JSON{"room_id": old}}})
	bob.Join(liar)
	bob.Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", tags(bob, liar), nil)
	bob.Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", rule("room", liar), nil)
	bob.Must("DELETE", rule("room", made), nil)
	bob.Join(made) // again: what was removed stays removed
	bob.Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", rule("room", made), nil)
}
