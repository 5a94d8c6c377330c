package federation_test

import (
	"slices"
	"sync"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/testserver"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
)

// TestUnknownStateDecidesNothing is threats F27: state that a server does not know has no say in who may do what, so
// that all servers agree about the members of a room with extensions in it.
func TestUnknownStateDecidesNothing(t *testing.T) {
	proof.Of(t, "F27")
	eachTwo(t, func(w *two) {
		room := w.alice.CreateRoom(testserver.JSON{"preset": "public_chat"})
		for typ, content := range map[string]testserver.JSON{
			"org.example.policy":           {"deny": []string{"*"}, "membership": "ban", "users": testserver.JSON{w.bob.ID: -1}},
			"org.matrix.msc9999.member":    {"membership": "ban"},
			"m.room.future_join_rules":     {"join_rule": "private"},
			"m.room.moderation.power":      {"users": testserver.JSON{w.bob.ID: 100}},
			"org.matrix.msc4284.policy":    {"via": "policy.example.org"},
			"m.room.server_acl.extension":  {"deny": []string{"*"}},
			"io.element.functional_member": {"service_members": []string{w.bob.ID}},
		} {
			w.alice.Must("PUT", testserver.Path("rooms", room, "state", typ, ""), content)
			w.alice.Must("PUT", testserver.Path("rooms", room, "state", typ, "_"+w.bob.ID), content)
		}
		carol := w.b.Register("carol")
		w.bob.Join(room, string(w.a.Name))
		carol.Join(room, string(w.a.Name))
		w.bob.Say(room, "here")
		w.alice.SyncUntil("", "bob's message", says(room, "here"))
		w.alice.Must("POST", testserver.Path("rooms", room, "ban"), testserver.JSON{"user_id": carol.ID})
		for _, u := range []*testserver.User{w.alice, w.bob} {
			w.eventuallyMembers(u, room, w.alice.ID, w.bob.ID)
		}
		// The power that the extension gives is none.
		a, err := w.bob.Do("PUT", testserver.Path("rooms", room, "state", "m.room.name", ""), testserver.JSON{"name": "mine"})
		if err != nil || a.Status != 403 {
			t.Errorf("bob names the room: %d %s (%v)", a.Status, a.Raw, err)
		}
	})
}

// TestForgedEventsOnEveryRoad is threats F01 on a whole server: one event with a wrong signature on each road by which
// events come, among good ones.
func TestForgedEventsOnEveryRoad(t *testing.T) {
	proof.Of(t, "F01")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		var w *siege
		forged := map[matrix.EventID]bool{}
		roads := map[string]bool{}
		var mu sync.Mutex
		spoil := func(operation string, e *peer.Event) []byte {
			mu.Lock()
			spoilt := forged[e.ID]
			roads[operation] = roads[operation] || spoilt
			mu.Unlock()
			if !spoilt {
				return e.JSON
			}
			members := map[string]any{}
			for k, v := range e.Members {
				members[k] = v
			}
			delete(members, "signatures")
			return w.p.Seal(w.room.Version, members, w.p.BadSignature()).JSON
		}
		w = &siege{t: t, s: testserver.Start(t, testserver.Options{Engine: engine})}
		w.p = peer.New(t, w.s.CA, peer.Options{})
		w.us = peer.Target{Server: w.s.Name, URL: "https://" + string(w.s.Name)}
		w.alice = w.s.Register("alice")
		w.room = w.p.NewRoom(10, "mallory")
		bob := w.p.User("bob")
		w.room.Make(peer.Spec{Type: "m.room.member", StateKey: peer.Key(string(bob)), Sender: bob, Content: object{"membership": "join"}})
		after := func(body string, prev []matrix.EventID) *peer.Event {
			return w.room.Make(peer.Spec{Type: "m.room.message", Sender: bob, Content: object{"msgtype": "m.text", "body": body}, Prev: prev})
		}
		begin := []matrix.EventID{w.message("begin").ID}
		name := w.room.Make(peer.Spec{Type: "m.room.name", StateKey: peer.Key(""), Content: object{"name": "forged"}, Prev: begin})
		old, good := after("old forged", begin), after("old good", begin)
		w.room.Make(peer.Spec{Type: "m.room.topic", StateKey: peer.Key(""), Content: object{"topic": "good"}, Prev: []matrix.EventID{name.ID, old.ID, good.ID}})
		w.room.Host(spoil)
		forged[name.ID], forged[old.ID] = true, true
		w.alice.Join(string(w.room.ID), string(w.p.Name))
		state := func(typ string) int {
			a, err := w.alice.Do("GET", testserver.Path("rooms", string(w.room.ID), "state", typ, ""), nil)
			if err != nil {
				t.Fatal(err)
			}
			return a.Status
		}
		if state("m.room.name") != 404 || state("m.room.topic") != 200 {
			t.Errorf("after the join the name is answered with %d, the topic with %d", state("m.room.name"), state("m.room.topic"))
		}
		w.sees("old good")

		root := []matrix.EventID{w.message("root").ID}
		missing, fine := after("missing forged", root), after("missing good", root)
		mu.Lock()
		forged[missing.ID] = true
		mu.Unlock()
		sent := w.apart("sent forged", w.p.BadSignature())
		last := after("last", []matrix.EventID{missing.ID, fine.ID})
		v := w.send("roads", sent, last)
		if v[sent.ID] == "" || v[last.ID] != "" {
			t.Errorf("judged %v", v)
		}
		w.sees("last")
		w.sees("missing good")
		mu.Lock()
		for _, road := range []string{"send_join", "backfill", "get_missing_events", "state"} {
			if !roads[road] && !(road == "state" && roads["event"]) {
				t.Errorf("nothing forged came by %s, but by %v", road, roads)
			}
		}
		mu.Unlock()
		bodies := w.bodies()
		for _, body := range []string{"old forged", "missing forged", "sent forged"} {
			if slices.Contains(bodies, body) {
				t.Errorf("alice sees %q of %q", body, bodies)
			}
		}
		if state("m.room.name") != 404 {
			t.Error("the forged name came into the state")
		}
		for _, e := range []*peer.Event{old, name, missing, sent} {
			a := w.p.Do(t, w.us, "GET", peer.V1+testserver.Path("event", string(e.ID)), nil)
			if a.Status == 200 {
				t.Errorf("the forged event %s is held: %s", e.ID, a.Body)
			}
		}
		w.alice.Say(string(w.room.ID), "goes on")
	})
}
