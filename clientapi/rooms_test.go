package clientapi_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/wait"
)

// is is short for the path of something below a room.
func is(room string, more ...string) string {
	return testserver.Path(append([]string{"rooms", room}, more...)...)
}

func TestRooms(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		for name, test := range map[string]func(*testing.T, *testserver.Server){
			"creation": roomCreation, "versions": roomVersions, "membership": roomMembership, "refusals": roomRefusals, "state": roomState,
			"redaction": roomRedaction, "transactions": roomTransactions, "reading": roomReading, "history": roomHistory, "aliases": roomAliases,
			"profiles": roomProfiles, "account data": userData, "names": badNames, "meta": serverMeta, "policy lists": policyLists,
		} {
			t.Run(name, func(t *testing.T) { test(t, s) })
		}
	})
}

func roomCreation(t *testing.T, s *testserver.Server) {
	alice, bob := s.Register(testserver.Unique("alice")), s.Register(testserver.Unique("bob"))
	for preset, want := range map[string][3]string{
		"private_chat": {"invite", "shared", "can_join"}, "trusted_private_chat": {"invite", "shared", "can_join"}, "public_chat": {"public", "shared", "forbidden"},
	} {
		room := alice.CreateRoom(object{"preset": preset, "name": "Plans", "topic": "gardens", "invite": []string{bob.ID}, "is_direct": true})
		rule := alice.Must("GET", is(room, "state", "m.room.join_rules"), nil).Body["join_rule"]
		seen := alice.Must("GET", is(room, "state", "m.room.history_visibility", ""), nil).Body["history_visibility"]
		guests := alice.Must("GET", is(room, "state", "m.room.guest_access", ""), nil).Body["guest_access"]
		if rule != want[0] || seen != want[1] || guests != want[2] {
			t.Errorf("%s makes %v %v %v", preset, rule, seen, guests)
		}
		if alice.Must("GET", is(room, "state", "m.room.name", ""), nil).Body["name"] != "Plans" {
			t.Error("the room has no name")
		}
		member := alice.Must("GET", is(room, "state", "m.room.member", bob.ID), nil).Body
		if member["membership"] != "invite" || member["is_direct"] != true {
			t.Errorf("the invitation is %v", member)
		}
	}
	room := alice.CreateRoom(object{"initial_state": []object{
		{"type": "m.room.encryption", "content": object{"algorithm": "im.conclave.group.v1"}},
		{"type": "m.room.history_visibility", "content": object{"history_visibility": "joined"}},
	}, "creation_content": object{"m.federate": false}, "power_level_content_override": object{"events_default": 10}})
	if alice.Must("GET", is(room, "state", "m.room.encryption", ""), nil).Body["algorithm"] != "im.conclave.group.v1" {
		t.Error("the room is not encrypted")
	}
	if alice.Must("GET", is(room, "state", "m.room.create", ""), nil).Body["m.federate"] != false {
		t.Error("creation_content is lost")
	}
	if alice.Must("GET", is(room, "state", "m.room.power_levels", ""), nil).Body["events_default"] != float64(10) {
		t.Error("power_level_content_override is lost")
	}
	alice.Refused(http.StatusBadRequest, "M_UNSUPPORTED_ROOM_VERSION", "POST", "/createRoom", object{"room_version": "99"})
	alice.Refused(http.StatusBadRequest, "M_INVALID_PARAM", "POST", "/createRoom", object{"invite": []string{"bob"}})
	alice.Refused(http.StatusBadRequest, "M_BAD_JSON", "POST", "/createRoom", object{"name": 5})
	alice.Refused(http.StatusBadRequest, "M_NOT_JSON", "POST", "/createRoom", []byte(`{"name":`))
}

func roomVersions(t *testing.T, s *testserver.Server) {
	alice := s.Register(testserver.Unique("alice"))
	for v := 1; v <= 12; v++ {
		room := alice.CreateRoom(object{"room_version": fmt.Sprint(v)})
		id := alice.Say(room, "hello")
		create := alice.Must("GET", is(room, "state", "m.room.create", ""), nil).Body
		if v > 1 && create["room_version"] != fmt.Sprint(v) {
			t.Errorf("version %d made %v", v, create)
		}
		if (v < 3) != strings.HasSuffix(id, ":"+string(s.Name)) {
			t.Errorf("version %d has event IDs like %s", v, id)
		}
		if (v >= 12) != !strings.Contains(room, ":") {
			t.Errorf("version %d has room IDs like %s", v, room)
		}
	}
}

func roomMembership(t *testing.T, s *testserver.Server) {
	alice, bob, room := together(t, s)
	carol := s.Register(testserver.Unique("carol"))
	carol.Refused(http.StatusForbidden, "M_FORBIDDEN", "POST", testserver.Path("join", room), object{})
	bob.Invite(room, carol.ID)
	carol.Join(room)
	joined := alice.Must("GET", is(room, "joined_members"), nil).Body["joined"].(object)
	if len(joined) != 3 {
		t.Errorf("%d are in the room, want 3", len(joined))
	}
	alice.Must("POST", is(room, "ban"), object{"user_id": carol.ID, "reason": "spam"})
	carol.Refused(http.StatusForbidden, "M_FORBIDDEN", "PUT", is(room, "send", "m.room.message", "1"), object{"msgtype": "m.text", "body": "x"})
	carol.Refused(http.StatusForbidden, "M_FORBIDDEN", "POST", testserver.Path("join", room), object{})
	alice.Refused(http.StatusForbidden, "M_FORBIDDEN", "POST", is(room, "invite"), object{"user_id": carol.ID})
	alice.Must("POST", is(room, "unban"), object{"user_id": carol.ID})
	alice.Invite(room, carol.ID)
	carol.Must("POST", is(room, "leave"), object{}) // declined
	bob.Must("POST", is(room, "leave"), object{"reason": "bye"})
	if rooms := bob.Must("GET", "/joined_rooms", nil).Body["joined_rooms"].([]any); len(rooms) != 0 {
		t.Errorf("after leaving bob is in %v", rooms)
	}
	bob.Must("POST", is(room, "forget"), object{})
	bob.Refused(http.StatusForbidden, "M_FORBIDDEN", "GET", is(room, "messages")+"?dir=b", nil)
	members := testserver.Events(alice.Must("GET", is(room, "members")+"?not_membership=leave", nil).Body["chunk"])
	if len(members) != 1 || members[0]["state_key"] != alice.ID {
		t.Errorf("the members are %v", members)
	}
}

func roomRefusals(t *testing.T, s *testserver.Server) {
	alice, bob, room := together(t, s)
	stranger := s.Register(testserver.Unique("stranger"))
	for _, u := range []*testserver.User{bob, stranger} {
		u.Refused(http.StatusForbidden, "M_FORBIDDEN", "POST", is(room, "ban"), object{"user_id": alice.ID})
		u.Refused(http.StatusForbidden, "M_FORBIDDEN", "POST", is(room, "kick"), object{"user_id": alice.ID})
		u.Refused(http.StatusForbidden, "M_FORBIDDEN", "PUT", is(room, "state", "m.room.name", ""), object{"name": "mine"})
	}
	stranger.Refused(http.StatusForbidden, "M_FORBIDDEN", "POST", is(room, "invite"), object{"user_id": stranger.ID})
	for _, path := range []string{"state", "state/m.room.name", "members", "joined_members", "messages?dir=b"} {
		stranger.Refused(http.StatusForbidden, "M_FORBIDDEN", "GET", is(room)+"/"+path, nil)
	}
	id := alice.Say(room, "inside")
	stranger.Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", is(room, "event", id), nil)
	other := alice.CreateRoom(object{})
	alice.Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", is(other, "event", id), nil) // of another room (law 11)
	alice.Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", is(other, "context", id), nil)
	alice.Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", is("!nowhere:example.org", "state"), nil)
	alice.Refused(http.StatusBadRequest, "M_INVALID_PARAM", "GET", is("nonsense", "state"), nil)
	alice.Refused(http.StatusBadRequest, "M_MISSING_PARAM", "POST", is(room, "ban"), object{})
	alice.Refused(http.StatusBadRequest, "M_INVALID_PARAM", "POST", is(room, "invite"), object{"user_id": "nobody"})
	alice.Refused(http.StatusNotFound, "M_NOT_FOUND", "POST", is(room, "invite"), object{"user_id": "@nobody:" + string(s.Name)})
	s.Nobody().Refused(http.StatusUnauthorized, "M_MISSING_TOKEN", "GET", is(room, "state"), nil)
	alice.Refused(http.StatusNotFound, "M_UNRECOGNIZED", "GET", "/no/such/endpoint", nil)
	alice.Refused(http.StatusMethodNotAllowed, "M_UNRECOGNIZED", "DELETE", is(room, "state"), nil)
}

func roomState(t *testing.T, s *testserver.Server) {
	alice, bob, room := together(t, s)
	first := alice.Must("PUT", is(room, "state", "m.room.topic", ""), object{"topic": "one"}).Body["event_id"]
	alice.Must("PUT", is(room, "state", "m.room.topic"), object{"topic": "two"})
	alice.Must("PUT", is(room, "state", "org.example.setting", "a/b"), object{"on": true})
	if bob.Must("GET", is(room, "state", "org.example.setting", "a/b"), nil).Body["on"] != true {
		t.Error("a state key with a slash is lost")
	}
	event := bob.Must("GET", is(room, "state", "m.room.topic", "")+"?format=event", nil).Body
	if testserver.At(event, "content", "topic") != "two" || event["sender"] != alice.ID {
		t.Errorf("the topic's event is %v", event)
	}
	if got := testserver.At(bob.Must("GET", is(room, "event", event["event_id"].(string)), nil).Body, "unsigned", "replaces_state"); got != first {
		t.Errorf("the topic replaces %v, want %v", got, first)
	}
	bob.Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", is(room, "state", "m.room.avatar", ""), nil)
	alice.Refused(http.StatusForbidden, "M_FORBIDDEN", "PUT", is(room, "state", "org.example.own", bob.ID), object{}) // another user's key
	alice.Refused(http.StatusForbidden, "M_FORBIDDEN", "PUT", is(room, "state", "m.room.create", ""), object{})
	alice.Refused(http.StatusBadRequest, "M_BAD_JSON", "PUT", is(room, "state", "m.room.topic", ""), []byte(`[]`))
	alice.Refused(http.StatusBadRequest, "M_BAD_ALIAS", "PUT", is(room, "state", "m.room.canonical_alias", ""), object{"alias": "#none:" + string(s.Name)})
	alice.Must("PUT", is(room, "state", "m.room.member", alice.ID), object{"membership": "join", "displayname": "Al"})
	if bob.Must("GET", is(room, "state", "m.room.member", alice.ID), nil).Body["displayname"] != "Al" {
		t.Error("a name for one room is lost")
	}
}

func roomRedaction(t *testing.T, s *testserver.Server) {
	proof.Of(t, "RD-09")
	for _, version := range []string{"10", "12"} {
		alice, bob := s.Register(testserver.Unique("alice")), s.Register(testserver.Unique("bob"))
		room := alice.CreateRoom(object{"invite": []string{bob.ID}, "room_version": version})
		bob.Join(room)
		since := token(bob.Sync("", 0))
		secret := bob.Say(room, "a secret")
		other := alice.Say(room, "not yours")
		bob.Refused(http.StatusForbidden, "M_FORBIDDEN", "PUT", is(room, "redact", other, "1"), object{})
		because := bob.Must("PUT", is(room, "redact", secret, "2"), object{"reason": "slip"}).Body["event_id"]
		if again := bob.Must("PUT", is(room, "redact", secret, "2"), object{"reason": "slip"}).Body["event_id"]; again != because {
			t.Error("the same transaction redacted twice")
		}
		event := alice.Must("GET", is(room, "event", secret), nil).Body
		if len(event["content"].(object)) != 0 || testserver.At(event, "unsigned", "redacted_because", "event_id") != because {
			t.Errorf("version %s: redacted, the event is %v", version, event)
		}
		alice.Must("PUT", is(room, "redact", other, "3"), object{})
		for _, e := range testserver.Timeline(bob.Sync(since, 0), room) {
			if e["type"] == "m.room.message" && len(e["content"].(object)) != 0 {
				t.Errorf("version %s: sync still shows %v", version, e)
			}
		}
	}
}

func roomTransactions(t *testing.T, s *testserver.Server) {
	alice, _, room := together(t, s)
	var wg sync.WaitGroup
	ids := make([]any, 50)
	for i := range ids {
		wg.Go(func() {
			ids[i] = alice.Must("PUT", is(room, "send", "m.room.message", "once"), object{"msgtype": "m.text", "body": "once"}).Body["event_id"]
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] || id == nil {
			t.Fatalf("one transaction made %v and %v", ids[0], id)
		}
	}
	if id := alice.Must("PUT", is(room, "send", "org.example.other", "once"), object{}).Body["event_id"]; id == ids[0] {
		t.Error("the transaction ID of another route counted")
	}
	if id := s.Login(alice.ID).Must("PUT", is(room, "send", "m.room.message", "once"), object{"msgtype": "m.text", "body": "once"}).Body["event_id"]; id == ids[0] {
		t.Error("the transaction ID of another device counted")
	}
}

func roomReading(t *testing.T, s *testserver.Server) {
	alice, bob, room := together(t, s)
	var ids []string
	for i := range 9 {
		ids = append(ids, alice.Say(room, fmt.Sprint(i)))
	}
	around := bob.Must("GET", is(room, "context", ids[4])+"?limit=4", nil).Body
	before, after := bodies(testserver.Events(around["events_before"])), bodies(testserver.Events(around["events_after"]))
	if fmt.Sprint(before) != "[3 2]" || fmt.Sprint(after) != "[5 6]" || testserver.At(around, "event", "event_id") != ids[4] {
		t.Errorf("around the middle stand %v and %v", before, after)
	}
	start, _ := around["start"].(string)
	page := bob.Must("GET", is(room, "messages")+"?dir=b&limit=2&from="+start, nil).Body
	if got := bodies(testserver.Events(page["chunk"])); fmt.Sprint(got) != "[1 0]" && fmt.Sprint(got) != "[2 1]" {
		t.Errorf("before the context stand %v", got)
	}
	filtered := bob.Must("GET", is(room, "messages")+`?dir=b&limit=50&filter={"types":["m.room.topic"]}`, nil).Body
	if len(testserver.Events(filtered["chunk"])) != 0 {
		t.Errorf("a filter for topics lets through %v", filtered["chunk"])
	}
	lazy := bob.Must("GET", is(room, "messages")+`?dir=b&limit=3&filter={"lazy_load_members":true}`, nil).Body
	if members := testserver.Events(lazy["state"]); len(members) != 1 || members[0]["state_key"] != alice.ID {
		t.Errorf("lazily loaded: %v", members)
	}
	for _, bad := range []string{"?dir=x", "?dir=b&from=x", "?dir=b&limit=-1", "?dir=b&filter=x"} {
		a, err := bob.Do("GET", is(room, "messages")+bad, nil)
		if err != nil || a.Status != http.StatusBadRequest {
			t.Errorf("%s was answered %v %v", bad, a, err)
		}
	}
}

// roomHistory checks who sees what of the time before and after their membership.
func roomHistory(t *testing.T, s *testserver.Server) {
	for visibility, want := range map[string]string{
		"world_readable": "[early invited in again]", "shared": "[early invited in again]", "invited": "[invited in again]", "joined": "[in again]",
	} {
		alice, bob := s.Register(testserver.Unique("alice")), s.Register(testserver.Unique("bob"))
		room := alice.CreateRoom(object{"initial_state": []object{
			{"type": "m.room.history_visibility", "content": object{"history_visibility": visibility}},
		}})
		alice.Say(room, "early")
		alice.Invite(room, bob.ID)
		alice.Say(room, "invited")
		bob.Join(room)
		alice.Say(room, "in")
		bob.Must("POST", is(room, "leave"), object{})
		alice.Say(room, "out")
		if got := seen(bob, room); strings.Contains(got, "out") && visibility != "world_readable" {
			t.Errorf("%s: whoever left sees %s", visibility, got)
		}
		alice.Invite(room, bob.ID)
		bob.Join(room)
		alice.Say(room, "again")
		got := seen(bob, room)
		if visibility != "joined" {
			got = strings.Replace(got, " out", "", 1)
		}
		if got != want {
			t.Errorf("%s: bob sees %s, want %s", visibility, got, want)
		}
	}
}

// seen are the texts of a room that a user can read, oldest first.
func seen(u *testserver.User, room string) string {
	page := u.Must("GET", is(room, "messages")+"?dir=f&limit=100", nil).Body
	return fmt.Sprint(bodies(testserver.Events(page["chunk"])))
}

func roomAliases(t *testing.T, s *testserver.Server) {
	alice, bob, room := together(t, s)
	name := testserver.Unique("garden")
	alias := "#" + name + ":" + string(s.Name)
	at := testserver.Path("directory", "room", alias)
	alice.Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", at, nil)
	alice.Must("PUT", at, object{"room_id": room})
	if s.Nobody().Must("GET", at, nil).Body["room_id"] != room {
		t.Error("the alias leads elsewhere")
	}
	a, err := bob.Do("PUT", at, object{"room_id": room})
	if err != nil || a.Status != http.StatusConflict {
		t.Errorf("a taken alias was answered %v %v", a, err)
	}
	alice.Must("PUT", is(room, "state", "m.room.canonical_alias", ""), object{"alias": alias})
	if list := alice.Must("GET", is(room, "aliases"), nil).Body["aliases"].([]any); len(list) != 1 || list[0] != alias {
		t.Errorf("the aliases are %v", list)
	}
	bob.Refused(http.StatusForbidden, "M_FORBIDDEN", "DELETE", at, nil)
	carol := s.Register(testserver.Unique("carol"))
	alice.Invite(room, carol.ID)
	carol.Join(alias)
	alice.Must("DELETE", at, nil)
	alice.Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", at, nil)
	made := alice.CreateRoom(object{"room_alias_name": name, "visibility": "public"})
	if s.Nobody().Must("GET", at, nil).Body["room_id"] != made {
		t.Error("createRoom lost the alias")
	}
	if s.Nobody().Must("GET", testserver.Path("directory", "list", "room", made), nil).Body["visibility"] != "public" {
		t.Error("createRoom lost the visibility")
	}
}

func roomProfiles(t *testing.T, s *testserver.Server) {
	alice, bob, room := together(t, s)
	at := testserver.Path("profile", alice.ID)
	alice.Must("PUT", at+"/displayname", object{"displayname": "Alice A."})
	alice.Must("PUT", at+"/org.example.pronouns", object{"org.example.pronouns": []string{"she"}})
	bob.Refused(http.StatusForbidden, "M_FORBIDDEN", "PUT", at+"/displayname", object{"displayname": "Mallory"})
	got := bob.Must("GET", at, nil).Body
	if got["displayname"] != "Alice A." || got["org.example.pronouns"] == nil {
		t.Errorf("the profile is %v", got)
	}
	wait.Until(t, "the new name in the room", func() bool {
		return bob.Must("GET", is(room, "state", "m.room.member", alice.ID), nil).Body["displayname"] == "Alice A."
	})
	alice.Must("DELETE", at+"/org.example.pronouns", nil)
	bob.Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", at+"/org.example.pronouns", nil)
	bob.Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", testserver.Path("profile", "@nobody:"+string(s.Name)), nil)
	alice.Refused(http.StatusBadRequest, "M_INVALID_PARAM", "PUT", at+"/displayname", object{"displayname": strings.Repeat("x", 2000)})
	alice.Refused(http.StatusBadRequest, "M_INVALID_PARAM", "PUT", at+"/My%20Field", object{"My Field": 1})
}

func userData(t *testing.T, s *testserver.Server) {
	alice, bob, room := together(t, s)
	since := token(alice.Sync("", 0))
	global, local := testserver.Path("user", alice.ID, "account_data", "org.example"), testserver.Path("user", alice.ID, "rooms", room, "account_data", "org.example")
	alice.Must("PUT", global, object{"a": 1})
	alice.Must("PUT", local, object{"b": 2})
	if alice.Must("GET", global, nil).Body["a"] != float64(1) || alice.Must("GET", local, nil).Body["b"] != float64(2) {
		t.Error("account data is lost")
	}
	bob.Refused(http.StatusForbidden, "M_FORBIDDEN", "GET", global, nil)
	bob.Refused(http.StatusForbidden, "M_FORBIDDEN", "PUT", global, object{})
	alice.Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", global+"x", nil)
	body := alice.Sync(since, 10_000)
	if n := len(testserver.Events(testserver.At(body, "account_data", "events"))); n != 1 {
		t.Errorf("%d events of global account data", n)
	}
	if n := len(testserver.Events(testserver.At(body, "rooms", "join", room, "account_data", "events"))); n != 1 {
		t.Errorf("%d events of the room's account data", n)
	}
	filter := alice.Must("POST", testserver.Path("user", alice.ID, "filter"), object{"room": object{"timeline": object{"limit": 1}}}).Body["filter_id"].(string)
	alice.Say(room, "1")
	alice.Say(room, "2")
	if n := len(testserver.Timeline(alice.Sync("", 0, "filter", filter), room)); n != 1 {
		t.Errorf("with a stored filter the timeline has %d events", n)
	}
	bob.Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", testserver.Path("user", bob.ID, "filter", filter), nil)
}

func badNames(t *testing.T, s *testserver.Server) {
	alice, _, room := together(t, s)
	long := strings.Repeat("x", 256)
	alice.Refused(http.StatusBadRequest, "M_INVALID_PARAM", "PUT", is(room, "send", long, "1"), object{})
	alice.Refused(http.StatusBadRequest, "M_INVALID_PARAM", "PUT", is(room, "send", "m.room.message", long), object{})
	alice.Refused(http.StatusRequestEntityTooLarge, "M_TOO_LARGE", "PUT", is(room, "send", "m.room.message", "2"), object{"msgtype": "m.text", "body": strings.Repeat("x", 66_000)})
	alice.Refused(http.StatusRequestEntityTooLarge, "M_TOO_LARGE", "PUT", is(room, "send", "m.room.message", "3"), object{"msgtype": "m.text", "body": strings.Repeat("x", 2<<20)})
	for _, bad := range []string{`{"a":1,"a":2}`, `{"a":1.5}`, `{"a":9007199254740993}`, `{"a":1}x`, "{\"a\":\"\xff\"}", `{"a":1e3}`} {
		a, err := alice.Do("PUT", is(room, "send", "m.room.message", testserver.Unique("bad")), []byte(bad))
		if err != nil || a.Status != http.StatusBadRequest {
			t.Errorf("%q was answered %d %s %v", bad, a.Status, a.Raw, err)
		}
	}
	for _, name := range []string{"Aüml", "a b", strings.Repeat("x", 300), "a:b", "@x"} {
		s.Nobody().Refused(http.StatusBadRequest, "M_INVALID_USERNAME", "POST", "/register", object{
			"username": name, "password": testserver.Password, "auth": object{"type": "m.login.dummy"},
		})
	}
}

func serverMeta(t *testing.T, s *testserver.Server) {
	nobody := s.Nobody()
	if v := nobody.Must("GET", "/_matrix/client/versions", nil).Body["versions"].([]any); len(v) == 0 {
		t.Error("no versions")
	}
	if base := testserver.At(nobody.Must("GET", "/.well-known/matrix/client", nil).Body, "m.homeserver", "base_url"); base != s.URL {
		t.Errorf("well-known names %v", base)
	}
	alice := s.Register(testserver.Unique("alice"))
	if v := testserver.At(alice.Must("GET", "/capabilities", nil).Body, "capabilities", "m.room_versions", "default"); v != "12" {
		t.Errorf("the default room version is %v", v)
	}
	who := alice.Must("GET", "/account/whoami", nil).Body
	if who["user_id"] != alice.ID || who["device_id"] != alice.Device {
		t.Errorf("whoami says %v", who)
	}
	alice.Must("POST", "/logout", object{})
	alice.Refused(http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "GET", "/account/whoami", nil)
}

// policyLists: rules against users, rooms and servers are state like any other. What to do about them is for clients and bots to
// say: the server shuts nobody out by itself.
func policyLists(t *testing.T, s *testserver.Server) {
	proof.Of(t, "RM-16")
	alice, bob, room := together(t, s)
	since := token(bob.Sync("", 0))
	rules := map[string]object{
		"m.policy.rule.user":   {"entity": "@bob*", "recommendation": "m.ban", "reason": "spam"},
		"m.policy.rule.room":   {"entity": room, "recommendation": "m.ban", "reason": "spam"},
		"m.policy.rule.server": {"entity": "*", "recommendation": "org.example.recommendation", "reason": "spam"},
	}
	for typ, rule := range rules {
		bob.Refused(http.StatusForbidden, "M_FORBIDDEN", "PUT", is(room, "state", typ, "rule"), rule)
		alice.Must("PUT", is(room, "state", typ, "rule"), rule)
		if got := bob.Must("GET", is(room, "state", typ, "rule"), nil).Body; got["entity"] != rule["entity"] || got["recommendation"] != rule["recommendation"] || got["reason"] != "spam" {
			t.Errorf("%s is %v", typ, got)
		}
	}
	told := map[string]bool{}
	for _, ev := range testserver.Events(testserver.At(bob.Sync(since, 0), "rooms", "join", room, "timeline", "events")) {
		typ, _ := ev["type"].(string)
		told[typ] = true
	}
	for typ := range rules {
		if !told[typ] {
			t.Errorf("bob is not told of %s", typ)
		}
	}
	bob.Say(room, "still here")
	bob.Must("POST", is(room, "leave"), object{})
	alice.Must("POST", is(room, "invite"), object{"user_id": bob.ID})
	bob.Join(room)
}
