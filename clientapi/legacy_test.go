package clientapi_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
)

func TestBeforeSync(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		for name, test := range map[string]func(*testing.T, *testserver.Server){
			"initial": initialSyncs, "events": legacyEvents, "peeking": peeking, "one event": oneEvent,
		} {
			t.Run(name, func(t *testing.T) { test(t, s) })
		}
		t.Run("a client far behind", func(t *testing.T) { legacyBehind(t, s) })
	})
}

// listen is one GET /events; the answer's events and where it leads.
func listen(u *testserver.User, from string, more ...string) (chunk []object, end string) {
	q := url.Values{"timeout": {"30000"}}
	if from != "" {
		q.Set("from", from)
	}
	for i := 0; i+1 < len(more); i += 2 {
		q.Set(more[i], more[i+1])
	}
	body := u.Must("GET", "/events?"+q.Encode(), nil).Body
	end, _ = body["end"].(string)
	return testserver.Events(body["chunk"]), end
}

func initialSyncs(t *testing.T, s *testserver.Server) {
	proof.Of(t, "SY-15")
	alice, bob, room := together(t, s)
	for i := range 5 {
		alice.Say(room, fmt.Sprint(i))
	}
	bob.Must("PUT", testserver.Path("user", bob.ID, "rooms", room, "account_data", "org.example.x"), object{"a": 1})
	info := bob.Must("GET", is(room, "initialSync")+"?limit=3", nil).Body
	if got := bodies(testserver.Events(testserver.At(info, "messages", "chunk"))); fmt.Sprint(got) != "[2 3 4]" {
		t.Errorf("the messages are %v", got)
	}
	if info["room_id"] != room || info["membership"] != "join" || info["visibility"] != "private" || len(testserver.Events(info["state"])) < 6 {
		t.Errorf("the room is %v", info)
	}
	if data := testserver.Events(info["account_data"]); len(data) != 1 || data[0]["type"] != "org.example.x" || testserver.At(data[0], "content", "a") != 1.0 {
		t.Errorf("bob's data of the room are %v", data)
	}
	start, _ := testserver.At(info, "messages", "start").(string)
	before := bob.Must("GET", is(room, "messages")+"?dir=b&limit=1&from="+start, nil).Body
	if got := bodies(testserver.Events(before["chunk"])); fmt.Sprint(got) != "[1]" {
		t.Errorf("before them stands %v", got)
	}
	invited := alice.CreateRoom(object{"invite": []string{bob.ID}})
	left := alice.CreateRoom(object{"invite": []string{bob.ID}})
	bob.Join(left)
	bob.Must("POST", is(left, "leave"), object{})
	alice.Say(left, "after bob")
	for query, want := range map[string]map[string]string{"": {room: "join", invited: "invite"}, "?archived=true": {room: "join", invited: "invite", left: "leave"}} {
		body := bob.Must("GET", "/initialSync"+query, nil).Body
		got := map[string]string{}
		for _, r := range testserver.Events(body["rooms"]) {
			got[r["room_id"].(string)], _ = r["membership"].(string)
			if shown := testserver.Events(testserver.At(r, "invite", "unsigned", "invite_room_state")); r["room_id"] == invited && (testserver.At(r, "invite", "sender") != alice.ID || len(shown) < 2) {
				t.Errorf("the invitation is %v", r)
			}
			if fmt.Sprint(bodies(testserver.Events(testserver.At(r, "messages", "chunk")))) == "[after bob]" {
				t.Errorf("whoever left sees %v", r)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) || body["end"] == nil || body["presence"] == nil {
			t.Errorf("%s: the rooms are %v, want %v", query, got, want)
		}
	}
	stranger := s.Register(testserver.Unique("stranger"))
	stranger.Refused(http.StatusForbidden, "M_FORBIDDEN", "GET", is(room, "initialSync"), nil)
	bob.Refused(http.StatusForbidden, "M_FORBIDDEN", "GET", is(invited, "initialSync"), nil)
}

func legacyEvents(t *testing.T, s *testserver.Server) {
	proof.Of(t, "SY-15")
	alice, bob, room := together(t, s)
	other := alice.CreateRoom(object{})
	end, _ := bob.Must("GET", "/initialSync", nil).Body["end"].(string)
	first := alice.Say(room, "first")
	alice.Say(other, "elsewhere")
	chunk, end := listen(bob, end)
	if len(chunk) != 1 || chunk[0]["event_id"] != first || chunk[0]["room_id"] != room {
		t.Errorf("bob hears %v", chunk)
	}
	heard := make(chan []object, 1)
	go func() {
		a, err := bob.Do("GET", "/events?timeout=60000&from="+end, nil)
		if err != nil {
			heard <- nil
			return
		}
		heard <- testserver.Events(a.Body["chunk"])
	}()
	second := alice.Say(room, "second")
	if chunk := <-heard; len(chunk) != 1 || chunk[0]["event_id"] != second {
		t.Errorf("while waiting bob hears %v", chunk)
	}
	// Messages to a device are not lost to a client that goes over to /sync from here.
	alice.Must("PUT", testserver.Path("sendToDevice", "org.example.x", testserver.Unique("t")), object{"messages": object{bob.ID: object{bob.Device: object{"a": 1}}}})
	alice.Say(room, "third")
	_, end = listen(bob, end)
	_, end = listen(bob, end, "timeout", "0")
	if got := testserver.Events(testserver.At(bob.Sync(end, 0), "to_device", "events")); len(got) != 1 {
		t.Errorf("the messages to bob's device are %v", got)
	}
	alice.Must("POST", is(room, "kick"), object{"user_id": bob.ID})
	alice.Say(room, "without bob")
	chunk, _ = listen(bob, end, "timeout", "0")
	for _, e := range chunk {
		if testserver.At(e, "content", "body") == "without bob" {
			t.Error("whoever was removed hears on")
		}
	}
	bob.Refused(http.StatusBadRequest, "M_INVALID_PARAM", "GET", "/events?from=x", nil)
	bob.Refused(http.StatusBadRequest, "M_INVALID_PARAM", "GET", "/events?timeout=x", nil)
}

// legacyBehind: what happened before the server was started is told too, in order and without a gap.
func legacyBehind(t *testing.T, s *testserver.Server) {
	alice, bob, room := together(t, s)
	second := alice.CreateRoom(object{"invite": []string{bob.ID}})
	bob.Join(second)
	_, end := listen(bob, "", "timeout", "0")
	var want []string
	for i := range 230 { // more than one answer holds
		want = append(want, alice.Say([]string{room, second}[i%2], fmt.Sprint(i)))
	}
	s.Stop()
	s.Start()
	var got []string
	for len(got) < len(want) {
		chunk, next := listen(bob, end, "timeout", "0")
		if len(chunk) == 0 || next == end {
			break
		}
		got, end = append(got, ids(chunk)...), next
	}
	if !slices.Equal(got, want) {
		t.Errorf("bob hears %d events, want %d in their order", len(got), len(want))
	}
}

func peeking(t *testing.T, s *testserver.Server) {
	proof.Of(t, "SY-15")
	alice, stranger := s.Register(testserver.Unique("alice")), s.Register(testserver.Unique("stranger"))
	room := alice.CreateRoom(object{"initial_state": []object{
		{"type": "m.room.history_visibility", "content": object{"history_visibility": "world_readable"}},
	}})
	alice.Say(room, "open")
	info := stranger.Must("GET", is(room, "initialSync"), nil).Body
	if got := bodies(testserver.Events(testserver.At(info, "messages", "chunk"))); fmt.Sprint(got) != "[open]" || info["membership"] != nil {
		t.Errorf("a stranger sees %v", info)
	}
	end, _ := testserver.At(info, "messages", "end").(string)
	id := alice.Say(room, "more")
	chunk, end := listen(stranger, end, "room_id", room)
	if len(chunk) != 1 || chunk[0]["event_id"] != id {
		t.Errorf("a stranger hears %v", chunk)
	}
	alice.Must("PUT", is(room, "state", "m.room.history_visibility", ""), object{"history_visibility": "shared"})
	alice.Say(room, "closed")
	stranger.Refused(http.StatusForbidden, "M_FORBIDDEN", "GET", "/events?room_id="+url.QueryEscape(room)+"&from="+end, nil)
	stranger.Refused(http.StatusForbidden, "M_FORBIDDEN", "GET", is(room, "initialSync"), nil)
	stranger.Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", "/events?room_id="+url.QueryEscape("!nowhere:example.org"), nil)
	stranger.Refused(http.StatusBadRequest, "M_INVALID_PARAM", "GET", "/events?room_id=nonsense", nil)
}

func oneEvent(t *testing.T, s *testserver.Server) {
	proof.Of(t, "SY-15")
	alice, bob, room := together(t, s)
	id := alice.Say(room, "one")
	if event := bob.Must("GET", testserver.Path("events", id), nil).Body; event["event_id"] != id || event["room_id"] != room || testserver.At(event, "content", "body") != "one" {
		t.Errorf("the event is %v", event)
	}
	stranger := s.Register(testserver.Unique("stranger"))
	for _, id := range []string{id, "$nothing", "nonsense"} {
		stranger.Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", testserver.Path("events", id), nil)
	}
}
