package federation_test

import (
	"fmt"
	"net/url"
	"slices"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/wait"
)

// two are a user on each of two whole servers.
type two struct {
	t          *testing.T
	a, b       *testserver.Server
	alice, bob *testserver.User
}

func eachTwo(t *testing.T, test func(w *two)) {
	t.Helper()
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		w := &two{t: t}
		w.a, w.b = testserver.Pair(t, testserver.Options{Engine: engine})
		w.alice, w.bob = w.a.Register("alice"), w.b.Register("bob")
		test(w)
	})
}

// together makes a room of alice's in which bob is.
func (w *two) together() (room string) {
	w.t.Helper()
	room = w.alice.CreateRoom(testserver.JSON{"preset": "private_chat", "name": "Two servers", "invite": []string{w.bob.ID}})
	w.bob.SyncUntil("", "the invitation", func(body testserver.JSON) bool {
		return testserver.At(body, "rooms", "invite", room) != nil
	})
	w.bob.Join(room, string(w.a.Name))
	return room
}

// says is whether a sync response has a message.
func says(room, text string) func(testserver.JSON) bool {
	return func(body testserver.JSON) bool {
		return slices.ContainsFunc(testserver.Timeline(body, room), func(e testserver.JSON) bool {
			return testserver.At(e, "content", "body") == text
		})
	}
}

// members are who is joined to a room, as a user sees it.
func members(u *testserver.User, room string) []string {
	a, err := u.Do("GET", testserver.Path("rooms", room, "joined_members"), nil)
	if err != nil {
		return nil
	}
	joined, _ := testserver.At(a.Body, "joined").(testserver.JSON)
	var ids []string
	for id := range joined {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (w *two) eventuallyMembers(u *testserver.User, room string, want ...string) {
	w.t.Helper()
	slices.Sort(want)
	wait.Until(w.t, fmt.Sprintf("members %v as %s sees them", want, u.ID), func() bool { return slices.Equal(members(u, room), want) })
}

func TestTwoServersTalk(t *testing.T) {
	eachTwo(t, func(w *two) {
		room := w.together()
		w.eventuallyMembers(w.alice, room, w.alice.ID, w.bob.ID)
		w.eventuallyMembers(w.bob, room, w.alice.ID, w.bob.ID)

		id := w.alice.Say(room, "from a")
		atB := w.bob.SyncUntil("", "alice's message", says(room, "from a"))
		w.bob.Say(room, "from b")
		atA := w.alice.SyncUntil("", "bob's message", says(room, "from b"))

		w.bob.Must("POST", testserver.Path("rooms", room, "receipt", "im.conclave.delivered", id), testserver.JSON{})
		w.bob.Must("POST", testserver.Path("rooms", room, "receipt", "m.read", id), testserver.JSON{})
		seen := map[string]bool{}
		atA = w.alice.SyncUntil(atA, "bob's receipts", func(body testserver.JSON) bool {
			for _, e := range testserver.Events(testserver.At(body, "rooms", "join", room, "ephemeral", "events")) {
				for _, kind := range []string{"im.conclave.delivered", "m.read"} {
					if testserver.At(e, "content", id, kind, w.bob.ID) != nil {
						seen[kind] = true
					}
				}
			}
			return len(seen) == 2
		})
		w.bob.Must("PUT", testserver.Path("rooms", room, "typing", w.bob.ID), testserver.JSON{"typing": true, "timeout": 20000})
		w.alice.SyncUntil(atA, "bob's typing", func(body testserver.JSON) bool {
			for _, e := range testserver.Events(testserver.At(body, "rooms", "join", room, "ephemeral", "events")) {
				users, _ := testserver.At(e, "content", "user_ids").([]any)
				if e["type"] == "m.typing" && slices.Contains(users, any(w.bob.ID)) {
					return true
				}
			}
			return false
		})

		w.alice.Must("POST", testserver.Path("rooms", room, "kick"), testserver.JSON{"user_id": w.bob.ID, "reason": "enough"})
		w.bob.SyncUntil(atB, "the kick", func(body testserver.JSON) bool { return testserver.At(body, "rooms", "leave", room) != nil })
		w.eventuallyMembers(w.alice, room, w.alice.ID)
	})
}

func TestServersLeaveAndComeBack(t *testing.T) {
	eachTwo(t, func(w *two) {
		room := w.together()
		w.bob.Must("POST", testserver.Path("rooms", room, "leave"), testserver.JSON{})
		w.eventuallyMembers(w.alice, room, w.alice.ID)
		w.alice.Say(room, "while bob is away")
		w.alice.Invite(room, w.bob.ID)
		since := w.bob.SyncUntil("", "the second invitation", func(body testserver.JSON) bool {
			return testserver.At(body, "rooms", "invite", room) != nil
		})
		w.bob.Join(room, string(w.a.Name))
		w.alice.Say(room, "and back")
		w.bob.SyncUntil(since, "what comes after", says(room, "and back"))
		w.eventuallyMembers(w.bob, room, w.alice.ID, w.bob.ID)

		declined := w.alice.CreateRoom(testserver.JSON{"invite": []string{w.bob.ID}})
		w.bob.SyncUntil("", "another invitation", func(body testserver.JSON) bool { return testserver.At(body, "rooms", "invite", declined) != nil })
		w.bob.Must("POST", testserver.Path("rooms", declined, "leave"), testserver.JSON{})
		wait.Until(t, "the refusal to arrive", func() bool {
			a, err := w.alice.Do("GET", testserver.Path("rooms", declined, "state", "m.room.member", w.bob.ID), nil)
			return err == nil && a.Body["membership"] == "leave"
		})
	})
}

func TestInvitationsAreTakenBack(t *testing.T) {
	eachTwo(t, func(w *two) {
		room := w.alice.CreateRoom(testserver.JSON{"invite": []string{w.bob.ID}})
		since := w.bob.SyncUntil("", "the invitation", func(body testserver.JSON) bool { return testserver.At(body, "rooms", "invite", room) != nil })
		w.alice.Must("POST", testserver.Path("rooms", room, "kick"), testserver.JSON{"user_id": w.bob.ID})
		w.bob.SyncUntil(since, "its end", func(body testserver.JSON) bool { return testserver.At(body, "rooms", "leave", room) != nil })
	})
}

func TestServersFindRoomsAndPeople(t *testing.T) {
	eachTwo(t, func(w *two) {
		proof.Of(w.t, "RM-11", "US-03")
		w.alice.Must("PUT", testserver.Path("profile", w.alice.ID, "displayname"), testserver.JSON{"displayname": "Alice"})
		profile := w.bob.Must("GET", testserver.Path("profile", w.alice.ID), nil).Body
		if profile["displayname"] != "Alice" {
			t.Errorf("the profile is %v", profile)
		}
		w.bob.Refused(404, "M_NOT_FOUND", "GET", testserver.Path("profile", "@nobody:"+string(w.a.Name)), nil)
		room := w.alice.CreateRoom(testserver.JSON{"preset": "public_chat", "room_alias_name": "square"})
		alias := "#square:" + string(w.a.Name)
		found := w.bob.Must("GET", testserver.Path("directory", "room", alias), nil).Body
		servers, _ := found["servers"].([]any)
		if found["room_id"] != room || !slices.Contains(servers, any(string(w.a.Name))) {
			t.Errorf("the alias leads to %v", found)
		}
		w.bob.Refused(404, "M_NOT_FOUND", "GET", testserver.Path("directory", "room", "#none:"+string(w.a.Name)), nil)
		other := testserver.Path("directory", "room", "#taken:"+string(w.a.Name))
		w.bob.Refused(400, "M_INVALID_PARAM", "PUT", other, testserver.JSON{"room_id": room}) // a name of another server
		w.alice.Must("PUT", other, testserver.JSON{"room_id": room})
		carol := w.a.Register("carol")
		carol.Join(room)
		carol.Refused(409, "M_UNKNOWN", "PUT", other, testserver.JSON{"room_id": room})
		carol.Refused(403, "M_FORBIDDEN", "DELETE", other, nil)
		w.alice.Must("DELETE", other, nil)
		w.bob.Refused(404, "M_NOT_FOUND", "GET", other, nil)
		joined := w.bob.Must("POST", "/join/"+url.PathEscape(alias), testserver.JSON{}).Body
		if joined["room_id"] != room {
			t.Errorf("bob joined %v", joined)
		}
		w.eventuallyMembers(w.alice, room, w.alice.ID, w.bob.ID, carol.ID)
		w.bob.Must("PUT", testserver.Path("profile", w.bob.ID, "displayname"), testserver.JSON{"displayname": "Bob"})
		if profile = w.alice.Must("GET", testserver.Path("profile", w.bob.ID), nil).Body; profile["displayname"] != "Bob" {
			t.Errorf("of somebody in the same room, the profile is %v", profile)
		}
		wait.Until(t, "bob's new name in the room", func() bool {
			a, err := w.alice.Do("GET", testserver.Path("rooms", room, "state", "m.room.member", w.bob.ID), nil)
			return err == nil && a.Body["membership"] == "join" && a.Body["displayname"] == "Bob"
		})
	})
}

func TestWhatWasSaidWhileAServerWasDownArrivesInOrder(t *testing.T) {
	eachTwo(t, func(w *two) {
		room := w.together()
		w.alice.Say(room, "before")
		since := w.bob.SyncUntil("", "the first message", says(room, "before"))
		w.b.Kill()
		var want []string
		for i := range 8 { // as many as a sync shows of a room that much came to at once
			text := fmt.Sprint("missed ", i)
			want = append(want, text)
			w.alice.Say(room, text)
		}
		w.b.Start()
		// A server that is back makes requests of its own, by which the other notices it.
		w.bob.Must("GET", testserver.Path("profile", w.alice.ID), nil)
		var got []string
		w.bob.SyncUntil(since, "all that was missed", func(body testserver.JSON) bool {
			for _, e := range testserver.Timeline(body, room) {
				if text, ok := testserver.At(e, "content", "body").(string); ok {
					got = append(got, text)
				}
			}
			return len(got) >= len(want)
		})
		if !slices.Equal(got, want) {
			t.Errorf("bob reads %v, want %v", got, want)
		}
	})
}
