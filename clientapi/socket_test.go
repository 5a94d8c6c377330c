package clientapi_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"conclave/internal/testserver"
	"conclave/internal/testserver/shapes"
	"conclave/internal/testserver/wait"
)

// frames reads a socket until a frame satisfies seen, and returns it. Those of the server have the form of answers of /sync.
func frames(t *testing.T, conn *websocket.Conn, what string, seen func(object) bool) object {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	for {
		_, text, err := conn.ReadMessage()
		var frame object
		if err == nil {
			err = json.Unmarshal(text, &frame)
		}
		if err != nil {
			t.Fatalf("waiting for %s: %v", what, err)
		}
		if frame["id"] == nil {
			shapes.Check(t, "GET", "/_matrix/client/v3/sync", http.StatusOK, http.Header{"Content-Type": {"application/json"}}, text)
		}
		if seen(frame) {
			return frame
		}
	}
}

// closing reads a socket to its end and returns the code that it was closed with.
func closing(t *testing.T, conn *websocket.Conn) int {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	for {
		_, _, err := conn.ReadMessage()
		var closed *websocket.CloseError
		if errors.As(err, &closed) {
			return closed.Code
		}
		if err != nil {
			t.Fatalf("the socket broke: %v", err)
		}
	}
}

// ask makes a call over a socket and returns the frame that answers it.
func ask(t *testing.T, conn *websocket.Conn, method string, params object) object {
	t.Helper()
	id := testserver.Unique("call")
	if err := conn.WriteJSON(object{"id": id, "method": method, "params": params}); err != nil {
		t.Fatal(err)
	}
	return frames(t, conn, "the answer of "+method, func(frame object) bool { return frame["id"] == id })
}

func TestSocket(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		t.Run("sync", func(t *testing.T) { socketSync(t, s) })
		t.Run("calls", func(t *testing.T) { socketCalls(t, s) })
		t.Run("bad calls", func(t *testing.T) { socketBadCalls(t, s) })
		t.Run("tickets", func(t *testing.T) { socketTickets(t, s) })
		t.Run("session ends", func(t *testing.T) { socketSessionEnds(t, s) })
		t.Run("removal", func(t *testing.T) { socketRemoval(t, s) })
		t.Run("drain", func(t *testing.T) { socketDrain(t, s) })
	})
}

func socketSync(t *testing.T, s *testserver.Server) {
	alice, bob, room := together(t, s)
	wide := `{"room":{"timeline":{"limit":50}}}` // else more than ten that come at once leave a gap
	conn := bob.Socket(url.Values{"filter": {wide}})
	if conn.Subprotocol() != "m.json" {
		t.Errorf("the subprotocol is %q", conn.Subprotocol())
	}
	first := frames(t, conn, "the first frame", func(object) bool { return true })
	if testserver.At(first, "rooms", "join", room) == nil {
		t.Fatalf("the first frame is %v", first)
	}
	since := token(first)
	var got []string
	for i := range 20 {
		alice.Say(room, fmt.Sprint(i))
	}
	for len(got) < 20 {
		frame := frames(t, conn, "messages", func(f object) bool { return testserver.Timeline(f, room) != nil })
		got = append(got, bodies(testserver.Timeline(frame, room))...)
	}
	for i, text := range got {
		if text != fmt.Sprint(i) {
			t.Fatalf("messages came as %v", got)
		}
	}
	// A client that comes back with an old token gets what it missed.
	again := bob.Socket(url.Values{"since": {since}, "filter": {wide}})
	frame := frames(t, again, "what was missed", func(f object) bool { return testserver.Timeline(f, room) != nil })
	if n := len(testserver.Timeline(frame, room)); n != 20 {
		t.Errorf("%d events after coming back, want 20", n)
	}
}

func socketCalls(t *testing.T, s *testserver.Server) {
	alice, bob, room := together(t, s)
	conn := alice.Socket(nil)
	if a := ask(t, conn, "ping", nil); a["result"] == nil || a["error"] != nil {
		t.Errorf("ping was answered %v", a)
	}
	send := object{"room_id": room, "type": "m.room.message", "txn_id": "same", "content": object{"msgtype": "m.text", "body": "over the socket"}}
	sent := ask(t, conn, "send", send)
	id, _ := testserver.At(sent, "result", "event_id").(string)
	if id == "" {
		t.Fatalf("send was answered %v", sent)
	}
	// The same transaction ID over HTTP is the same message.
	again := alice.Must("PUT", testserver.Path("rooms", room, "send", "m.room.message", "same"), send["content"])
	if again.Body["event_id"] != id {
		t.Errorf("the HTTP road made another event: %v", again.Body)
	}
	since := token(bob.Sync("", 0))
	for method, params := range map[string]object{
		"receipt":      {"room_id": room, "type": "m.read", "event_id": id},
		"read_markers": {"room_id": room, "m.fully_read": id},
		"typing":       {"room_id": room, "typing": true, "timeout": 20_000},
	} {
		if a := ask(t, conn, method, params); a["error"] != nil || a["result"] == nil {
			t.Errorf("%s was answered %v", method, a)
		}
	}
	read, types := false, false
	bob.SyncUntil(since, "receipt and typing", func(body object) bool {
		for _, e := range testserver.Events(testserver.At(body, "rooms", "join", room, "ephemeral", "events")) {
			read = read || testserver.At(e, "content", id, "m.read", alice.ID) != nil
			types = types || e["type"] == "m.typing"
		}
		return read && types
	})
}

func socketBadCalls(t *testing.T, s *testserver.Server) {
	alice, _, room := together(t, s)
	stranger := s.Register(testserver.Unique("stranger"))
	conn := stranger.Socket(nil)
	content := object{"msgtype": "m.text", "body": "hello"}
	for _, c := range []struct {
		method string
		params object
		code   string
	}{
		{"dance", nil, "M_UNRECOGNIZED"},
		{"send", object{"room_id": room, "type": "m.room.message", "txn_id": "1", "content": content}, "M_FORBIDDEN"},
		{"send", object{"room_id": room, "type": "m.room.message", "content": content}, "M_INVALID_PARAM"},
		{"send", object{"room_id": "nonsense", "type": "m.room.message", "txn_id": "1", "content": content}, "M_INVALID_PARAM"},
		{"send", object{"room_id": room, "type": strings.Repeat("x", 256), "txn_id": "1", "content": content}, "M_INVALID_PARAM"},
		{"send", object{"room_id": room, "type": "m.room.message", "txn_id": "1", "content": "text"}, "M_BAD_JSON"},
		{"typing", object{"room_id": room, "typing": true}, "M_FORBIDDEN"},
		{"receipt", object{"room_id": room, "type": "m.read", "event_id": "$x"}, "M_FORBIDDEN"},
	} {
		if a := ask(t, conn, c.method, c.params); testserver.At(a, "error", "errcode") != c.code {
			t.Errorf("%s %v was answered %v, want %s", c.method, c.params, a, c.code)
		}
	}
	for _, bad := range []string{`not JSON`, `{"method":"ping"}`, `{"id":{},"method":"ping"}`, `{"id":"1","id":"2","method":"ping"}`, `[]`} {
		conn := alice.Socket(nil)
		if err := conn.WriteMessage(websocket.TextMessage, []byte(bad)); err != nil {
			t.Fatal(err)
		}
		if code := closing(t, conn); code != websocket.CloseInvalidFramePayloadData {
			t.Errorf("after %s the socket was closed with %d", bad, code)
		}
	}
}

func socketTickets(t *testing.T, s *testserver.Server) {
	alice, _, _ := together(t, s)
	ticket, _ := alice.Must("POST", "/_matrix/client/unstable/im.conclave.ws/ticket", object{}).Body["ticket"].(string)
	at := "ws" + strings.TrimPrefix(s.URL, "http") + "/_matrix/client/unstable/im.conclave.ws/sync?ticket="
	open := func(url string, header http.Header) int {
		conn, res, err := websocket.DefaultDialer.DialContext(t.Context(), url, header)
		if err == nil {
			_ = conn.Close()
		}
		if res == nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode
	}
	if code := open(at+ticket, nil); code != http.StatusSwitchingProtocols {
		t.Errorf("a ticket was answered %d", code)
	}
	if code := open(at+ticket, nil); code != http.StatusUnauthorized {
		t.Errorf("a ticket that was used was answered %d", code)
	}
	if code := open(at, nil); code != http.StatusUnauthorized {
		t.Errorf("no ticket was answered %d", code)
	}
	if code := open(at, http.Header{"Authorization": {"Bearer " + alice.Token}}); code != http.StatusSwitchingProtocols {
		t.Errorf("a token was answered %d", code)
	}
	s.Nobody().Refused(http.StatusUnauthorized, "M_MISSING_TOKEN", "POST", "/_matrix/client/unstable/im.conclave.ws/ticket", object{})
}

func socketSessionEnds(t *testing.T, s *testserver.Server) {
	alice, _, _ := together(t, s)
	conn := alice.Socket(nil)
	frames(t, conn, "the first frame", func(object) bool { return true })
	began := time.Now()
	s.Login(alice.ID).Must("POST", "/logout/all", object{})
	if code := closing(t, conn); code != 4001 {
		t.Errorf("the socket of an ended session was closed with %d", code)
	}
	if took := time.Since(began); took > stillOpen {
		t.Errorf("a socket outlived its session by %v", took)
	}
}

// socketRemoval checks that whoever is removed from a room hears nothing more of it on an open socket.
func socketRemoval(t *testing.T, s *testserver.Server) {
	alice, bob, room := together(t, s)
	conn := bob.Socket(nil)
	frames(t, conn, "the first frame", func(object) bool { return true })
	alice.Must("POST", testserver.Path("rooms", room, "kick"), object{"user_id": bob.ID})
	alice.Say(room, "not for bob")
	other := bob.CreateRoom(object{})
	alice.Say(room, "nor this")
	frames(t, conn, "the new room", func(frame object) bool {
		for _, where := range []string{"join", "leave"} {
			events := testserver.Events(testserver.At(frame, "rooms", where, room, "timeline", "events"))
			if got := bodies(events); len(got) > 0 {
				t.Errorf("after being removed bob reads %v", got)
			}
		}
		return testserver.At(frame, "rooms", "join", other) != nil
	})
}

func socketDrain(t *testing.T, s *testserver.Server) {
	alice, _, _ := together(t, s)
	conn := alice.Socket(nil)
	first := frames(t, conn, "the first frame", func(object) bool { return true })
	poll := make(chan *testserver.Answer, 1)
	go func() {
		a, err := alice.Do("GET", "/sync?timeout=60000&since="+token(first), nil)
		if err != nil {
			t.Error(err)
		}
		poll <- a
	}()
	code := make(chan int, 1)
	go func() { code <- closing(t, conn) }()
	wait.Until(t, "the long poll to wait", func() bool {
		stacks := string(s.Nobody().Must("GET", s.Admin+"/debug/pprof/goroutine?debug=2", nil).Raw)
		return strings.Contains(stacks, "sync.(*Engine).Sync(")
	})
	s.Stop()
	if got := <-code; got != websocket.CloseServiceRestart {
		t.Errorf("a draining server closed the socket with %d", got)
	}
	if a := <-poll; a == nil || a.Status != 200 || a.Body["next_batch"] != token(first) {
		t.Errorf("a draining server answered the long poll %v", a.Body)
	}
	s.Start()
	alice.Sync(token(first), 0)
}
