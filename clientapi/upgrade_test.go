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
