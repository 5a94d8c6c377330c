package federation_test

import (
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
)

// TestServersTellWhoIsOnline has bob's server hear what alice sets, as far as they share a room.
func TestServersTellWhoIsOnline(t *testing.T) {
	proof.Of(t, "ED-02", "US-12")
	w := &two{t: t}
	w.a, w.b = testserver.Pair(t, testserver.Options{Presence: true})
	w.alice, w.bob = w.a.Register("alice"), w.b.Register("bob")
	path := testserver.Path("presence", w.alice.ID, "status")
	w.bob.Refused(403, "M_FORBIDDEN", "GET", path, nil)
	w.bob.Refused(403, "M_FORBIDDEN", "PUT", path, testserver.JSON{"presence": "online"})
	w.alice.Refused(400, "M_INVALID_PARAM", "PUT", path, testserver.JSON{"presence": "asleep"})
	w.together()
	w.alice.Must("PUT", path, testserver.JSON{"presence": "unavailable", "status_msg": "at lunch"})
	w.bob.SyncUntil("", "alice's presence", func(body testserver.JSON) bool {
		for _, e := range testserver.Events(testserver.At(body, "presence", "events")) {
			if e["sender"] == w.alice.ID && testserver.At(e, "content", "status_msg") == "at lunch" {
				return testserver.At(e, "content", "presence") == "unavailable"
			}
		}
		return false
	})
	got := w.bob.Must("GET", path, nil).Body
	if got["presence"] != "unavailable" || got["status_msg"] != "at lunch" {
		t.Errorf("bob asks and is told %v", got)
	}
}
