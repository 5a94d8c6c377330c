package clientapi_test

import (
	"net/http"
	"net/url"
	"slices"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/wait"
)

// TestNULIsTextInContentAlone: JSON can hold NUL, and databases cannot keep it as text. Where an event's content has it, it is
// kept and comes back; where it would be a name, it is refused or stands for nothing. Nowhere is it the server's failure.
func TestNULIsTextInContentAlone(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		alice, bob, room := together(t, s)
		first := alice.Say(room, "first")
		for name, content := range map[string]object{
			"rel_type": {"msgtype": "m.text", "body": "a", "m.relates_to": object{"rel_type": "a\x00b", "event_id": first}},
			"event_id": {"msgtype": "m.text", "body": "a", "m.relates_to": object{"rel_type": "m.reference", "event_id": "$a\x00b"}},
			"thread":   {"msgtype": "m.text", "body": "a", "m.relates_to": object{"rel_type": "m.thread", "event_id": "$a\x00b"}},
			"key":      {"msgtype": "m.text", "body": "a", "m.relates_to": object{"rel_type": "m.annotation", "event_id": first, "key": "a\x00b"}},
			"body":     {"msgtype": "m.text", "body": "a\x00b"},
			"mentions": {"msgtype": "m.text", "body": "a", "m.mentions": object{"user_ids": []string{"@a\x00:b", "\x00"}}},
		} {
			id := alice.Send(room, "m.room.message", content)
			if body := testserver.At(bob.Must("GET", testserver.Path("rooms", room, "event", id), nil).Body, "content", "body"); body != content["body"] {
				t.Errorf("%s: %v", name, body)
			}
		}
		for what, request := range map[string]struct {
			method, path string
			body         object
		}{
			"redacts":       {"PUT", testserver.Path("rooms", room, "send", "m.room.redaction", testserver.Unique("t")), object{"redacts": "$a\x00b"}},
			"receipt":       {"POST", testserver.Path("rooms", room, "receipt", "m.read", first), object{"thread_id": "$a\x00b"}},
			"read_markers":  {"POST", testserver.Path("rooms", room, "read_markers"), object{"m.read": "$a\x00b"}},
			"fully read":    {"POST", testserver.Path("rooms", room, "read_markers"), object{"m.fully_read": "$a\x00b"}},
			"initial state": {"POST", "/createRoom", object{"initial_state": []object{{"type": "org.example\x00", "state_key": "", "content": object{}}}}},
			"state key":     {"POST", "/createRoom", object{"initial_state": []object{{"type": "org.example", "state_key": "a\x00", "content": object{}}}}},
			"room name":     {"POST", "/createRoom", object{"name": "a\x00b", "visibility": "public", "topic": "a\x00b", "preset": "public_chat"}},
			"alias":         {"POST", "/createRoom", object{"room_alias_name": "a\x00b"}},
			"display name":  {"PUT", testserver.Path("profile", alice.ID, "displayname"), object{"displayname": "a\x00b"}},
			"member":        {"PUT", testserver.Path("rooms", room, "state", "m.room.member", alice.ID), object{"membership": "join", "displayname": "a\x00b", "avatar_url": "mxc://a\x00/b"}},
			"ignored":       {"PUT", testserver.Path("user", alice.ID, "account_data", "m.ignored_user_list"), object{"ignored_users": object{"@a\x00:b": object{}}}},
			"search":        {"POST", "/search", object{"search_categories": object{"room_events": object{"search_term": "a\x00b", "filter": object{"senders": []string{"@a\x00:b"}}}}}},
			"users":         {"POST", "/user_directory/search", object{"search_term": "a\x00b"}},
			"report":        {"POST", testserver.Path("rooms", room, "report", first), object{"reason": "a\x00b"}},
			"push rule":     {"PUT", testserver.Path("pushrules", "global", "content", "x"), object{"actions": []string{}, "pattern": "a\x00b"}},
			"presence":      {"PUT", testserver.Path("presence", alice.ID, "status"), object{"presence": "online", "status_msg": "a\x00b"}},
			"filter":        {"POST", testserver.Path("user", alice.ID, "filter"), object{"room": object{"timeline": object{"senders": []string{"@a\x00:b"}}}}},
			"tag":           {"PUT", testserver.Path("user", alice.ID, "rooms", room, "tags", "u.x"), object{"order": 0.5, "a\x00": "\x00"}},
			"device":        {"PUT", testserver.Path("devices", alice.Device), object{"display_name": "a\x00b"}},
			"to device":     {"PUT", testserver.Path("sendToDevice", "org.example", testserver.Unique("t")), object{"messages": object{bob.ID: object{"a\x00b": object{"a": "\x00"}}}}},
			"sliding":       {"POST", slidingPath, object{"conn_id": "x", "room_subscriptions": object{"!a\x00": object{"required_state": [][]string{{"a\x00", "b\x00"}}}}, "lists": object{"a\x00": object{"required_state": [][]string{{"a\x00", "b\x00"}}}}}},
		} {
			a, err := alice.Do(request.method, request.path, request.body)
			if err != nil || a.Status >= http.StatusInternalServerError {
				t.Errorf("%s: %v %d %s", what, err, a.Status, a.Raw)
			}
		}
		// Whoever comes after somebody with such a name is found all the same.
		carol := s.Register(testserver.Unique("carol"))
		carol.Must("PUT", testserver.Path("profile", carol.ID, "displayname"), object{"displayname": testserver.Unique("Clementine")})
		carol.CreateRoom(object{"preset": "public_chat"})
		wait.Until(t, "carol to be found", func() bool {
			found := bob.Must("POST", "/user_directory/search", object{"search_term": "Clementine"}).Body
			return slices.ContainsFunc(testserver.Events(found["results"]), func(p object) bool { return p["user_id"] == carol.ID })
		})
		conn := alice.Socket(url.Values{})
		defer conn.Close()
		for id, params := range map[string]object{
			"type": {"room_id": room, "type": "org.example\x00", "txn_id": "1", "content": object{}}, "txn": {"room_id": room, "type": "org.example", "txn_id": "1\x00", "content": object{}},
			"room": {"room_id": "!a\x00", "type": "org.example", "txn_id": "1", "content": object{}},
		} {
			if err := conn.WriteJSON(object{"id": id, "method": "send", "params": params}); err != nil {
				t.Fatal(err)
			}
			for answered := false; !answered; {
				var frame object
				if err := conn.ReadJSON(&frame); err != nil {
					t.Fatal(err)
				}
				if answered = frame["id"] == id; answered && (testserver.At(frame, "error", "errcode") == nil || testserver.At(frame, "error", "errcode") == "M_UNKNOWN") {
					t.Errorf("socket, %s: %v", id, frame)
				}
			}
		}
	})
}
