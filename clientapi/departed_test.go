package clientapi_test

import (
	"encoding/json"
	"net/url"
	"slices"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
)

// TestDepartedUsersSeeTheirTime is about rooms as whoever has left them sees them: as they were then, through every road
// that tells of state, and in them alone what was there until then.
func TestDepartedUsersSeeTheirTime(t *testing.T) {
	proof.Of(t, "HV-03", "HV-04")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		for _, way := range []string{"leave", "kick", "ban"} {
			alice, bob, room := together(t, s)
			of := setter{alice, room}
			of.topic("before")
			seen := alice.Say(room, "before")
			if way == "leave" {
				bob.Must("POST", testserver.Path("rooms", room, "leave"), object{})
			} else {
				alice.Must("POST", testserver.Path("rooms", room, way), object{"user_id": bob.ID})
			}
			of.topic("after")
			alice.Say(room, "after")
			carol := s.Register(testserver.Unique("carol"))
			alice.Invite(room, carol.ID)
			carol.Join(room)

			if got := bob.Must("GET", testserver.Path("rooms", room, "state", "m.room.topic", ""), nil).Body["topic"]; got != "before" {
				t.Errorf("%s: the topic is %v", way, got)
			}
			raw := bob.Must("GET", testserver.Path("rooms", room, "state"), nil)
			if got := topics(eventsOf(t, raw.Raw)); !slices.Equal(got, []string{"before"}) {
				t.Errorf("%s: the state has the topics %q", way, got)
			}
			members := membersIn(testserver.Events(bob.Must("GET", testserver.Path("rooms", room, "members"), nil).Body["chunk"]))
			if want := []string{alice.ID, bob.ID}; !slices.Equal(members, want) {
				t.Errorf("%s: the members are %v", way, members)
			}
			around := bob.Must("GET", testserver.Path("rooms", room, "context", seen)+"?limit=10", nil).Body
			if got := topics(testserver.Events(around["state"])); !slices.Equal(got, []string{"before"}) {
				t.Errorf("%s: the context's state has the topics %q", way, got)
			}
			page := bob.Must("GET", testserver.Path("rooms", room, "messages")+"?"+url.Values{"dir": {"b"}, "limit": {"50"}}.Encode(), nil).Body
			for name, list := range map[string][]object{"events after the one": testserver.Events(around["events_after"]), "messages": testserver.Events(page["chunk"])} {
				if got := bodies(list); slices.Contains(got, "after") || slices.Contains(topics(list), "after") {
					t.Errorf("%s: %s show what came later: %q", way, name, got)
				}
			}
			if got := bodies(testserver.Events(page["chunk"])); !slices.Equal(got, []string{"before"}) {
				t.Errorf("%s: the messages are %q", way, got)
			}
		}
	})
}

// eventsOf reads an answer that is a list of events.
func eventsOf(t *testing.T, raw []byte) (events []object) {
	t.Helper()
	if err := json.Unmarshal(raw, &events); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	return events
}
