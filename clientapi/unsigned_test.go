package clientapi_test

import (
	"fmt"
	"net/url"
	"slices"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
)

// TestUnsigned shows what the server says of events beside their text.
func TestUnsigned(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		t.Run("membership", func(t *testing.T) { membershipAtEvents(t, s) })
		t.Run("content that is gone", func(t *testing.T) { redactedPrevious(t, s) })
	})
}

// membershipAtEvents shows that every road to an event says what the reader was in the room at it.
func membershipAtEvents(t *testing.T, s *testserver.Server) {
	proof.Of(t, "CG-13")
	alice, bob := s.Register(testserver.Unique("alice")), s.Register(testserver.Unique("bob"))
	room := alice.CreateRoom(object{"preset": "public_chat"})
	before := alice.Say(room, "before")
	alice.Invite(room, bob.ID)
	invited := alice.Say(room, "invited")
	bob.Join(room)
	joined := alice.Say(room, "joined")
	want := map[string]string{before: "leave", invited: "invite", joined: "join"}
	check := func(road string, events []object) {
		t.Helper()
		got := map[string]string{}
		for _, e := range events {
			id, _ := e["event_id"].(string)
			if want[id] != "" {
				got[id], _ = testserver.At(e, "unsigned", "membership").(string)
			}
			if e["type"] == "m.room.member" && e["state_key"] == bob.ID && testserver.At(e, "unsigned", "membership") != testserver.At(e, "content", "membership") {
				t.Errorf("%s: at bob's own event: %v", road, e)
			}
		}
		if len(got) == 0 {
			t.Errorf("%s: there are no events", road)
		}
		for id, was := range got {
			if was != want[id] {
				t.Errorf("%s: bob was %q, want %q", road, was, want[id])
			}
		}
	}
	check("sync", testserver.Timeline(bob.Sync("", 0), room))
	check("messages", testserver.Events(bob.Must("GET", testserver.Path("rooms", room, "messages")+"?dir=b&limit=50", nil).Body["chunk"]))
	around := bob.Must("GET", testserver.Path("rooms", room, "context", invited)+"?limit=10", nil).Body
	check("context", slices.Concat([]object{around["event"].(object)}, testserver.Events(around["events_before"]), testserver.Events(around["events_after"])))
	for id := range want {
		check("event", []object{bob.Must("GET", testserver.Path("rooms", room, "event", id), nil).Body})
	}
	check("sliding", testserver.Events(slidRoom(slides(bob, 0, 9, 50).next(0), room)["timeline"]))
	conn := bob.Socket(url.Values{})
	defer conn.Close()
	var frame object
	if err := conn.ReadJSON(&frame); err != nil {
		t.Fatal(err)
	}
	check("socket", testserver.Timeline(frame, room))
}

// redactedPrevious shows that redacting a state event also takes its content away from beside the one that replaced it.
func redactedPrevious(t *testing.T, s *testserver.Server) {
	proof.Of(t, "CG-13")
	alice, bob, room := together(t, s)
	since := token(bob.Sync("", 0))
	first, _ := alice.Must("PUT", testserver.Path("rooms", room, "state", "m.room.topic", ""), object{"topic": "gone"}).Body["event_id"].(string)
	second, _ := alice.Must("PUT", testserver.Path("rooms", room, "state", "m.room.topic", ""), object{"topic": "stays"}).Body["event_id"].(string)
	check := func(when, want string) {
		t.Helper()
		for _, e := range testserver.Timeline(bob.Sync(since, 0), room) {
			if got := fmt.Sprint(testserver.At(e, "unsigned", "prev_content")); e["event_id"] == second && got != want {
				t.Errorf("%s: %s", when, got)
			}
		}
	}
	check("at first", "map[topic:gone]")
	alice.Must("PUT", testserver.Path("rooms", room, "redact", first, testserver.Unique("txn")), object{})
	bob.SyncUntil(since, "the redaction", func(body object) bool {
		return slices.ContainsFunc(testserver.Timeline(body, room), func(e object) bool { return e["type"] == "m.room.redaction" })
	})
	check("after it was redacted", "map[]")
}
