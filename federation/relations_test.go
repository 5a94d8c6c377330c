package federation_test

import (
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
	waiting "conclave/internal/testserver/wait"
)

// TestRelationsOfOthers: what relates to an event is summed up also where it came from another server, whether in the room's
// present or as history that was fetched.
func TestRelationsOfOthers(t *testing.T) {
	eachTwo(t, func(w *two) {
		proof.Of(w.t, "EV-01", "EV-08", "EV-14")
		room := w.alice.CreateRoom(testserver.JSON{"preset": "public_chat"})
		relate := func(u *testserver.User, relType, target, text string) string {
			w.t.Helper()
			return u.Send(room, "m.room.message", testserver.JSON{
				"msgtype": "m.text", "body": text, "m.new_content": testserver.JSON{"msgtype": "m.text", "body": text},
				"m.relates_to": testserver.JSON{"rel_type": relType, "event_id": target},
			})
		}
		root := w.alice.Say(room, "root")
		edit := relate(w.alice, "m.replace", root, "edited")
		relate(w.alice, "m.thread", root, "in the thread")
		w.bob.Join(room, string(w.a.Name))
		for from := ""; ; { // bob's server fetches the history
			page := w.bob.Must("GET", testserver.Path("rooms", room, "messages")+"?dir=b&limit=50"+from, nil).Body
			end, _ := page["end"].(string)
			if testserver.Has(testserver.Events(page["chunk"]), root) || end == "" {
				break
			}
			from = "&from=" + end
		}
		bundle := func(u *testserver.User) any {
			return testserver.At(u.Must("GET", testserver.Path("rooms", room, "event", root), nil).Body, "unsigned", "m.relations")
		}
		if b := bundle(w.bob); testserver.At(b, "m.replace", "event_id") != edit || testserver.At(b, "m.thread", "count") != 1.0 {
			w.t.Errorf("of fetched history: %v", b)
		}
		waiting.Until(w.t, "fetched history to be found by its words", func() bool {
			body := w.bob.Must("POST", "/search", testserver.JSON{"search_categories": testserver.JSON{"room_events": testserver.JSON{"search_term": "edited"}}}).Body
			results := testserver.Events(testserver.At(body, "search_categories", "room_events", "results"))
			return len(results) == 1 && testserver.At(results[0], "result", "event_id") == root
		})
		late := relate(w.bob, "m.thread", root, "from afar")
		waiting.Until(w.t, "the event of the other server", func() bool {
			b := bundle(w.alice)
			return testserver.At(b, "m.thread", "latest_event", "event_id") == late && testserver.At(b, "m.thread", "count") == 2.0
		})
		w.bob.Must("PUT", testserver.Path("rooms", room, "redact", late, testserver.Unique("t")), testserver.JSON{})
		waiting.Until(w.t, "the redaction of the other server", func() bool { return testserver.At(bundle(w.alice), "m.thread", "count") == 1.0 })
	})
}
