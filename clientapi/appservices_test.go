package clientapi_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/wait"
)

const hsToken = "secret-of-the-server"

// got is a transaction as an application service got it.
type got struct {
	id, body string
	content  object
}

// bridge is an application service of a test. What it answers can be changed at any time.
type bridge struct {
	t      *testing.T
	http   *httptest.Server
	as     *testserver.User // its sender, with its token
	end    chan struct{}    // closed at the end: what hangs goes on
	server *testserver.Server

	mu     sync.Mutex
	answer http.HandlerFunc // nil: 200 {}
	txns   []got
	asked  []string // paths other than transactions, with their queries
}

// newBridge makes a server with one application service that it talks to, and one that has no address. more is added to the
// registration of the first, whose lines hold.
func newBridge(t *testing.T, engine, more string, env ...string) *bridge {
	t.Helper()
	b := &bridge{t: t, end: make(chan struct{})}
	b.http = httptest.NewServer(http.HandlerFunc(b.serve))
	t.Cleanup(b.http.Close)
	t.Cleanup(func() { close(b.end) })
	path := filepath.Join(t.TempDir(), "irc.yaml")
	text := fmt.Sprintf(`id: irc
url: %s/below
as_token: secret-of-the-service
hs_token: %s
sender_localpart: _irc_bot
namespaces:
  users: [{exclusive: true, regex: "@_irc_.*"}, {exclusive: false, regex: "@shared_.*"}]
  aliases: [{exclusive: true, regex: "#_irc_.*"}]
  rooms: []
%s`, b.http.URL, hsToken, more)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	quiet := filepath.Join(t.TempDir(), "quiet.yaml")
	text = "id: quiet\nurl: null\nas_token: secret-of-the-quiet\nhs_token: x\nsender_localpart: _quiet_bot\nnamespaces: {}\n"
	if err := os.WriteFile(quiet, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b.server = testserver.Start(t, testserver.Options{Engine: engine, Presence: true, Env: append(env, "CONCLAVE_APP_SERVICES="+path+","+quiet)})
	b.as = b.server.Nobody()
	b.as.Token, b.as.ID = "secret-of-the-service", "@_irc_bot:"+string(b.server.Name)
	return b
}

// serve is the application service.
func (b *bridge) serve(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer "+hsToken {
		b.t.Errorf("%s came with the token %q", r.URL.Path, r.Header.Get("Authorization"))
	}
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	b.mu.Lock()
	if id, ok := strings.CutPrefix(r.URL.Path, "/below/_matrix/app/v1/transactions/"); ok {
		one := got{id: id, body: string(raw)}
		if err := json.Unmarshal(raw, &one.content); err != nil || r.Method != http.MethodPut {
			b.t.Errorf("%s %s came with %s", r.Method, r.URL.Path, raw)
		}
		b.txns = append(b.txns, one)
	} else {
		b.asked = append(b.asked, r.URL.RequestURI())
	}
	answer := b.answer
	b.mu.Unlock()
	if answer == nil {
		fmt.Fprint(w, "{}")
		return
	}
	answer(w, r)
}

func (b *bridge) answers(how http.HandlerFunc) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answer = how
}

func (b *bridge) hangs(w http.ResponseWriter, r *http.Request) {
	select {
	case <-b.end:
	case <-r.Context().Done():
	}
}

func answering(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		fmt.Fprint(w, body)
	}
}

func (b *bridge) transactions() []got {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]got(nil), b.txns...)
}

// events are all that came, without repetitions of a transaction.
func (b *bridge) events(list string) (out []object) {
	seen := map[string]bool{}
	for _, one := range b.transactions() {
		if !seen[one.id] {
			out = append(out, testserver.Events(one.content[list])...)
		}
		seen[one.id] = true
	}
	return out
}

// waits waits for an event that came in a list of a transaction.
func (b *bridge) waits(list, what string, is func(object) bool) (found object) {
	b.t.Helper()
	wait.Until(b.t, what, func() bool {
		for _, event := range b.events(list) {
			if is(event) {
				found = event
				return true
			}
		}
		return false
	})
	return found
}

func says(text string) func(object) bool {
	return func(event object) bool { return testserver.At(event, "content", "body") == text }
}

// acting is a path for a user that the service acts as.
func acting(path, user string, more ...string) string {
	q := url.Values{"user_id": {user}}
	for i := 0; i+1 < len(more); i += 2 {
		q.Set(more[i], more[i+1])
	}
	return path + "?" + q.Encode()
}

// ghost registers a user of the service and returns its ID.
func (b *bridge) ghost(name string) string {
	b.t.Helper()
	id, _ := b.as.Must("POST", "/register", object{"type": "m.login.application_service", "username": name, "inhibit_login": true}).Body["user_id"].(string)
	return id
}

// An application service acts as its users and as nobody else, and what is its own nobody else can make.
func TestActingAsUsers(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		proof.Of(t, "AP-04", "AP-05", "AP-07")
		b := newBridge(t, engine, "", "CONCLAVE_REGISTRATION_MODE=closed")
		s, as, nobody := b.server, b.as, b.server.Nobody()
		human := s.RegisterAdmin("human")
		if who := as.Must("GET", "/account/whoami", nil).Body; who["user_id"] != as.ID || who["device_id"] != nil {
			t.Errorf("without a user the service is %v", who)
		}
		ghost := "@_irc_ghost:" + string(s.Name)
		as.Refused(403, "M_FORBIDDEN", "GET", acting("/account/whoami", ghost), nil)
		if id := b.ghost("_irc_ghost"); id != ghost {
			t.Errorf("registered as %s", id)
		}
		if who := as.Must("GET", acting("/account/whoami", ghost), nil).Body; who["user_id"] != ghost {
			t.Errorf("the service acts as %v", who)
		}
		as.Refused(403, "M_FORBIDDEN", "GET", acting("/account/whoami", human.ID), nil)
		as.Refused(403, "M_FORBIDDEN", "GET", acting("/account/whoami", "@_irc_ghost:elsewhere.org"), nil)
		as.Refused(400, "M_UNKNOWN_DEVICE", "GET", acting("/account/whoami", ghost, "device_id", "NONE"), nil)
		inQuery := acting("/account/whoami", ghost, "access_token", as.Token) // where the services of old have it
		if who := nobody.Must("GET", inQuery, nil).Body; who["user_id"] != ghost {
			t.Errorf("by a token in the query the service acts as %v", who)
		}
		nobody.Refused(403, "M_FORBIDDEN", "GET", acting("/account/whoami", human.ID, "access_token", as.Token), nil)
		if who := human.Must("GET", acting("/account/whoami", ghost), nil).Body; who["user_id"] != human.ID {
			t.Error("a human acts as a user of a service")
		}

		register := func(name string) object {
			return object{"type": "m.login.application_service", "username": name}
		}
		login := func(name string) object {
			return object{"type": "m.login.application_service", "identifier": object{"type": "m.id.user", "user": name}}
		}
		wrong := s.Nobody()
		wrong.Token = "secret-of-the-servicf"
		nobody.Refused(401, "M_MISSING_TOKEN", "POST", "/register", register("_irc_x"))
		wrong.Refused(401, "M_UNKNOWN_TOKEN", "POST", "/register", register("_irc_x"))
		human.Refused(401, "M_UNKNOWN_TOKEN", "POST", "/login", login(ghost))
		as.Refused(400, "M_EXCLUSIVE", "POST", "/register", register("elsewhere"))
		as.Refused(400, "M_EXCLUSIVE", "POST", "/login", login(human.ID))
		as.Refused(400, "M_USER_IN_USE", "POST", "/register", register("_irc_ghost"))
		as.Refused(403, "M_FORBIDDEN", "POST", "/login", login("_irc_nobody"))
		session := as.Must("POST", "/login", login("_irc_ghost")).Body
		as.Must("GET", acting("/account/whoami", ghost, "device_id", fmt.Sprint(session["device_id"])), nil)
		own := s.Nobody()
		own.Token, _ = session["access_token"].(string)
		if who := own.Must("GET", "/account/whoami", nil).Body; who["user_id"] != ghost {
			t.Errorf("logged in as %v", who)
		}
		nobody.Refused(403, "M_FORBIDDEN", "POST", "/login", object{"type": "m.login.password", "password": "x", "identifier": object{"type": "m.id.user", "user": "_irc_ghost"}})

		room := as.CreateRoom(object{"preset": "public_chat", "room_alias_name": "_irc_made"})
		as.Refused(400, "M_EXCLUSIVE", "PUT", testserver.Path("directory", "room", "#other:"+string(s.Name)), object{"room_id": room})
		human.Join(room)
		mine := testserver.Path("directory", "room", "#_irc_mine:"+string(s.Name))
		human.Refused(400, "M_EXCLUSIVE", "PUT", mine, object{"room_id": room})
		human.Refused(400, "M_EXCLUSIVE", "POST", "/createRoom", object{"room_alias_name": "_irc_mine"})
		as.Must("PUT", mine, object{"room_id": room})
		human.Refused(400, "M_EXCLUSIVE", "DELETE", mine, nil)
		as.Must("DELETE", acting(mine, ghost), nil)
	})
}

// Where everybody may register, the names of application services are taken.
func TestReservedNames(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		proof.Of(t, "AP-04")
		b := newBridge(t, engine, "")
		nobody := b.server.Nobody()
		for _, name := range []string{"_irc_someone", "_irc_bot"} {
			nobody.Refused(400, "M_EXCLUSIVE", "POST", "/register", object{"username": name, "password": testserver.Password, "auth": object{"type": "m.login.dummy"}})
			nobody.Refused(400, "M_EXCLUSIVE", "GET", "/register/available?username="+name, nil)
		}
		b.server.Register("shared_human") // in a namespace that is not the service's alone
	})
}

// A service makes and deletes devices and replaces keys without anybody's password, and gives events their time.
func TestServicesDevices(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		proof.Of(t, "AP-06", "AP-08")
		b := newBridge(t, engine, "")
		as, ghost := b.as, b.ghost("_irc_ghost")
		device := testserver.Path("devices", "ONE")
		a, err := as.Do("PUT", acting(device, ghost), object{"display_name": "Bridge"})
		if err != nil || a.Status != 201 {
			t.Fatalf("making a device: %v %d %s", err, a.Status, a.Raw)
		}
		as.Must("PUT", acting(device, ghost), object{"display_name": "Renamed"})
		if d := as.Must("GET", acting(device, ghost), nil).Body; d["display_name"] != "Renamed" {
			t.Errorf("the device is %v", d)
		}
		human := b.server.Register("human")
		human.Refused(404, "M_NOT_FOUND", "PUT", device, object{"display_name": "Mine"})
		as.Refused(400, "M_MISSING_PARAM", "POST", acting("/keys/upload", ghost), object{})
		as.Must("POST", acting("/keys/upload", ghost, "device_id", "ONE"), object{})
		as.Must("DELETE", acting(device, ghost), nil)
		as.Refused(400, "M_UNKNOWN_DEVICE", "GET", acting("/account/whoami", ghost, "device_id", "ONE"), nil)
		if a, err := as.Do("PUT", acting(device, ghost), object{}); err != nil || a.Status != 201 {
			t.Fatalf("making the device again: %v", err)
		}
		as.Must("POST", acting("/delete_devices", ghost), object{"devices": []string{"ONE"}})
		as.Refused(404, "M_NOT_FOUND", "GET", acting(device, ghost), nil)

		for _, public := range []string{"c2V0IGlzIHRoZSBmaXJzdCBvZiB0d28ga2V5cyBoZXI", "c2V0IGlzIHRoZSBzZWNvbmQgb2YgdHdvIGtleXMgaGU"} {
			as.Must("POST", acting("/keys/device_signing/upload", ghost), object{"master_key": object{
				"user_id": ghost, "usage": []string{"master"}, "keys": object{"ed25519:" + public: public},
			}})
		}

		room := as.CreateRoom(object{"preset": "public_chat"})
		as.Must("POST", acting(testserver.Path("join", room), ghost), object{})
		sent := func(path string, body object) object {
			id, _ := as.Must("PUT", path, body).Body["event_id"].(string)
			return as.Must("GET", testserver.Path("rooms", room, "event", id), nil).Body
		}
		message := testserver.Path("rooms", room, "send", "m.room.message", "1")
		body := object{"msgtype": "m.text", "body": "of old"}
		if event := sent(acting(message, ghost, "ts", "1234567"), body); event["origin_server_ts"] != float64(1234567) || event["sender"] != ghost {
			t.Errorf("sent %v", event)
		}
		if event := sent(message, body); event["sender"] != as.ID || event["origin_server_ts"] == float64(1234567) {
			t.Errorf("the same transaction ID of another user, without a time, sent %v", event)
		}
		topic := testserver.Path("rooms", room, "state", "m.room.topic")
		if event := sent(topic+"?ts=1234568", object{"topic": "old"}); event["origin_server_ts"] != float64(1234568) {
			t.Errorf("set %v", event)
		}
		for _, ts := range []string{"-1", "now", "9007199254740992"} {
			as.Refused(400, "M_INVALID_PARAM", "PUT", topic+"?ts="+ts, object{"topic": "new"})
		}
		human.Join(room)
		id, _ := human.Must("PUT", testserver.Path("rooms", room, "send", "m.room.message", "2")+"?ts=1234567", body).Body["event_id"].(string)
		if event := human.Must("GET", testserver.Path("rooms", room, "event", id), nil).Body; event["origin_server_ts"] == float64(1234567) {
			t.Error("a human gave an event its time")
		}
	})
}

// Requests of a service are under no limits, except those for users that its registration wants limited.
func TestServicesLimits(t *testing.T) {
	proof.Of(t, "AP-05")
	for _, limited := range []bool{false, true} {
		b := newBridge(t, "sqlite", fmt.Sprintf("rate_limited: %v\n", limited), "CONCLAVE_RATE_LIMITS_ENABLED=true")
		ghost, refused := b.ghost("_irc_ghost"), 0
		for i := 0; i < 60 || limited && refused == 0 && i < 1000; i++ { // a human has 50 at once, and five more each second
			for _, user := range []string{ghost, b.as.ID} {
				a, err := b.as.Do("PUT", acting(testserver.Path("profile", user, "displayname"), user), object{"displayname": fmt.Sprint(i)})
				if err != nil {
					t.Fatal(err)
				}
				switch {
				case a.Status == 429 && limited && user == ghost:
					refused++
				case a.Status != 200:
					t.Fatalf("limited %v, %s: %d %s", limited, user, a.Status, a.Raw)
				}
			}
		}
		if limited != (refused > 0) {
			t.Errorf("limited %v: %d refused", limited, refused)
		}
	}
}
