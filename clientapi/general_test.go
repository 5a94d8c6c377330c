package clientapi_test

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
)

// TestGeneral goes through the rules that hold for the whole API.
func TestGeneral(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine, Env: []string{"CONCLAVE_PROFILES_FIXED=displayname,org.test.badge"}})
		t.Run("errors", func(t *testing.T) { standardErrors(t, s) })
		t.Run("tokens", func(t *testing.T) { tokensOfRequests(t, s) })
		t.Run("transactions", func(t *testing.T) { transactions(t, s) })
		t.Run("capabilities", func(t *testing.T) { capabilities(t, s) })
		t.Run("events", func(t *testing.T) { clientEvents(t, s) })
		t.Run("replaced state", func(t *testing.T) { replacedState(t, s) })
		t.Run("stripped state", func(t *testing.T) { strippedState(t, s) })
		t.Run("pages", func(t *testing.T) { pages(t, s) })
	})
}

// fetch makes a request with a header or query of one's own.
func fetch(t *testing.T, s *testserver.Server, path string, authorization ...string) *testserver.Answer {
	t.Helper()
	a, err := s.Nobody().Do("GET", path, nil)
	if len(authorization) > 0 {
		u := *s.Nobody()
		u.Token = authorization[0]
		a, err = u.Do("GET", path, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func standardErrors(t *testing.T, s *testserver.Server) {
	proof.Of(t, "CG-01")
	alice := s.Register(testserver.Unique("alice"))
	for _, c := range []struct {
		method, path string
		body         any
		status       int
		code         string
	}{
		{"GET", "/no/such/thing", nil, 404, "M_UNRECOGNIZED"},
		{"PATCH", "/sync", nil, 405, "M_UNRECOGNIZED"},
		{"DELETE", "/createRoom", nil, 405, "M_UNRECOGNIZED"},
		{"POST", "/createRoom", []byte(`{"name":`), 400, "M_NOT_JSON"},
		{"POST", "/createRoom", []byte(`{"name":7}`), 400, "M_BAD_JSON"},
		{"POST", "/createRoom", []byte(`{"topic":"` + strings.Repeat("x", 1<<20) + `"}`), 413, "M_TOO_LARGE"},
		{"GET", "/rooms/nonsense/state", nil, 400, "M_INVALID_PARAM"},
		{"GET", "/rooms/%21no:where.test/state", nil, 404, "M_NOT_FOUND"},
		{"GET", "/sync?since=nonsense", nil, 400, ""},
		{"PUT", testserver.Path("user", "@x:y.test", "account_data", "a"), object{}, 403, "M_FORBIDDEN"},
	} {
		a, err := alice.Do(c.method, c.path, c.body)
		if err != nil {
			t.Fatal(err)
		}
		code, _ := a.Body["errcode"].(string)
		text, _ := a.Body["error"].(string)
		if a.Status != c.status || code == "" || c.code != "" && code != c.code || text == "" || a.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s: %d %s", c.method, c.path, a.Status, a.Raw)
		}
	}
}

func tokensOfRequests(t *testing.T, s *testserver.Server) {
	proof.Of(t, "CG-02", "CG-03")
	alice := s.Register(testserver.Unique("alice"))
	query := "?access_token=" + url.QueryEscape(alice.Token)
	if a := fetch(t, s, "/account/whoami"+query); a.Body["user_id"] != alice.ID {
		t.Errorf("with a token in the query: %d %s", a.Status, a.Raw)
	}
	if a := fetch(t, s, "/account/whoami", alice.Token); a.Body["user_id"] != alice.ID {
		t.Errorf("with a token in the header: %d %s", a.Status, a.Raw)
	}
	if a := fetch(t, s, "/account/whoami"+query, "ccl_wrong"); a.Status != 401 { // the header decides
		t.Errorf("with a wrong token in the header and a right one in the query: %d %s", a.Status, a.Raw)
	}
	if a := fetch(t, s, "/account/whoami"); a.Status != 401 || a.Body["errcode"] != "M_MISSING_TOKEN" {
		t.Errorf("without a token: %d %s", a.Status, a.Raw)
	}
	alice.Must("POST", "/logout", object{})
	for _, a := range []*testserver.Answer{fetch(t, s, "/account/whoami"+query), fetch(t, s, "/account/whoami", alice.Token), fetch(t, s, "/account/whoami", "x")} {
		if a.Status != 401 || a.Body["errcode"] != "M_UNKNOWN_TOKEN" || a.Body["soft_logout"] == true {
			t.Errorf("with the token of a session that is gone: %d %s", a.Status, a.Raw)
		}
	}
}

func transactions(t *testing.T, s *testserver.Server) {
	proof.Of(t, "CG-06", "CG-07", "A17")
	alice, bob, room := together(t, s)
	second := s.Login(alice.ID)
	since := map[*testserver.User]string{alice: token(alice.Sync("", 0)), second: token(second.Sync("", 0)), bob: token(bob.Sync("", 0))}
	txn := testserver.Unique("txn")
	path := func(room, kind string) string { return testserver.Path("rooms", room, "send", kind, txn) }
	send := func(u *testserver.User, path string) *testserver.Answer {
		return u.Must("PUT", path, object{"msgtype": "m.text", "body": "once"})
	}
	first := send(alice, path(room, "m.room.message"))
	again := func(u *testserver.User) string {
		a := send(u, path(room, "m.room.message"))
		return string(a.Raw)
	}
	if again(alice) != string(first.Raw) {
		t.Error("the same transaction ID made another event")
	}
	relogged := *alice
	login := object{"type": "m.login.password", "password": testserver.Password, "device_id": alice.Device, "identifier": object{"type": "m.id.user", "user": alice.ID}}
	relogged.Token, _ = s.Nobody().Must("POST", "/login", login).Body["access_token"].(string)
	if again(&relogged) != string(first.Raw) {
		t.Error("with another token of the device the same transaction ID made another event")
	}
	since[&relogged] = since[alice]
	delete(since, alice)
	other := relogged.CreateRoom(object{})
	for what, raw := range map[string]string{
		"another device": again(second), "another type": string(send(&relogged, path(room, "org.test.other")).Raw),
		"another room": string(send(&relogged, path(other, "m.room.message")).Raw), "another user": again(bob),
	} {
		if raw == string(first.Raw) {
			t.Errorf("%s with the same transaction ID made no event of its own", what)
		}
	}
	// Only the device that sent the event sees the ID.
	for u, from := range since {
		want := map[bool]any{true: txn}[u == &relogged]
		inSync, inPages := any("?"), testserver.At(u.Must("GET", testserver.Path("rooms", room, "event", first.Body["event_id"].(string)), nil).Body, "unsigned", "transaction_id")
		for _, e := range testserver.Timeline(u.Sync(from, 0), room) {
			if e["event_id"] == first.Body["event_id"] {
				inSync = testserver.At(e, "unsigned", "transaction_id")
			}
		}
		if inSync != want || inPages != want {
			t.Errorf("device %s of %s sees the transaction ID %v and %v, want %v", u.Device, u.ID, inSync, inPages, want)
		}
	}
}

func capabilities(t *testing.T, s *testserver.Server) {
	proof.Of(t, "CG-08", "CG-09", "CG-10")
	alice := s.Register(testserver.Unique("alice"))
	for _, a := range []*testserver.Answer{fetch(t, s, "/_matrix/client/versions"), fetch(t, s, "/_matrix/client/versions", alice.Token)} {
		versions, _ := a.Body["versions"].([]any)
		features, ok := a.Body["unstable_features"].(object)
		if !slices.Contains(versions, any("v1.1")) || !slices.Contains(versions, any("v1.19")) || !ok || features["im.conclave.ws"] != true {
			t.Errorf("versions are %s", a.Raw)
		}
	}
	got, _ := alice.Must("GET", "/capabilities", nil).Body["capabilities"].(object)
	for name, enabled := range map[string]bool{
		"m.change_password": true, "m.3pid_changes": false, "m.get_login_token": true, "m.forget_forced_upon_leave": false,
		"m.profile_fields": true, "m.set_avatar_url": true,
		"m.set_displayname": false, // as the configuration of this server has it
	} {
		if testserver.At(got, name, "enabled") != enabled {
			t.Errorf("%s is %v", name, got[name])
		}
	}
	if list, _ := testserver.At(got, "m.profile_fields", "disallowed").([]any); !slices.Equal(list, []any{"displayname", "org.test.badge"}) {
		t.Errorf("the fields that nobody can set are %v", list)
	}
	if rooms, _ := got["m.room_versions"].(object); rooms["default"] != "12" || len(testserver.At(rooms, "available").(object)) != 12 {
		t.Errorf("the room versions are %v", got["m.room_versions"])
	}
	for _, field := range []string{"displayname", "org.test.badge"} {
		alice.Refused(403, "M_FORBIDDEN", "PUT", testserver.Path("profile", alice.ID, field), object{field: "x"})
		alice.Refused(403, "M_FORBIDDEN", "DELETE", testserver.Path("profile", alice.ID, field), nil)
	}
	alice.Must("PUT", testserver.Path("profile", alice.ID, "avatar_url"), object{"avatar_url": "mxc://a/b"})
}

// clientEvents reads the same events by every road.
func clientEvents(t *testing.T, s *testserver.Server) {
	proof.Of(t, "CG-12", "CG-13")
	alice, bob, room := together(t, s)
	topic := testserver.Path("rooms", room, "state", "m.room.topic", "")
	alice.Must("PUT", topic, object{"topic": "before"})
	had := alice.Must("GET", topic+"?format=event", nil).Body["event_id"]
	state, _ := alice.Must("PUT", topic, object{"topic": "after"}).Body["event_id"].(string)
	gone := alice.Say(room, "gone")
	redaction, _ := alice.Must("PUT", testserver.Path("rooms", room, "redact", gone, "r1"), object{"reason": "why"}).Body["event_id"].(string)
	read := func(id string, check func(where string, e object)) {
		synced := testserver.Timeline(bob.Sync("", 0, "filter", `{"room":{"timeline":{"limit":50}}}`), room)
		chunk := testserver.Events(bob.Must("GET", testserver.Path("rooms", room, "messages")+"?dir=b&limit=50", nil).Body["chunk"])
		for where, list := range map[string][]object{
			"sync": synced, "messages": chunk, "event": {bob.Must("GET", testserver.Path("rooms", room, "event", id), nil).Body},
			"context": {bob.Must("GET", testserver.Path("rooms", room, "context", id), nil).Body["event"].(object)},
		} {
			at := slices.IndexFunc(list, func(e object) bool { return e["event_id"] == id })
			if at < 0 {
				t.Errorf("%s does not have %s", where, id)
				continue
			}
			e := list[at]
			age, _ := testserver.At(e, "unsigned", "age").(float64)
			if ts, _ := e["origin_server_ts"].(float64); ts < 1e12 || age < 0 || age > 600_000 || e["sender"] != alice.ID || e["room_id"] != room && where != "sync" {
				t.Errorf("%s has %v", where, e)
			}
			check(where, e)
		}
	}
	read(state, func(where string, e object) {
		if e["type"] != "m.room.topic" || e["state_key"] != "" || testserver.At(e, "content", "topic") != "after" {
			t.Errorf("%s has the topic %v", where, e)
		}
		if testserver.At(e, "unsigned", "prev_content", "topic") != "before" || testserver.At(e, "unsigned", "replaces_state") != had {
			t.Errorf("%s says of what the topic replaced %v", where, e["unsigned"])
		}
	})
	read(gone, func(where string, e object) {
		_, isState := e["state_key"]
		because, _ := testserver.At(e, "unsigned", "redacted_because").(object)
		if isState || len(e["content"].(object)) != 0 || because["event_id"] != redaction || testserver.At(because, "content", "reason") != "why" || because["type"] != "m.room.redaction" {
			t.Errorf("%s has the redacted message %v", where, e)
		}
	})
}

// replacedState has somebody join a room whose history before that is hidden, and then open.
func replacedState(t *testing.T, s *testserver.Server) {
	proof.Of(t, "CG-13")
	alice, bob := s.Register(testserver.Unique("alice")), s.Register(testserver.Unique("bob"))
	visibility := func(of string) object {
		return object{"type": "m.room.history_visibility", "state_key": "", "content": object{"history_visibility": of}}
	}
	room := alice.CreateRoom(object{"preset": "public_chat", "initial_state": []object{visibility("joined")}})
	set := func(kind string, content object) string {
		id, _ := alice.Must("PUT", testserver.Path("rooms", room, "state", kind, ""), content).Body["event_id"].(string)
		return id
	}
	secret := set("m.room.topic", object{"topic": "secret plans"})
	set("m.room.history_visibility", object{"history_visibility": "shared"})
	open := set("m.room.topic", object{"topic": "for everybody"})
	bob.Join(room)
	next := set("m.room.topic", object{"topic": "of today"})
	for _, c := range []struct {
		who       *testserver.User
		event     string
		had, hold any
	}{
		{alice, open, secret, "secret plans"}, {bob, open, secret, nil}, {alice, next, open, "for everybody"}, {bob, next, open, "for everybody"},
	} {
		for range 2 { // built, and from memory
			a := c.who.Must("GET", testserver.Path("rooms", room, "event", c.event), nil)
			if u := a.Body["unsigned"]; testserver.At(u, "replaces_state") != c.had || testserver.At(u, "prev_content", "topic") != c.hold {
				t.Errorf("%s reads %v, want %v", c.who.ID, u, c.hold)
			}
			if c.hold == nil && strings.Contains(string(a.Raw), "prev") {
				t.Errorf("%s reads %s", c.who.ID, a.Raw)
			}
		}
	}
	bob.Refused(404, "M_NOT_FOUND", "GET", testserver.Path("rooms", room, "event", secret), nil)
}

func strippedState(t *testing.T, s *testserver.Server) {
	proof.Of(t, "CG-14")
	alice, bob := s.Register(testserver.Unique("alice")), s.Register(testserver.Unique("bob"))
	room := alice.CreateRoom(object{"preset": "private_chat", "name": "the room", "invite": []string{bob.ID}})
	knocked := alice.CreateRoom(object{"initial_state": []object{{"type": "m.room.join_rules", "content": object{"join_rule": "knock"}}}})
	bob.Must("POST", testserver.Path("knock", knocked), object{})
	body := bob.Sync("", 0)
	for id, list := range map[string]any{
		room:    testserver.At(body, "rooms", "invite", room, "invite_state", "events"),
		knocked: testserver.At(body, "rooms", "knock", knocked, "knock_state", "events"),
	} {
		kinds := map[string]bool{}
		for _, e := range testserver.Events(list) {
			if got := slices.Sorted(maps.Keys(e)); !slices.Equal(got, []string{"content", "sender", "state_key", "type"}) {
				t.Errorf("a stripped event has %q", got)
			}
			kind, _ := e["type"].(string)
			kinds[kind] = true
		}
		if !kinds["m.room.create"] || !kinds["m.room.member"] || !kinds["m.room.join_rules"] {
			t.Errorf("the stripped state of %s holds %v", id, kinds)
		}
	}
}

func pages(t *testing.T, s *testserver.Server) {
	proof.Of(t, "CG-16")
	alice := s.Register(testserver.Unique("alice"))
	room := alice.CreateRoom(object{})
	for n := range 5 {
		alice.Say(room, strconv.Itoa(n))
	}
	// A filter that nothing passes makes pages empty, and the last page alone has no end.
	for _, filter := range []string{"", "&filter=" + url.QueryEscape(`{"types":["org.test.none"]}`)} {
		from, seen, n := "", 0, 0
		for ; n < 50; n++ {
			q := "?dir=b&limit=2" + filter
			if from != "" {
				q += "&from=" + url.QueryEscape(from)
			}
			body := alice.Must("GET", testserver.Path("rooms", room, "messages")+q, nil).Body
			seen += len(testserver.Events(body["chunk"]))
			end, there := body["end"].(string)
			if from = end; !there {
				break
			}
		}
		if want := map[bool]int{true: 0}[filter != ""]; n == 50 || filter == "" && seen < 11 || filter != "" && seen != want {
			t.Errorf("filter %q: %d events on %d pages", filter, seen, n+1)
		}
	}
	for range 3 {
		alice.CreateRoom(object{"visibility": "public"})
	}
	first := alice.Must("GET", "/publicRooms?limit=2", nil).Body
	next, _ := first["next_batch"].(string)
	last := alice.Must("GET", "/publicRooms?limit=50&since="+url.QueryEscape(next), nil).Body
	if _, more := last["next_batch"]; next == "" || more {
		t.Errorf("the pages of the directory end with %v and %v", first["next_batch"], last["next_batch"])
	}
}

// TestRateLimits asks faster than is allowed.
func TestRateLimits(t *testing.T) {
	proof.Of(t, "CG-05")
	s := testserver.Start(t, testserver.Options{Env: []string{"CONCLAVE_RATE_LIMITS_ENABLED=true"}})
	for range 100 {
		a, err := s.Nobody().Do("GET", "/register/available?username=x", nil)
		if err != nil {
			t.Fatal(err)
		}
		if a.Status == http.StatusOK {
			continue
		}
		ms, _ := a.Body["retry_after_ms"].(float64)
		seconds, err := strconv.Atoi(a.Header.Get("Retry-After"))
		if a.Status != 429 || a.Body["errcode"] != "M_LIMIT_EXCEEDED" || ms < 1 || err != nil || float64(seconds) < ms/1000 || float64(seconds) > ms/1000+1 {
			t.Errorf("too many requests are answered %d %v %s", a.Status, a.Header, a.Raw)
		}
		return
	}
	t.Error("a hundred requests at once were not too many")
}
