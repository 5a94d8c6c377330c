package federation_test

import (
	"strings"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/wait"
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

// TestPresenceStaysAtHome is the settings of presence by which nothing is told to other servers and what they tell is
// ignored: on this server alone, which is the default, and not at all.
func TestPresenceStaysAtHome(t *testing.T) {
	for _, c := range []struct {
		name, enabled string
	}{{"at home", "true"}, {"off", "false"}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := besiegeServer(t, testserver.Options{Env: []string{"CONCLAVE_PRESENCE_ENABLED=" + c.enabled}}, 12, nil)
			carol, bob := w.s.Register("carol"), w.p.User("bob")
			carol.Join(string(w.room.ID))
			since, _ := carol.Sync("", 0)["next_batch"].(string)
			tell := func(txn, state string) {
				w.p.Send(t, w.us, txn, nil, [][]byte{edu("m.presence", object{"push": []object{{"user_id": bob, "presence": state, "last_active_ago": 1}}})})
			}
			// Two rounds of what is told to carol: what the first has for other servers is on its way before the second.
			for _, state := range []string{"unavailable", "online"} {
				tell(state, state)
				w.alice.Must("PUT", testserver.Path("presence", w.alice.ID, "status"), object{"presence": state, "status_msg": state})
				if c.enabled == "true" {
					since = carol.SyncUntil(since, "alice "+state, func(body testserver.JSON) bool { return w.shows(carol, body, w.alice.ID, state) })
				}
			}
			if got := carol.Must("GET", testserver.Path("presence", string(bob), "status"), nil).Body; got["presence"] != "offline" {
				t.Errorf("bob is shown %v", got)
			}
			if got := carol.Must("GET", testserver.Path("presence", w.alice.ID, "status"), nil).Body["presence"]; got != map[string]string{"true": "online", "false": "offline"}[c.enabled] {
				t.Errorf("alice is shown %v", got)
			}
			if body := carol.Sync("", 0); (body["presence"] != nil) != (c.enabled == "true") || w.shows(carol, body, string(bob), "online") {
				t.Errorf("carol is told %v", body["presence"])
			}
			last := w.alice.Say(string(w.room.ID), "the last")
			wait.Until(t, "the message at the peer", func() bool {
				for _, call := range w.p.Calls(peer.V1 + "/send/") {
					if strings.Contains(string(call.Body), "m.presence") {
						t.Fatalf("the peer is told %s", call.Body)
					}
					if strings.Contains(string(call.Body), "the last") {
						return last != ""
					}
				}
				return false
			})
		})
	}
}

// shows says whether a sync response of a user tells somebody's state. It fails the test over bob, of whom nothing is told.
func (w *siege) shows(who *testserver.User, body testserver.JSON, user, state string) (yes bool) {
	w.t.Helper()
	for _, e := range testserver.Events(testserver.At(body, "presence", "events")) {
		if e["sender"] == string(w.p.User("bob")) {
			w.t.Errorf("%s is told %v", who.ID, e)
		}
		yes = yes || e["sender"] == user && testserver.At(e, "content", "presence") == state
	}
	return yes
}
