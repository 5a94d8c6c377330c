package clientapi_test

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/wait"
)

// TestPeople goes through what belongs to a user alone, and what the server says of others.
func TestPeople(t *testing.T) {
	t.Parallel() // it mostly waits
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine, Env: []string{
			"CONCLAVE_TURN_URIS=turn:turn.test?transport=udp,turns:turn.test:443", "CONCLAVE_TURN_SHARED_SECRET=relay", "CONCLAVE_TURN_TTL=600",
			"CONCLAVE_SUPPORT_PAGE=https://help.test/", "CONCLAVE_SUPPORT_ADMIN=@admin:help.test,admin@help.test", "CONCLAVE_SUPPORT_SECURITY=sec@help.test",
		}})
		t.Run("tags", func(t *testing.T) { roomTags(t, s) })
		t.Run("account data", func(t *testing.T) { accountData(t, s) })
		t.Run("full", func(t *testing.T) { fullOfData(t, s) })
		t.Run("profile", func(t *testing.T) { profileFields(t, s) })
		t.Run("profile of one who goes", func(t *testing.T) { profileOfOneWhoGoes(t, s) })
		t.Run("profile at once", func(t *testing.T) { profileAtOnce(t, s) })
		t.Run("directory", func(t *testing.T) { userDirectory(t, s) })
		t.Run("turn", func(t *testing.T) { turnServer(t, s) })
		t.Run("outside", func(t *testing.T) { outside(t, s) })
	})
}

func roomTags(t *testing.T, s *testserver.Server) {
	proof.Of(t, "US-06")
	alice, bob, room := together(t, s)
	at := func(u *testserver.User, more ...string) string {
		return testserver.Path(append([]string{"user", u.ID, "rooms", room, "tags"}, more...)...)
	}
	list := func() object { return alice.Must("GET", at(alice), nil).Body }
	if got := list(); !reflect.DeepEqual(got, object{"tags": object{}}) {
		t.Errorf("a room without tags has %v", got)
	}
	since := token(alice.Sync("", 0))
	alice.Must("PUT", at(alice, "m.favourite"), object{"order": 0.25})
	alice.Must("PUT", at(alice, "u.Arbeit/ä"), object{})
	want := object{"tags": object{"m.favourite": object{"order": 0.25}, "u.Arbeit/ä": object{}}}
	if got := list(); !reflect.DeepEqual(got, want) {
		t.Errorf("the tags are %v, want %v", got, want)
	}
	// They are account data, which comes in sync and is nobody else's.
	alice.SyncUntil(since, "the tags", func(body object) bool {
		for _, e := range testserver.Events(testserver.At(body, "rooms", "join", room, "account_data", "events")) {
			if e["type"] == "m.tag" && reflect.DeepEqual(e["content"], want) {
				return true
			}
		}
		return false
	})
	bob.Refused(403, "M_FORBIDDEN", "GET", at(alice), nil)
	bob.Refused(403, "M_FORBIDDEN", "PUT", at(alice, "u.x"), object{})
	bob.Refused(403, "M_FORBIDDEN", "DELETE", at(alice, "m.favourite"), nil)
	for _, order := range []any{-0.1, 1.1, "0.5", nil, true} {
		alice.Refused(400, "M_INVALID_PARAM", "PUT", at(alice, "u.x"), object{"order": order})
	}
	alice.Refused(400, "M_INVALID_PARAM", "PUT", at(alice, strings.Repeat("x", 256)), object{})
	alice.Must("PUT", at(alice, strings.Repeat("x", 255)), object{"order": 1})
	alice.Must("DELETE", at(alice, strings.Repeat("x", 255)), nil)
	alice.Must("DELETE", at(alice, "m.favourite"), nil)
	// Of changes at the same time none is lost.
	var all sync.WaitGroup
	for n := range 16 {
		all.Go(func() {
			if a, err := alice.Do("PUT", at(alice, "u."+strconv.Itoa(n)), object{"order": 0}); err != nil || a.Status != 200 {
				t.Errorf("tag %d: %v %v", n, a, err)
			}
		})
	}
	all.Wait()
	if got := list()["tags"].(object); len(got) != 17 {
		t.Errorf("of 17 tags there are %d: %v", len(got), got)
	}
}

func accountData(t *testing.T, s *testserver.Server) {
	proof.Of(t, "US-05")
	alice, bob, room := together(t, s)
	for _, place := range [][]string{{"user", alice.ID, "account_data"}, {"user", alice.ID, "rooms", room, "account_data"}} {
		at := func(kind string) string { return testserver.Path(append(place, kind)...) }
		alice.Refused(404, "M_NOT_FOUND", "GET", at("m.test"), nil)
		alice.Must("PUT", at("m.test"), object{"in": place[2], "half": 0.5})
		if got := alice.Must("GET", at("m.test"), nil).Body; !reflect.DeepEqual(got, object{"in": place[2], "half": 0.5}) {
			t.Errorf("the data at %v is %v", place, got)
		}
		for _, who := range []*testserver.User{bob, s.RegisterAdmin(testserver.Unique("admin"))} {
			who.Refused(403, "M_FORBIDDEN", "GET", at("m.test"), nil)
			who.Refused(403, "M_FORBIDDEN", "PUT", at("m.test"), object{})
		}
		for _, kind := range []string{"m.fully_read", "m.push_rules"} {
			a, err := alice.Do("PUT", at(kind), object{"event_id": "$x"})
			if err != nil || a.Status != 405 {
				t.Errorf("writing %s is answered %v %v", kind, a, err)
			}
		}
		alice.Refused(400, "M_BAD_JSON", "PUT", at("m.test"), []string{"no object"})
		alice.Refused(413, "M_TOO_LARGE", "PUT", at("m.test"), object{"a": strings.Repeat("x", 64<<10)})
	}
	filter := object{"room": object{"timeline": object{"limit": 7}}}
	id, _ := alice.Must("POST", testserver.Path("user", alice.ID, "filter"), filter).Body["filter_id"].(string)
	if got := alice.Must("GET", testserver.Path("user", alice.ID, "filter", id), nil).Body; !reflect.DeepEqual(got, object{"room": object{"timeline": object{"limit": 7.0}}}) {
		t.Errorf("the filter is %v", got)
	}
	alice.Refused(404, "M_NOT_FOUND", "GET", testserver.Path("user", alice.ID, "filter", "none"), nil)
	bob.Refused(403, "M_FORBIDDEN", "GET", testserver.Path("user", alice.ID, "filter", id), nil)
}

// fullOfData shows that what a user can store is bounded by number, and that what is there can still be changed.
func fullOfData(t *testing.T, s *testserver.Server) {
	u := s.Register(testserver.Unique("full"))
	put := func(i int) *testserver.Answer {
		a, err := u.Do("PUT", testserver.Path("user", u.ID, "account_data", fmt.Sprint("org.example.", i)), object{"n": i})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	last := 0
	for a := put(last); a.Status == 200 && last < 1001; a = put(last) {
		last++
	}
	u.Refused(413, "M_TOO_LARGE", "PUT", testserver.Path("user", u.ID, "account_data", "org.example.more"), object{})
	if a := put(1); last > 1000 || last < 900 || a.Status != 200 {
		t.Errorf("with %d types the first can no longer be changed: %d %s", last, a.Status, a.Raw)
	}
	filters := testserver.Path("user", u.ID, "filter")
	for i := range 1000 {
		u.Must("POST", filters, object{"room": object{"timeline": object{"limit": i + 1}}})
	}
	u.Refused(413, "M_TOO_LARGE", "POST", filters, object{"room": object{"timeline": object{"limit": 5000}}})
	u.Refused(413, "M_TOO_LARGE", "POST", filters, object{"room": object{"rooms": []string{strings.Repeat("x", 64<<10)}}})
	u.Must("POST", filters, object{"room": object{"timeline": object{"limit": 1}}})
}

// profileOfOneWhoGoes changes a profile for a client that does not wait for the answer: its rooms are told all the same.
func profileOfOneWhoGoes(t *testing.T, s *testserver.Server) {
	u := s.Register(testserver.Unique("gone"))
	var in []string
	for range 60 {
		in = append(in, u.CreateRoom(object{}))
	}
	to, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	body := `{"displayname":"New"}`
	fmt.Fprintf(to, "PUT /_matrix/client/v3%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s",
		testserver.Path("profile", u.ID, "displayname"), u.Token, len(body), body)
	name := func(room string) any {
		return u.Must("GET", testserver.Path("rooms", room, "state", "m.room.member", u.ID), nil).Body["displayname"]
	}
	wait.Until(t, "one room shows the name", func() bool { return slices.ContainsFunc(in, func(room string) bool { return name(room) == "New" }) })
	_ = to.Close()
	wait.Until(t, "all rooms show the name", func() bool { return !slices.ContainsFunc(in, func(room string) bool { return name(room) != "New" }) })
}

// profileAtOnce sets several fields of a profile at the same time: none is lost.
func profileAtOnce(t *testing.T, s *testserver.Server) {
	u := s.Register(testserver.Unique("profile"))
	var all sync.WaitGroup
	for i := range 12 {
		field := fmt.Sprintf("org.example.field%d", i)
		all.Go(func() {
			if a, err := u.Do("PUT", testserver.Path("profile", u.ID, field), object{field: i}); err != nil || a.Status != 200 {
				t.Errorf("%s: %v %s", field, err, a.Raw)
			}
		})
	}
	all.Wait()
	if p := u.Must("GET", testserver.Path("profile", u.ID), nil).Body; len(p) != 13 { // with displayname
		t.Errorf("of twelve fields that were set at the same time these are left: %v", p)
	}
}

func profileFields(t *testing.T, s *testserver.Server) {
	proof.Of(t, "US-01", "US-03")
	alice, bob, _ := together(t, s)
	at := func(field string) string { return testserver.Path("profile", alice.ID, field) }
	for field, value := range map[string]any{
		"m.tz": "Europe/Vienna", "org.example.job": object{"title": "cook", "years": 3.0}, "org.example.none": nil, "avatar_url": "mxc://a/b",
	} {
		alice.Must("PUT", at(field), object{field: value})
		for _, who := range []*testserver.User{alice, bob} {
			if got := who.Must("GET", at(field), nil).Body; !reflect.DeepEqual(got, object{field: value}) {
				t.Errorf("%s is %v", field, got)
			}
		}
		bob.Refused(403, "M_FORBIDDEN", "PUT", at(field), object{field: "x"})
		bob.Refused(403, "M_FORBIDDEN", "DELETE", at(field), nil)
	}
	if got := bob.Must("GET", testserver.Path("profile", alice.ID), nil).Body; len(got) != 5 || got["m.tz"] != "Europe/Vienna" {
		t.Errorf("the whole profile is %v", got)
	}
	alice.Must("DELETE", at("m.tz"), nil)
	bob.Refused(404, "M_NOT_FOUND", "GET", at("m.tz"), nil)
	long := "org.x." + strings.Repeat("x", 249)
	alice.Must("PUT", at(long), object{long: 1})
	alice.Refused(400, "M_KEY_TOO_LARGE", "PUT", at(long+"x"), object{long + "x": 1})
	alice.Refused(400, "M_MISSING_PARAM", "PUT", at("org.example.a"), object{"org.example.b": 1})
	alice.Refused(400, "M_INVALID_PARAM", "PUT", at("Not A Key"), object{"Not A Key": 1})
	alice.Refused(400, "M_INVALID_PARAM", "PUT", at("displayname"), object{"displayname": 7})
	alice.Refused(400, "M_INVALID_PARAM", "PUT", at("avatar_url"), object{"avatar_url": "https://a.test/b.png"})
	// The whole stays under 64 KiB, and what is refused changes nothing.
	alice.Must("PUT", at("org.example.big"), object{"org.example.big": strings.Repeat("x", 40<<10)})
	alice.Refused(400, "M_PROFILE_TOO_LARGE", "PUT", at("org.example.more"), object{"org.example.more": strings.Repeat("x", 30<<10)})
	if raw, err := json.Marshal(alice.Must("GET", testserver.Path("profile", alice.ID), nil).Body); err != nil || len(raw) >= 64<<10 {
		t.Errorf("the profile has %d bytes: %v", len(raw), err)
	}
	bob.Refused(404, "M_NOT_FOUND", "GET", at("org.example.more"), nil)
	bob.Refused(404, "M_NOT_FOUND", "GET", testserver.Path("profile", "@nobody:"+string(s.Name)), nil)
}

// userDirectory searches for people as they come, rename themselves and go.
func userDirectory(t *testing.T, s *testserver.Server) {
	proof.Of(t, "US-04")
	tag := testserver.Unique("zq") // keeps the people of this test apart
	person := func(name, display string) *testserver.User {
		u := s.Register(tag + name)
		u.Must("PUT", testserver.Path("profile", u.ID, "displayname"), object{"displayname": display})
		return u
	}
	me, friend := person(".me", "Me"), person("_friend", "Änne Löwenherz-"+tag)
	hidden, open := person("hidden", "Änne "+tag), person("open", "Änne of the open "+tag)
	room := me.CreateRoom(object{"preset": "private_chat", "invite": []string{friend.ID, hidden.ID}}) // an invitation shares no room
	friend.Join(room)
	public := open.CreateRoom(object{"preset": "public_chat"})
	find := func(u *testserver.User, term string, limit int) (string, bool) {
		body := u.Must("POST", "/user_directory/search", object{"search_term": term, "limit": limit}).Body
		var ids []string
		for _, p := range testserver.Events(body["results"]) {
			id, _ := p["user_id"].(string)
			ids = append(ids, strings.TrimPrefix(strings.Split(id, ":")[0], "@"+tag))
		}
		slices.Sort(ids)
		return strings.Join(ids, " "), body["limited"] == true
	}
	finds := func(term, want string) {
		t.Helper()
		wait.Until(t, fmt.Sprintf("%q to find %q", term, want), func() bool {
			got, _ := find(me, term, 10)
			return got == want
		})
	}
	finds("änne "+tag, "_friend open")
	finds("ÄNNE LÖW "+tag, "_friend")
	finds("herz "+tag, "") // beginnings of words only
	finds(tag+"_fri", "_friend")
	finds("@"+tag+"_friend:", "_friend")
	finds(strings.ToUpper(friend.ID), "_friend")
	finds("friend "+tag, "_friend")
	finds("% _", "")
	if got, limited := find(me, tag, 1); got != "_friend" && got != "open" || !limited {
		t.Errorf("of two people the first is %q, limited %v", got, limited)
	}
	if got, limited := find(me, tag, 2); got != "_friend open" || limited {
		t.Errorf("two people are %q, limited %v", got, limited)
	}
	if got, _ := find(hidden, tag, 10); got != "open" {
		t.Errorf("somebody without a room finds %q", got)
	}
	body := me.Must("POST", "/user_directory/search", object{"search_term": tag + "open"}).Body
	if p := testserver.Events(body["results"]); len(p) != 1 || p[0]["display_name"] != "Änne of the open "+tag {
		t.Errorf("a search finds %v", body)
	}
	open.Must("PUT", testserver.Path("profile", open.ID, "displayname"), object{"displayname": "Berta " + tag})
	finds("berta "+tag, "open")
	finds("änne "+tag, "_friend")
	me.Must("PUT", testserver.Path("user", me.ID, "account_data", "m.ignored_user_list"), object{"ignored_users": object{friend.ID: object{}}})
	finds(tag, "open")
	me.Must("PUT", testserver.Path("user", me.ID, "account_data", "m.ignored_user_list"), object{"ignored_users": object{}})
	open.Must("PUT", testserver.Path("rooms", public, "state", "m.room.join_rules", ""), object{"join_rule": "invite"})
	finds(tag, "_friend")
	open.Must("PUT", testserver.Path("rooms", public, "state", "m.room.history_visibility", ""), object{"history_visibility": "world_readable"})
	finds(tag, "_friend open")
	friend.Must("POST", testserver.Path("rooms", room, "leave"), object{})
	finds(tag, "open")
	deactivate(open)
	finds(tag, "")
	me.Refused(400, "M_MISSING_PARAM", "POST", "/user_directory/search", object{})
	me.Refused(400, "M_INVALID_PARAM", "POST", "/user_directory/search", object{"search_term": "x", "limit": -1})
	me.Refused(400, "M_INVALID_PARAM", "POST", "/user_directory/search", object{"search_term": strings.Repeat("x", 513)})
}

func turnServer(t *testing.T, s *testserver.Server) {
	proof.Of(t, "US-14")
	alice := s.Register(testserver.Unique("alice"))
	body := alice.Must("GET", "/voip/turnServer", nil).Body
	username, _ := body["username"].(string)
	ends, who, _ := strings.Cut(username, ":")
	at, err := strconv.ParseInt(ends, 10, 64)
	if left := time.Until(time.Unix(at, 0)); err != nil || left < 5*time.Minute || left > 10*time.Minute || who != alice.ID {
		t.Errorf("the credentials are for %q", username)
	}
	mac := hmac.New(sha1.New, []byte("relay"))
	mac.Write([]byte(username))
	if body["password"] != base64.StdEncoding.EncodeToString(mac.Sum(nil)) || body["ttl"] != 600.0 || fmt.Sprint(body["uris"]) != "[turn:turn.test?transport=udp turns:turn.test:443]" {
		t.Errorf("the relay is %v", body)
	}
	s.Nobody().Refused(401, "M_MISSING_TOKEN", "GET", "/voip/turnServer", nil)
}

func outside(t *testing.T, s *testserver.Server) {
	proof.Of(t, "CG-15")
	alice := s.Register(testserver.Unique("alice"))
	support := s.Nobody().Must("GET", "/.well-known/matrix/support", nil)
	want := object{"support_page": "https://help.test/", "contacts": []any{
		object{"role": "m.role.admin", "matrix_id": "@admin:help.test"}, object{"role": "m.role.admin", "email_address": "admin@help.test"},
		object{"role": "m.role.security", "email_address": "sec@help.test"},
	}}
	if !reflect.DeepEqual(support.Body, want) {
		t.Errorf("support is %v", support.Body)
	}
	known := s.Nobody().Must("GET", "/.well-known/matrix/client", nil)
	if got := testserver.At(known.Body, "m.homeserver", "base_url"); got != s.URL {
		t.Errorf("the server is found at %v", got)
	}
	for _, a := range []*testserver.Answer{support, known} {
		if a.Header.Get("Access-Control-Allow-Origin") != "*" || a.Header.Get("Content-Type") != "application/json" {
			t.Errorf("a document of discovery comes with %v", a.Header)
		}
	}
	if a := alice.Must("GET", "/thirdparty/protocols", nil); string(a.Raw) != `{}` {
		t.Errorf("without application services there are the protocols %s", a.Raw)
	}
	for _, path := range []string{"protocol/irc", "location?alias=%23a:b.test", "location/irc?channel=%23a", "user?userid=@a:b.test", "user/irc?nick=a"} {
		alice.Refused(404, "M_NOT_FOUND", "GET", "/thirdparty/"+path, nil)
		s.Nobody().Refused(401, "M_MISSING_TOKEN", "GET", "/thirdparty/"+path, nil)
	}
}

// TestWithoutARelay asks a server whose configuration names neither a relay nor contacts.
func TestWithoutARelay(t *testing.T) {
	s := testserver.Start(t, testserver.Options{})
	body := s.Register("alice").Must("GET", "/voip/turnServer", nil).Body
	if !reflect.DeepEqual(body, object{"username": "", "password": "", "uris": []any{}, "ttl": 86400.0}) {
		t.Errorf("without a relay the answer is %v", body)
	}
	s.Nobody().Refused(404, "M_NOT_FOUND", "GET", "/.well-known/matrix/support", nil)
}
