package clientapi_test

import (
	"fmt"
	"net/http"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
)

func TestSending(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		for name, test := range map[string]func(*testing.T, *testserver.Server){
			"redactions": sentRedactions, "messages": sentMessages, "aliases": canonicalAliases, "paths of state": statePaths,
		} {
			t.Run(name, func(t *testing.T) { test(t, s) })
		}
	})
}

// sentRedactions: a redaction can be sent like any event, whatever the room's version, and says what it redacts where its version
// has that.
func sentRedactions(t *testing.T, s *testserver.Server) {
	proof.Of(t, "EV-10")
	alice, root := s.Register(testserver.Unique("alice")), s.RegisterAdmin(testserver.Unique("root"))
	for v := 1; v <= 12; v++ {
		room := alice.CreateRoom(object{"room_version": fmt.Sprint(v)})
		id := alice.Say(room, "gone")
		redaction := alice.Send(room, "m.room.redaction", object{"redacts": id, "reason": "why not"})
		if event := eventOf(alice, room, id); len(event["content"].(object)) != 0 || testserver.At(event, "unsigned", "redacted_because", "event_id") != redaction {
			t.Errorf("version %d: the event is %v", v, event)
		}
		shown := eventOf(alice, room, redaction)
		if testserver.At(shown, "content", "redacts") != id || testserver.At(shown, "content", "reason") != "why not" {
			t.Errorf("version %d: the redaction is shown as %v", v, shown)
		}
		alice.Must("POST", is(room, "report", redaction), object{}) // administrators see events as they are
		list, _ := reports(root, "event_reports", "?room_id="+room)
		pdu := root.Must("GET", admin+"event_reports/"+fmt.Sprintf("%.0f", list[0]["id"]), nil).Body["event_json"]
		inside, outside := testserver.At(pdu, "content", "redacts"), testserver.At(pdu, "redacts")
		if v < 11 && (inside != nil || outside != id) || v >= 11 && (inside != id || outside != nil) {
			t.Errorf("version %d: the redaction is %v", v, pdu)
		}
		alice.Refused(http.StatusBadRequest, "M_MISSING_PARAM", "PUT", is(room, "send", "m.room.redaction", "x"), object{"reason": "of what?"})
	}
}

func sentMessages(t *testing.T, s *testserver.Server) {
	proof.Of(t, "EV-11")
	alice, _, room := together(t, s)
	for _, bad := range []object{{}, {"body": "x"}, {"msgtype": "m.text"}, {"msgtype": "m.text", "body": 5}, {"msgtype": 5, "body": "x"}, {"msgtype": "m.text", "body": nil}} {
		alice.Refused(http.StatusBadRequest, "M_BAD_JSON", "PUT", is(room, "send", "m.room.message", testserver.Unique("t")), bad)
	}
	alice.Send(room, "m.room.message", object{"msgtype": "org.example.odd", "body": ""})
	alice.Send(room, "org.example.message", object{})
}

func canonicalAliases(t *testing.T, s *testserver.Server) {
	proof.Of(t, "EV-12")
	alice, _, room := together(t, s)
	other := alice.CreateRoom(object{})
	alias := func(of string) string {
		name := "#" + testserver.Unique("alias") + ":" + string(s.Name)
		alice.Must("PUT", testserver.Path("directory", "room", name), object{"room_id": of})
		return name
	}
	mine, also, theirs := alias(room), alias(room), alias(other)
	path := is(room, "state", "m.room.canonical_alias", "")
	for _, c := range []struct {
		content object
		code    string
	}{
		{object{"alias": "nonsense"}, "M_INVALID_PARAM"},
		{object{"alias": mine, "alt_aliases": []string{"#nonsense"}}, "M_INVALID_PARAM"},
		{object{"alias": theirs}, "M_BAD_ALIAS"},
		{object{"alias": mine, "alt_aliases": []string{theirs}}, "M_BAD_ALIAS"},
		{object{"alias": "#none:" + string(s.Name)}, "M_BAD_ALIAS"},
		{object{"alias": "#none:localhost:1"}, "M_BAD_ALIAS"},
		{object{"alias": theirs, "alt_aliases": 5}, "M_BAD_JSON"},
	} {
		alice.Refused(http.StatusBadRequest, c.code, "PUT", path, c.content)
	}
	alice.Must("PUT", path, object{"alias": mine, "alt_aliases": []string{also}})
	alice.Must("DELETE", testserver.Path("directory", "room", also), nil)
	alice.Must("PUT", path, object{"alias": also}) // it stood there already
	alice.Must("PUT", path, object{})
	alice.Refused(http.StatusBadRequest, "M_BAD_ALIAS", "PUT", path, object{"alias": also})
}

func statePaths(t *testing.T, s *testserver.Server) {
	proof.Of(t, "EV-13")
	alice, bob, room := together(t, s)
	base := is(room, "state", "m.room.topic")
	for i, write := range []string{base, base + "/"} {
		topic := fmt.Sprint("topic ", i)
		id := alice.Must("PUT", write, object{"topic": topic}).Body["event_id"]
		for _, read := range []string{base, base + "/", base + "?format=content", base + "/?format=content"} {
			if body := bob.Must("GET", read, nil).Body; body["topic"] != topic || body["event_id"] != nil {
				t.Errorf("%s after %s: %v", read, write, body)
			}
		}
		for _, read := range []string{base + "?format=event", base + "/?format=event"} {
			event := bob.Must("GET", read, nil).Body
			if event["event_id"] != id || testserver.At(event, "content", "topic") != topic || event["state_key"] != "" || event["sender"] != alice.ID || event["room_id"] != room {
				t.Errorf("%s after %s: %v", read, write, event)
			}
		}
	}
	alice.Must("PUT", is(room, "state", "org.example.x", "a key/with a slash"), object{"a": 1})
	if body := bob.Must("GET", is(room, "state", "org.example.x", "a key/with a slash"), nil).Body; body["a"] != 1.0 {
		t.Errorf("the state is %v", body)
	}
	bob.Must("GET", "/_matrix/client/r0"+base, nil)
	bob.Refused(http.StatusBadRequest, "M_INVALID_PARAM", "GET", base+"?format=x", nil)
	bob.Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", is(room, "state", "m.room.avatar"), nil)
}
