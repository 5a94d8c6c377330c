package clientapi

import (
	"net/http"
	"net/url"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
)

func TestGetMutualRooms(t *testing.T) {
	proof.Of(t, "RM-19")
	s := testserver.Start(t, testserver.Options{})
	alice, bob := s.Register("alice"), s.Register("bob")
	room := alice.CreateRoom(testserver.JSON{"preset": "public_chat"})
	bob.Join(room)
	alice.Invite(alice.CreateRoom(nil), bob.ID) // invited is not joined
	path := func(user string, more ...string) string {
		q := url.Values{"user_id": {user}}
		if len(more) > 0 {
			q.Set("from", more[0])
		}
		return "/_matrix/client/v1/mutual_rooms?" + q.Encode()
	}
	for _, pair := range [][2]*testserver.User{{alice, bob}, {bob, alice}} {
		a := pair[0].Must("GET", path(pair[1].ID), nil)
		joined, _ := a.Body["joined"].([]any)
		if _, more := a.Body["next_batch"]; len(joined) != 1 || joined[0] != room || a.Body["count"] != float64(1) || more {
			t.Errorf("%s", a.Raw)
		}
	}
	a := alice.Must("GET", path("@nobody:other.test"), nil)
	if joined, ok := a.Body["joined"].([]any); !ok || len(joined) != 0 || a.Body["count"] != float64(0) {
		t.Errorf("%s", a.Raw)
	}
	for _, wrong := range []string{path(alice.ID), path("bob"), path(""), path("@:x.test"), path("@ä:x.test"), path(bob.ID, "x"), path(bob.ID, ""), "/_matrix/client/v1/mutual_rooms"} {
		alice.Refused(http.StatusBadRequest, "M_INVALID_PARAM", "GET", wrong, nil)
	}
	s.Nobody().Refused(http.StatusUnauthorized, "M_MISSING_TOKEN", "GET", path(bob.ID), nil)
}
