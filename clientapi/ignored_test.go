package clientapi_test

import (
	"slices"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
)

// TestIgnoredUsersAreNotHeard shows that lists of events hold nothing that an ignored user said, and that its state events and
// whatever one asks for by name are there (client-server API, "Ignoring Users").
func TestIgnoredUsersAreNotHeard(t *testing.T) {
	proof.Of(t, "SY-13")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		alice, bob, room := together(t, s)
		eve := s.Register(testserver.Unique("eve"))
		alice.Invite(room, eve.ID)
		eve.Join(room)
		_, from := listen(bob, "", "timeout", "0")
		first := alice.Say(room, "quince first")
		for _, by := range []*testserver.User{eve, alice} {
			by.Send(room, "m.room.message", object{
				"msgtype": "m.text", "body": "related", "m.relates_to": object{"rel_type": "org.example.x", "event_id": first},
			})
		}
		loud := eve.Say(room, "loud")
		alice.Say(room, "last")
		unwanted := eve.CreateRoom(object{"invite": []string{bob.ID}})
		bob.Must("PUT", testserver.Path("user", bob.ID, "account_data", "m.ignored_user_list"), object{"ignored_users": object{eve.ID: object{}}})

		heard, _ := listen(bob, from, "timeout", "0")
		around := bob.Must("GET", testserver.Path("rooms", room, "context", first)+"?limit=20", nil).Body
		search := bob.Must("POST", "/search", object{"search_categories": object{"room_events": object{
			"search_term": "quince", "event_context": object{"after_limit": 10},
		}}}).Body
		for len(testserver.Events(testserver.At(search, "search_categories", "room_events", "results"))) == 0 { // until it is indexed
			search = bob.Must("POST", "/search", object{"search_categories": object{"room_events": object{
				"search_term": "quince", "event_context": object{"after_limit": 10},
			}}}).Body
		}
		hit := testserver.Events(testserver.At(search, "search_categories", "room_events", "results"))[0]
		whole := bob.Must("GET", "/initialSync?limit=20", nil).Body
		var initial []object
		for _, r := range testserver.Events(whole["rooms"]) {
			if r["room_id"] == unwanted {
				t.Errorf("an invitation by an ignored user: %v", r)
			}
			if r["room_id"] == room {
				initial = testserver.Events(testserver.At(r, "messages", "chunk"))
			}
		}
		for road, events := range map[string][]object{
			"events": heard, "context": testserver.Events(around["events_after"]), "around a hit": testserver.Events(testserver.At(hit, "context", "events_after")),
			"messages":  testserver.Events(bob.Must("GET", testserver.Path("rooms", room, "messages")+"?dir=b&limit=50", nil).Body["chunk"]),
			"relations": testserver.Events(bob.Must("GET", "/_matrix/client/v1"+testserver.Path("rooms", room, "relations", first), nil).Body["chunk"]),
			"initial":   initial,
		} {
			if texts := bodies(events); !slices.Contains(texts, "last") && !slices.Contains(texts, "related") {
				t.Errorf("%s: %v", road, texts)
			}
			for _, e := range events {
				if e["sender"] == eve.ID && e["state_key"] == nil {
					t.Errorf("%s: bob, who ignores eve, hears %v", road, e)
				}
			}
		}
		if e := bob.Must("GET", testserver.Path("rooms", room, "event", loud), nil).Body; testserver.At(e, "content", "body") != "loud" {
			t.Errorf("the event by its ID: %v", e)
		}
	})
}
