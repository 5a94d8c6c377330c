package clientapi_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"conclave/internal/testserver"
)

type object = testserver.JSON

// bodies are the texts of the messages among events, in order.
func bodies(events []object) []string {
	var out []string
	for _, e := range events {
		if text, ok := testserver.At(e, "content", "body").(string); ok {
			out = append(out, text)
		}
	}
	return out
}

func token(body object) string {
	next, _ := body["next_batch"].(string)
	return next
}

// together makes two users of a server who share a room.
func together(t *testing.T, s *testserver.Server) (alice, bob *testserver.User, room string) {
	t.Helper()
	alice, bob = s.Register(testserver.Unique("alice")), s.Register(testserver.Unique("bob"))
	room = alice.CreateRoom(object{"preset": "private_chat", "invite": []string{bob.ID}})
	bob.Join(room)
	return alice, bob, room
}

func TestSync(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		t.Run("first and next", func(t *testing.T) { syncFirstAndNext(t, s) })
		t.Run("gap", func(t *testing.T) { syncGap(t, s) })
		t.Run("invitation", func(t *testing.T) { syncInvitation(t, s) })
		t.Run("removal", func(t *testing.T) { syncRemoval(t, s) })
		t.Run("long poll", func(t *testing.T) { syncLongPoll(t, s) })
		t.Run("state after", func(t *testing.T) { syncStateAfter(t, s) })
		t.Run("signals", func(t *testing.T) { syncSignals(t, s) })
		t.Run("bad tokens", func(t *testing.T) { syncBadTokens(t, s) })
		t.Run("session ends", func(t *testing.T) { syncSessionEnds(t, s) })
	})
}

func syncFirstAndNext(t *testing.T, s *testserver.Server) {
	alice, bob, room := together(t, s)
	alice.Say(room, "one")
	first := bob.Sync("", 0)
	if got := bodies(testserver.Timeline(first, room)); len(got) != 1 || got[0] != "one" {
		t.Errorf("the first sync shows %q", got)
	}
	if state := testserver.Events(testserver.At(first, "rooms", "join", room, "state", "events")); len(state) == 0 && len(testserver.Timeline(first, room)) < 7 {
		t.Error("the first sync has no state")
	}
	alice.Say(room, "two")
	next := bob.Sync(token(first), 10_000)
	events := testserver.Timeline(next, room)
	if len(events) != 1 || events[0]["sender"] != alice.ID || testserver.At(events[0], "content", "body") != "two" {
		t.Errorf("the next sync shows %v", events)
	}
	if again := bob.Sync(token(first), 0); len(testserver.Timeline(again, room)) != 1 {
		t.Error("the same token does not give the same events")
	}
	if empty := bob.Sync(token(next), 0); testserver.At(empty, "rooms") != nil {
		t.Errorf("nothing happened, and yet: %v", empty)
	}
	own := alice.Sync(token(first), 0)
	if got := testserver.Timeline(own, room); len(got) != 1 || testserver.At(got[0], "unsigned", "transaction_id") == nil {
		t.Errorf("the sender does not find its transaction ID: %v", got)
	}
	if got := testserver.At(events[0], "unsigned", "transaction_id"); got != nil {
		t.Errorf("another device sees the transaction ID %v", got)
	}
}

// syncGap checks that a limited timeline and the pages before it together show everything once.
func syncGap(t *testing.T, s *testserver.Server) {
	alice, bob, room := together(t, s)
	since := token(bob.Sync("", 0))
	var want []string
	for i := range 25 {
		want = append(want, fmt.Sprint(i))
		alice.Say(room, want[i])
	}
	body := bob.Sync(since, 0)
	timeline := testserver.At(body, "rooms", "join", room, "timeline")
	if testserver.At(timeline, "limited") != true {
		t.Fatalf("25 events fit into %v", timeline)
	}
	got := bodies(testserver.Timeline(body, room))
	from, _ := testserver.At(timeline, "prev_batch").(string)
	for len(got) < len(want) {
		page := bob.Must("GET", testserver.Path("rooms", room, "messages")+"?dir=b&limit=7&from="+from+"&to="+since, nil).Body
		chunk := bodies(testserver.Events(page["chunk"]))
		if len(chunk) == 0 {
			break
		}
		for _, text := range chunk {
			got = append([]string{text}, got...)
		}
		from, _ = page["end"].(string)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("timeline and pages show %v", got)
	}
}

func syncInvitation(t *testing.T, s *testserver.Server) {
	alice, bob := s.Register(testserver.Unique("alice")), s.Register(testserver.Unique("bob"))
	since := token(bob.Sync("", 0))
	room := alice.CreateRoom(object{"preset": "private_chat", "name": "Plans"})
	alice.Say(room, "before the invitation")
	alice.Invite(room, bob.ID)
	since = bob.SyncUntil(since, "the invitation", func(body object) bool {
		events := testserver.Events(testserver.At(body, "rooms", "invite", room, "invite_state", "events"))
		names := 0
		for _, e := range events {
			if e["type"] == "m.room.name" {
				names++
			}
			if e["type"] == "m.room.message" {
				t.Errorf("an invitation shows a message: %v", e)
			}
		}
		return names == 1
	})
	bob.Refused(http.StatusForbidden, "M_FORBIDDEN", "GET", testserver.Path("rooms", room, "messages")+"?dir=b", nil)
	bob.Join(room)
	bob.SyncUntil(since, "the room after joining", func(body object) bool {
		return testserver.At(body, "rooms", "join", room) != nil
	})
}

func syncRemoval(t *testing.T, s *testserver.Server) {
	alice, bob, room := together(t, s)
	since := token(bob.Sync("", 0))
	alice.Must("POST", testserver.Path("rooms", room, "kick"), object{"user_id": bob.ID, "reason": "moved on"})
	alice.Say(room, "not for bob")
	body := bob.Sync(since, 10_000)
	left := testserver.At(body, "rooms", "leave", room)
	events := testserver.Events(testserver.At(left, "timeline", "events"))
	if len(events) != 1 || testserver.At(events[0], "content", "membership") != "leave" {
		t.Errorf("whoever was removed sees %v", left)
	}
	if later := bob.Sync(token(body), 0); testserver.At(later, "rooms") != nil {
		t.Errorf("and later %v", later)
	}
}

func syncLongPoll(t *testing.T, s *testserver.Server) {
	alice, bob, room := together(t, s)
	since := token(bob.Sync("", 0))
	began := time.Now()
	if body := bob.Sync(since, 200); testserver.At(body, "rooms") != nil || time.Since(began) < 200*time.Millisecond {
		t.Errorf("an empty answer after %v: %v", time.Since(began), body)
	}
	answers := make(chan *testserver.Answer, 1)
	go func() {
		a, err := bob.Do("GET", "/sync?timeout=60000&since="+since, nil)
		if err != nil {
			t.Error(err)
		}
		answers <- a
	}()
	id := alice.Say(room, "wake up")
	if a := <-answers; a == nil || !testserver.Has(testserver.Timeline(a.Body, room), id) {
		t.Errorf("the long poll brought %v", a)
	}
}

func syncStateAfter(t *testing.T, s *testserver.Server) {
	alice, bob, room := together(t, s)
	since := token(bob.Sync("", 0))
	alice.Must("PUT", testserver.Path("rooms", room, "state", "m.room.topic", ""), object{"topic": "gardens"})
	for _, names := range [][2]string{{"use_state_after", "state_after"}, {"org.matrix.msc4222.use_state_after", "org.matrix.msc4222.state_after"}} {
		joined := testserver.At(bob.Sync(since, 10_000, names[0], "true"), "rooms", "join", room)
		events := testserver.Events(testserver.At(joined, names[1], "events"))
		if len(events) != 1 || testserver.At(events[0], "content", "topic") != "gardens" || testserver.At(joined, "state") != nil {
			t.Errorf("%s gives %v", names[0], joined)
		}
	}
}

func syncSignals(t *testing.T, s *testserver.Server) {
	alice, bob, room := together(t, s)
	bob.Say(room, "read me")
	id := bob.Say(room, "and me")
	body := alice.Sync("", 0)
	if n := testserver.At(body, "rooms", "join", room, "unread_notifications", "notification_count"); n != float64(2) {
		t.Errorf("%v unread, want 2", n)
	}
	since := token(bob.Sync("", 0))
	alice.Must("PUT", testserver.Path("rooms", room, "typing", alice.ID), object{"typing": true, "timeout": 30_000})
	since = bob.SyncUntil(since, "that alice types", func(body object) bool {
		for _, e := range testserver.Events(testserver.At(body, "rooms", "join", room, "ephemeral", "events")) {
			if users, ok := testserver.At(e, "content", "user_ids").([]any); ok && len(users) == 1 && users[0] == alice.ID {
				return true
			}
		}
		return false
	})
	for _, kind := range []string{"im.conclave.delivered", "m.read"} {
		alice.Must("POST", testserver.Path("rooms", room, "receipt", kind, id), object{})
		since = bob.SyncUntil(since, kind, func(body object) bool {
			for _, e := range testserver.Events(testserver.At(body, "rooms", "join", room, "ephemeral", "events")) {
				if testserver.At(e, "content", id, kind, alice.ID) != nil {
					return true
				}
			}
			return false
		})
	}
	if n := testserver.At(alice.Sync("", 0), "rooms", "join", room, "unread_notifications", "notification_count"); n != float64(0) {
		t.Errorf("%v unread after reading, want 0", n)
	}
}

func syncBadTokens(t *testing.T, s *testserver.Server) {
	alice, _, room := together(t, s)
	for _, bad := range []string{"x", "s", "s1", "s1_2", "s-1_2_x", "s1_2_3_4_5", "t1_0", "s99999999999999999999_0_x"} {
		alice.Refused(http.StatusBadRequest, "M_INVALID_PARAM", "GET", "/sync?since="+bad, nil)
	}
	alice.Refused(http.StatusBadRequest, "M_INVALID_PARAM", "GET", "/sync?timeout=-1", nil)
	alice.Refused(http.StatusBadRequest, "M_INVALID_PARAM", "GET", "/sync?full_state=yes", nil)
	alice.Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", "/sync?filter=unknown", nil)
	// A token of a database that was restored since, and one of a time that is not yet: everything comes anew.
	parts := strings.Split(token(alice.Sync("", 0)), "_")
	parts[0] = "s99999999999999"
	future := strings.Join(parts, "_")
	for _, since := range []string{"s5_5_foreign", future} {
		if body := alice.Sync(since, 0); testserver.At(body, "rooms", "join", room) == nil {
			t.Errorf("the token %s does not start afresh", since)
		}
	}
	c := slides(alice, 0, 9, 1)
	c.next(0)
	number, _, _ := strings.Cut(c.pos, "_")
	alice.Refused(http.StatusBadRequest, "M_UNKNOWN_POS", "POST", slidingPath+"?pos="+number+"_"+future, c.body)
	if body := alice.Must("GET", "/events?timeout=0&from="+future, nil).Body; body["end"] == future {
		t.Errorf("a token of the future leads on: %v", body)
	}
}

func syncSessionEnds(t *testing.T, s *testserver.Server) {
	alice, _, _ := together(t, s)
	since := token(alice.Sync("", 0))
	other := s.Login(alice.ID)
	answers := make(chan *testserver.Answer, 1)
	go func() {
		a, err := alice.Do("GET", "/sync?timeout=60000&since="+since, nil)
		if err != nil {
			t.Error(err)
		}
		answers <- a
	}()
	began := time.Now()
	other.Must("POST", "/logout/all", object{})
	if a := <-answers; a == nil || a.Status != http.StatusUnauthorized || a.Body["errcode"] != "M_UNKNOWN_TOKEN" {
		t.Errorf("the end of its session was answered %v", a)
	}
	if took := time.Since(began); took > stillOpen {
		t.Errorf("a long poll outlived its session by %v", took)
	}
}
