package clientapi_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
)

const admin = "/_synapse/admin/v1/"

func TestReports(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		root := s.RegisterAdmin("root")
		t.Run("events", func(t *testing.T) { eventReports(t, s, root) })
		t.Run("rooms and users", func(t *testing.T) { otherReports(t, s, root) })
		t.Run("bounds", func(t *testing.T) { reportBounds(t, s, root) })
		s.Stop()
		if out, ok := s.Run("verify"); !ok {
			t.Errorf("the database is not sound: %s", out)
		}
	})
}

// reports are the reports of a kind, as an administrator lists them.
func reports(root *testserver.User, kind, query string) ([]object, object) {
	body := root.Must("GET", admin+kind+query, nil).Body
	return testserver.Events(body[kind]), body
}

func eventReports(t *testing.T, s *testserver.Server, root *testserver.User) {
	proof.Of(t, "RM-18")
	alice, bob, room := together(t, s)
	alice.Must("PUT", is(room, "state", "m.room.name", ""), object{"name": "The place"})
	id := alice.Say(room, "bad words")
	bob.Must("POST", is(room, "report", id), object{"reason": "first"})
	bob.Must("POST", is(room, "report", id), object{"reason": "it is bad", "score": -100})
	alice.Must("POST", is(room, "report", id), object{})
	list, body := reports(root, "event_reports", "?room_id="+strings.TrimPrefix(room, "!"))
	if len(list) != 2 || body["total"] != 2.0 || body["next_token"] != nil {
		t.Fatalf("the reports are %v", body)
	}
	p := list[1]
	if p["user_id"] != bob.ID || p["sender"] != alice.ID || p["event_id"] != id || p["room_id"] != room || p["reason"] != "it is bad" || p["name"] != "The place" {
		t.Errorf("bob's report is %v", p)
	}
	oldest, body := reports(root, "event_reports", "?limit=1&dir=f&room_id="+room)
	if len(oldest) != 1 || oldest[0]["user_id"] != bob.ID || body["next_token"] != 1.0 {
		t.Errorf("the oldest is %v", body)
	}
	if second, _ := reports(root, "event_reports", "?limit=1&dir=f&from=1&room_id="+room); len(second) != 1 || second[0]["user_id"] != alice.ID {
		t.Errorf("the second is %v", second)
	}
	if of, _ := reports(root, "event_reports", "?user_id="+bob.ID); len(of) != 1 {
		t.Errorf("reports by bob are %v", of)
	}
	one := admin + "event_reports/" + fmt.Sprintf("%.0f", p["id"])
	if got := root.Must("GET", one, nil).Body; testserver.At(got, "event_json", "content", "body") != "bad words" || got["reason"] != "it is bad" {
		t.Errorf("the report is %v", got)
	}
	alice.Refused(http.StatusForbidden, "M_FORBIDDEN", "GET", one, nil)
	alice.Refused(http.StatusForbidden, "M_FORBIDDEN", "DELETE", one, object{})
	root.Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", strings.Replace(one, "event_", "room_", 1), nil)
	root.Must("DELETE", one, object{})
	root.Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", one, nil)
	root.Refused(http.StatusNotFound, "M_NOT_FOUND", "DELETE", one, object{})

	// Who is not in the room, or may not see the event, learns nothing of it.
	stranger := s.Register(testserver.Unique("stranger"))
	for _, u := range []*testserver.User{stranger, root} {
		u.Refused(http.StatusNotFound, "M_NOT_FOUND", "POST", is(room, "report", id), object{"reason": "x"})
	}
	bob.Must("POST", is(room, "leave"), object{})
	bob.Refused(http.StatusNotFound, "M_NOT_FOUND", "POST", is(room, "report", id), object{"reason": "x"})
	hidden := alice.CreateRoom(object{"initial_state": []object{{"type": "m.room.history_visibility", "content": object{"history_visibility": "joined"}}}})
	before := alice.Say(hidden, "before")
	alice.Invite(hidden, bob.ID)
	bob.Join(hidden)
	for _, id := range []string{before, "$nothing", id} {
		bob.Refused(http.StatusNotFound, "M_NOT_FOUND", "POST", is(hidden, "report", id), object{"reason": "x"})
	}
	bob.Refused(http.StatusNotFound, "M_NOT_FOUND", "POST", is("!nowhere:example.org", "report", id), object{"reason": "x"})
}

func otherReports(t *testing.T, s *testserver.Server, root *testserver.User) {
	proof.Of(t, "RM-18")
	alice := s.Register(testserver.Unique("alice"))
	room := alice.CreateRoom(object{"name": "Secret name"})
	stranger := s.Register(testserver.Unique("stranger"))
	for _, id := range []string{room, "!nowhere:example.org"} {
		stranger.Must("POST", is(id, "report"), object{"reason": ""})
	}
	for _, id := range []string{alice.ID, "@nobody:" + string(s.Name), "@somebody:example.org"} {
		stranger.Must("POST", testserver.Path("users", id, "report"), object{"reason": "rude"})
	}
	rooms, _ := reports(root, "room_reports", "?user_id="+stranger.ID)
	if len(rooms) != 2 || rooms[1]["room_id"] != room || rooms[1]["name"] != "Secret name" || rooms[0]["name"] != nil {
		t.Errorf("the reports of rooms are %v", rooms)
	}
	users, _ := reports(root, "user_reports", "?dir=f&user_id="+stranger.ID)
	if len(users) != 3 || users[0]["target_user_id"] != alice.ID || users[0]["reason"] != "rude" {
		t.Errorf("the reports of users are %v", users)
	}
	for _, path := range []string{is(room, "report"), testserver.Path("users", alice.ID, "report")} {
		stranger.Refused(http.StatusBadRequest, "M_MISSING_PARAM", "POST", path, object{})
	}
	stranger.Refused(http.StatusBadRequest, "M_INVALID_PARAM", "POST", is("nonsense", "report"), object{"reason": ""})
	stranger.Refused(http.StatusBadRequest, "M_INVALID_PARAM", "POST", testserver.Path("users", "nonsense", "report"), object{"reason": ""})
}

func reportBounds(t *testing.T, s *testserver.Server, root *testserver.User) {
	alice, _, room := together(t, s)
	id := alice.Say(room, "x")
	alice.Refused(http.StatusRequestEntityTooLarge, "M_TOO_LARGE", "POST", is(room, "report", id), object{"reason": strings.Repeat("x", 4097)})
	alice.Must("POST", is(room, "report", id), object{"reason": strings.Repeat("x", 4096)})
	alice.Must("POST", is(room, "report"), object{"reason": "with \x00 in it"})
	for _, query := range []string{"?dir=x", "?limit=0", "?limit=x", "?from=-1", "?user_id=" + strings.Repeat("x", 256)} {
		root.Refused(http.StatusBadRequest, "M_INVALID_PARAM", "GET", admin+"event_reports"+query, nil)
	}
	if none, _ := reports(root, "event_reports", "?user_id=%25x"); len(none) != 0 {
		t.Errorf("%% is taken as a pattern: %v", none)
	}
	root.Refused(http.StatusBadRequest, "M_INVALID_PARAM", "GET", admin+"event_reports/x", nil)
	// What a path holds is not always what a database can.
	for _, path := range []string{v1(room, "relations", id, "a\x00b"), v1(room, "relations", id, "a", "b\x00c"), v1(room, "relations", "$a\x00b"), is(room, "event", "$a\x00b")} {
		if a, err := alice.Do("GET", path, nil); err != nil || a.Status >= 500 {
			t.Errorf("%s: %v %s %v", path, a.Status, a.Raw, err)
		}
	}
	alice.Must("POST", "/search", object{"search_categories": object{"room_events": object{"search_term": "a\x00b", "filter": object{"senders": []string{"@a\x00b:c"}}}}})
}
