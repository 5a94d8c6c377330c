package clientapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/wait"
)

// gateway is a push gateway of a test. It takes everything, except that it rejects the key "gone".
type gateway struct {
	t    *testing.T
	url  string
	told chan object
}

func newGateway(t *testing.T) *gateway {
	g := &gateway{t: t, told: make(chan object, 1000)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /_matrix/push/v1/notify", func(w http.ResponseWriter, r *http.Request) {
		var body object
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Errorf("the gateway is told what is no JSON: %v", err)
		}
		n, _ := body["notification"].(object)
		devices := testserver.Events(n["devices"])
		if len(devices) == 1 && devices[0]["pushkey"] == "gone" {
			fmt.Fprint(w, `{"rejected":["another","gone"]}`)
			return
		}
		g.told <- n
		fmt.Fprint(w, `{"rejected":[]}`)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	g.url = server.URL + "/_matrix/push/v1/notify"
	return g
}

// next is the next notification.
func (g *gateway) next() object {
	g.t.Helper()
	var n object
	wait.Until(g.t, "a push notification", func() bool {
		select {
		case n = <-g.told:
			return true
		default:
			return false
		}
	})
	return n
}

// pusherBody describes a pusher; change is what differs from a usual one.
func pusherBody(url, key string, change object) object {
	body := object{"kind": "http", "app_id": "org.example.app", "pushkey": key, "app_display_name": "App", "device_display_name": "Phone",
		"lang": "en", "data": object{"url": url, "extra": object{"a": 1}}}
	for name, value := range change {
		if value == nil {
			delete(body, name)
			continue
		}
		body[name] = value
	}
	return body
}

func (g *gateway) push(u *testserver.User, key string, change object) {
	g.t.Helper()
	u.Must("POST", "/pushers/set", pusherBody(g.url, key, change))
}

// keys are the pushkeys of a user's pushers.
func keys(u *testserver.User) string {
	var out []string
	for _, p := range testserver.Events(u.Must("GET", "/pushers", nil).Body["pushers"]) {
		out = append(out, fmt.Sprint(p["pushkey"]))
	}
	return strings.Join(out, " ")
}

func TestPushers(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		t.Run("set", func(t *testing.T) { pusherSet(t, s) })
		t.Run("refusals", func(t *testing.T) { pusherRefusals(t, s) })
		t.Run("delivery", func(t *testing.T) { pusherDelivery(t, s) })
		t.Run("brief", func(t *testing.T) { pusherBrief(t, s) })
		t.Run("ends", func(t *testing.T) { pusherEnds(t, s) })
		t.Run("notifications", func(t *testing.T) { notifications(t, s) })
		t.Run("log", func(t *testing.T) {
			log, err := os.ReadFile(s.LogFile())
			if err != nil {
				t.Fatal(err)
			}
			for _, secret := range []string{"key-of-", "the cake is ready"} {
				if strings.Contains(string(log), secret) {
					t.Errorf("the log shows %q", secret)
				}
			}
		})
	})
}

func pusherSet(t *testing.T, s *testserver.Server) {
	proof.Of(t, "PU-10")
	alice, bob := s.Register(testserver.Unique("alice")), s.Register(testserver.Unique("bob"))
	g := newGateway(t)
	g.push(alice, "one", nil)
	g.push(alice, "two", object{"profile_tag": "x"})
	g.push(alice, "one", object{"lang": "de"})
	list := testserver.Events(alice.Must("GET", "/pushers", nil).Body["pushers"])
	if got := keys(alice); got != "one two" || list[0]["lang"] != "de" || list[1]["profile_tag"] != "x" || testserver.At(list[0], "data", "url") != g.url {
		t.Errorf("the pushers are %v", list)
	}
	g.push(bob, "one", object{"append": true})
	if got := keys(alice); got != "one two" {
		t.Errorf("after another user has set one beside it, the pushers are %s", got)
	}
	g.push(bob, "one", nil)
	if got := keys(alice) + ", " + keys(bob); got != "two, one" {
		t.Errorf("after another user has taken one, the pushers are %s", got)
	}
	alice.Must("POST", "/pushers/set", object{"kind": nil, "app_id": "org.example.app", "pushkey": "one"})
	alice.Must("POST", "/pushers/set", object{"kind": nil, "app_id": "org.example.app", "pushkey": "two"})
	if got := keys(alice) + ", " + keys(bob); got != ", one" {
		t.Errorf("after they have been removed, the pushers are %s", got)
	}
}

func pusherRefusals(t *testing.T, s *testserver.Server) {
	proof.Of(t, "PU-10", "O08")
	u := s.Register(testserver.Unique("user"))
	const fine = "https://push.example.org/_matrix/push/v1/notify"
	at := func(url string) object { return object{"data": object{"url": url}} }
	for _, c := range []struct {
		what, code string
		change     object
	}{
		{"no kind", "M_MISSING_PARAM", object{"kind": nil}},
		{"an unknown kind", "M_INVALID_PARAM", object{"kind": "carrier pigeon"}},
		{"mail", "M_INVALID_PARAM", object{"kind": "email", "app_id": "m.email"}},
		{"no app ID", "M_MISSING_PARAM", object{"app_id": nil}},
		{"no key", "M_MISSING_PARAM", object{"pushkey": ""}},
		{"a long app ID", "M_INVALID_PARAM", object{"app_id": strings.Repeat("x", 65)}},
		{"a long key", "M_INVALID_PARAM", object{"pushkey": strings.Repeat("x", 513)}},
		{"a NUL", "M_INVALID_PARAM", object{"pushkey": "a\x00b"}},
		{"no language", "M_MISSING_PARAM", object{"lang": nil}},
		{"no app name", "M_MISSING_PARAM", object{"app_display_name": nil}},
		{"a long device name", "M_INVALID_PARAM", object{"device_display_name": strings.Repeat("x", 257)}},
		{"no data", "M_MISSING_PARAM", object{"data": nil}},
		{"much data", "M_INVALID_PARAM", object{"data": object{"url": fine, "more": strings.Repeat("x", 9000)}}},
		{"an unknown format", "M_INVALID_PARAM", object{"data": object{"url": fine, "format": "everything"}}},
		{"no url", "M_MISSING_PARAM", object{"data": object{}}},
		{"another path", "M_INVALID_PARAM", at("https://push.example.org/notify")},
		{"an escaped path", "M_INVALID_PARAM", at("https://push.example.org/_matrix/push/v1/%6eotify")},
		{"a query", "M_INVALID_PARAM", at(fine + "?a=b")},
		{"a fragment", "M_INVALID_PARAM", at(fine + "#a")},
		{"a password", "M_INVALID_PARAM", at("https://a:b@push.example.org/_matrix/push/v1/notify")},
		{"no host", "M_INVALID_PARAM", at("https:///_matrix/push/v1/notify")},
		{"no TLS", "M_INVALID_PARAM", at("http://push.example.org/_matrix/push/v1/notify")},
		{"another scheme", "M_INVALID_PARAM", at("ftp://127.0.0.1/_matrix/push/v1/notify")},
		{"a private address", "M_INVALID_PARAM", at("https://10.0.0.1/_matrix/push/v1/notify")},
		{"a private address in disguise", "M_INVALID_PARAM", at("https://[::ffff:10.0.0.1]/_matrix/push/v1/notify")},
	} {
		t.Run(c.what, func(t *testing.T) { u.Refused(400, c.code, "POST", "/pushers/set", pusherBody(fine, "key", c.change)) })
	}
	for i := range 50 {
		u.Must("POST", "/pushers/set", pusherBody(fine, fmt.Sprint(i), nil))
	}
	u.Refused(400, "M_LIMIT_EXCEEDED", "POST", "/pushers/set", pusherBody(fine, "one more", nil))
}

// pusherDelivery tells Bob's gateway of what Alice does, and nobody of what they do themselves.
func pusherDelivery(t *testing.T, s *testserver.Server) {
	proof.Of(t, "PU-06", "PU-09", "PU-11")
	c := newCounting(t, s, object{"name": "Kitchen"})
	g, ofAlice := newGateway(t), newGateway(t)
	c.say("before there was a pusher", nil)
	c.read(c.last)
	ofAlice.push(c.alice, "key-of-alice", nil)
	g.push(c.bob, "key-of-bob", nil)
	expect := func(what string, want object) {
		t.Helper()
		n := g.next()
		device := testserver.Events(n["devices"])[0]
		if device["app_id"] != "org.example.app" || device["pushkey"] != "key-of-bob" || fmt.Sprint(device["data"]) != "map[extra:map[a:1]]" {
			t.Errorf("%s: the device is %v", what, device)
		}
		if since, _ := device["pushkey_ts"].(float64); since < 1e9 || since > 1e11 {
			t.Errorf("%s: the key is of %v", what, device["pushkey_ts"])
		}
		n["tweaks"] = device["tweaks"]
		for name, value := range want {
			if fmt.Sprint(n[name]) != fmt.Sprint(value) {
				t.Errorf("%s: %s is %v, want %v", what, name, n[name], value)
			}
		}
	}
	id := c.say("the cake is ready", nil)
	expect("a message", object{"event_id": id, "room_id": c.room, "type": "m.room.message", "sender": c.alice.ID, "room_name": "Kitchen",
		"sender_display_name": strings.TrimPrefix(strings.Split(c.alice.ID, ":")[0], "@"), "content": object{"msgtype": "m.text", "body": "the cake is ready"},
		"counts": object{"unread": 1}, "prio": "low", "tweaks": nil})
	expectMention := c.say("you", mention(c.bob.ID))
	expect("a mention", object{"event_id": expectMention, "counts": object{"unread": 2}, "prio": "high", "tweaks": object{"highlight": true, "sound": "default"}})
	c.rule("content", "cake", object{"pattern": "cake", "actions": []any{}})
	c.say("cake", nil)
	mine := c.bob.Say(c.room, "mine")
	if n := ofAlice.next(); n["event_id"] != mine {
		t.Errorf("the sender's gateway is told %v, want %s alone", n, mine)
	}
	expect("having read, by an own message", object{"event_id": nil, "counts": object{}})
	sealed := c.alice.Send(c.room, "m.room.encrypted", object{"algorithm": "x", "ciphertext": "y"})
	expect("an encrypted message", object{"event_id": sealed, "content": nil, "type": "m.room.encrypted", "prio": "high", "counts": object{"unread": 1}})
	c.read(sealed)
	expect("having read", object{"event_id": nil, "room_id": nil, "counts": object{}})
	other := c.alice.CreateRoom(object{"preset": "private_chat", "name": "Cellar"})
	c.alice.Say(other, "not for everybody")
	c.alice.Invite(other, c.bob.ID)
	expect("an invitation", object{"room_id": other, "type": "m.room.member", "user_is_target": true, "room_name": "Cellar", "tweaks": object{"sound": "default"}})
	if len(g.told) != 0 {
		t.Errorf("the gateway is also told %v", <-g.told)
	}
}

func pusherBrief(t *testing.T, s *testserver.Server) {
	proof.Of(t, "PU-11")
	c := newCounting(t, s, object{"name": "Kitchen"})
	g := newGateway(t)
	g.push(c.bob, "key-of-bob", object{"data": object{"url": g.url, "format": "event_id_only"}})
	id := c.say("the cake is ready", nil)
	n := g.next()
	delete(n, "devices")
	if got, want := fmt.Sprint(n), fmt.Sprint(object{"event_id": id, "room_id": c.room, "counts": object{"unread": 1}, "prio": "low"}); got != want {
		t.Errorf("the gateway is told %s, want %s", got, want)
	}
}

// pusherEnds: a pusher ends with its device, and when its gateway knows it no more.
func pusherEnds(t *testing.T, s *testserver.Server) {
	proof.Of(t, "PU-11", "O08")
	c := newCounting(t, s, object{})
	g := newGateway(t)
	phone := s.Login(strings.Split(strings.TrimPrefix(c.bob.ID, "@"), ":")[0])
	g.push(phone, "key-of-phone", nil)
	g.push(c.bob, "gone", nil)
	g.push(c.bob, "key-of-bob", nil)
	c.say("hello", nil)
	wait.Until(t, "the pusher whose key is rejected to be removed", func() bool { return keys(c.bob) == "key-of-phone key-of-bob" })
	phone.Must("POST", "/logout", object{})
	if got := keys(c.bob); got != "key-of-bob" {
		t.Errorf("after the phone is logged out, the pushers are %s", got)
	}
}

// notifications lists what Bob has been told of.
func notifications(t *testing.T, s *testserver.Server) {
	proof.Of(t, "PU-12")
	c := newCounting(t, s, object{})
	c.alice.Must("PUT", testserver.Path("rooms", c.room, "state", "m.room.history_visibility", ""), object{"history_visibility": "joined"})
	list := func(query string) (ids []string, page object) {
		t.Helper()
		page = c.bob.Must("GET", "/notifications"+query, nil).Body
		for _, n := range testserver.Events(page["notifications"]) {
			ids = append(ids, fmt.Sprint(testserver.At(n, "event", "event_id")))
		}
		return ids, page
	}
	one := c.say("one", nil)
	two := c.say("two", mention(c.bob.ID))
	c.bob.Must("POST", testserver.Path("rooms", c.room, "leave"), object{})
	c.say("while away", mention(c.bob.ID))
	if got, _ := list(""); len(got) != 0 {
		t.Errorf("somebody who left is told of %v", got)
	}
	c.alice.Invite(c.room, c.bob.ID)
	c.bob.Join(c.room)
	if got, _ := list(""); len(got) != 0 {
		t.Errorf("somebody who came back is told of %v: neither %s nor %s was for this stay", got, one, two)
	}
	one, two = c.say("one", nil), c.say("two", mention(c.bob.ID))
	c.bob.Say(c.room, "mine")
	c.alice.Send(c.room, "m.reaction", object{"m.relates_to": object{"rel_type": "m.annotation", "event_id": one, "key": "+"}})
	three := c.say("three", nil)
	gone := c.say("gone", nil)
	c.alice.Must("PUT", testserver.Path("rooms", c.room, "redact", gone, testserver.Unique("txn")), object{})
	got, page := list("")
	if fmt.Sprint(got) != fmt.Sprint([]string{three, two, one}) || page["next_token"] != nil {
		t.Errorf("the notifications are %v and then %v, want %v", got, page["next_token"], []string{three, two, one})
	}
	all := testserver.Events(page["notifications"])
	mentioned := all[1]
	if fmt.Sprint(mentioned["actions"]) != "[notify map[set_tweak:sound value:default] map[set_tweak:highlight]]" || mentioned["room_id"] != c.room ||
		mentioned["read"] != true || all[0]["read"] != false || testserver.At(mentioned, "event", "content", "body") != "two" || mentioned["ts"] == nil {
		t.Errorf("the notifications are %v", all)
	}
	if got, _ := list("?only=highlight"); fmt.Sprint(got) != fmt.Sprint([]string{two}) {
		t.Errorf("the highlights are %v", got)
	}
	var walked []string
	for next := ""; ; {
		part, page := list("?limit=1" + next)
		walked = append(walked, part...)
		token, more := page["next_token"].(string)
		if !more {
			break
		}
		next = "&from=" + token
	}
	if fmt.Sprint(walked) != fmt.Sprint([]string{three, two, one}) {
		t.Errorf("page by page the notifications are %v", walked)
	}
	c.bob.Refused(400, "M_INVALID_PARAM", "GET", "/notifications?from=x", nil)
	c.bob.Refused(400, "M_INVALID_PARAM", "GET", "/notifications?only=x", nil)
	c.bob.Refused(400, "M_INVALID_PARAM", "GET", "/notifications?limit=-1", nil)
}
