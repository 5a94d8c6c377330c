package clientapi_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
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

// TestSyncTellsNothingOfTheTimeAfter is about rooms in the list of those that were left, by all roads of sync: whoever was
// never in one is told of its own membership alone, and whoever is banned after leaving sees the room as it was then.
func TestSyncTellsNothingOfTheTimeAfter(t *testing.T) {
	proof.Of(t, "HV-04")
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		for name, way := range map[string]func(*testing.T, *testserver.Server) (*testserver.User, string, string){
			"never in it": invitedAndGone, "banned later": goneAndBanned,
		} {
			t.Run(name, func(t *testing.T) {
				bob, room, since := way(t, s)
				for road, body := range map[string]object{
					"next": bob.Sync(since, 0), "lazy": bob.Sync(since, 0, "filter", `{"room":{"state":{"lazy_load_members":true}}}`),
					"state after": bob.Sync(since, 0, "use_state_after", "true"), "full": bob.Sync(since, 0, "full_state", "true"),
					"first": bob.Sync("", 0, "filter", `{"room":{"include_leave":true}}`),
				} {
					left, _ := testserver.At(body, "rooms", "leave", room).(object)
					checkPast(t, road, bob, left, "state", "state_after", "timeline")
				}
				c := slides(bob, 0, 99, 20, [2]string{"*", "*"})
				c.body["room_subscriptions"] = object{room: object{"timeline_limit": 20, "required_state": [][2]string{{"*", "*"}}}}
				if got := slidRoom(c.next(0), room); got != nil {
					checkPast(t, "sliding", bob, got, "required_state", "timeline")
					if got["joined_count"] != nil || got["invited_count"] != nil {
						t.Errorf("sliding: it counts who is there now: %v", got)
					}
				}
			})
		}
	})
}

// checkPast looks at a room that somebody has left: the last thing to see is that it is over, and nothing is of the time after.
func checkPast(t *testing.T, road string, bob *testserver.User, room object, lists ...string) {
	t.Helper()
	over := false
	for _, list := range lists {
		events := testserver.Events(room[list])
		if list == "timeline" && events == nil {
			events = testserver.Events(testserver.At(room, "timeline", "events"))
		} else if events == nil {
			events = testserver.Events(testserver.At(room, list, "events"))
		}
		for _, e := range events {
			over = over || e["state_key"] == bob.ID && e["type"] == "m.room.member" && testserver.At(e, "content", "membership") != "join"
			if text := fmt.Sprint(e["content"]); strings.Contains(text, "secret") {
				t.Errorf("%s: bob is told in %s of %v", road, list, e)
			}
		}
	}
	if heroes := fmt.Sprint(room["heroes"]); strings.Contains(heroes, "secret") {
		t.Errorf("%s: bob is told of %s", road, heroes)
	}
	if !over {
		t.Errorf("%s: bob is not told that it is over: %v", road, room)
	}
}

// secrets happen in a room that bob is not in.
func secrets(alice *testserver.User, room string) {
	setter{alice, room}.topic("secret")
	alice.Must("PUT", testserver.Path("rooms", room, "state", "org.example.x", ""), object{"a": "secret"})
	carol := alice.Server.Register(testserver.Unique("secret"))
	alice.Invite(room, carol.ID)
	carol.Join(room)
	alice.Say(room, "secret")
}

func invitedAndGone(t *testing.T, s *testserver.Server) (bob *testserver.User, room, since string) {
	alice, bob := s.Register(testserver.Unique("alice")), s.Register(testserver.Unique("bob"))
	room = alice.CreateRoom(object{"preset": "private_chat"})
	since, _ = bob.Sync("", 0)["next_batch"].(string)
	secrets(alice, room)
	alice.Invite(room, bob.ID)
	secrets(alice, room)
	bob.Must("POST", testserver.Path("rooms", room, "leave"), object{})
	return bob, room, since
}

func goneAndBanned(t *testing.T, s *testserver.Server) (bob *testserver.User, room, since string) {
	alice, bob, room := together(t, s)
	bob.Must("POST", testserver.Path("rooms", room, "leave"), object{})
	since, _ = bob.Sync("", 0)["next_batch"].(string)
	secrets(alice, room)
	alice.Must("POST", testserver.Path("rooms", room, "ban"), object{"user_id": bob.ID})
	return bob, room, since
}
