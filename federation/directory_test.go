package federation_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
)

// listed are the rooms of a page of a directory.
func listed(body testserver.JSON) (ids []string) {
	for _, entry := range testserver.Events(body["chunk"]) {
		id, _ := entry["room_id"].(string)
		ids = append(ids, id)
	}
	return ids
}

// TestPublicRooms: what a server publishes, as its own people and those of another server page through it and search it.
func TestPublicRooms(t *testing.T) {
	eachTwo(t, func(w *two) {
		proof.Of(w.t, "RM-12")
		var rooms []string
		for i := range 5 {
			options := testserver.JSON{"preset": "public_chat", "visibility": "public", "name": fmt.Sprintf("Room %d", i), "topic": "About Plants"}
			if i == 0 {
				options["creation_content"] = testserver.JSON{"type": "m.space"}
			}
			rooms = append(rooms, w.alice.CreateRoom(options))
		}
		hidden := w.alice.CreateRoom(testserver.JSON{"preset": "public_chat", "name": "Not in the list"})
		closed := w.alice.CreateRoom(testserver.JSON{"preset": "public_chat", "visibility": "public", "creation_content": testserver.JSON{"m.federate": false}})
		w.a.Register("carol").Join(rooms[3]) // the largest

		here := listed(w.alice.Must("GET", "/publicRooms", nil).Body)
		if len(here) != 6 || here[0] != rooms[3] || slices.Contains(here, hidden) || !slices.Contains(here, closed) {
			w.t.Errorf("at home the directory is %v", here)
		}
		at := "?server=" + url.QueryEscape(string(w.a.Name))
		there := w.bob.Must("GET", "/publicRooms"+at, nil).Body
		if got := listed(there); len(got) != 5 || slices.Contains(got, closed) || there["total_room_count_estimate"] != 5.0 {
			w.t.Errorf("from another server the directory is %v", there)
		}
		// In pages, forwards and back again.
		var seen []string
		since, before := "", ""
		for range 3 {
			page := w.bob.Must("GET", "/publicRooms"+at+"&limit=2&since="+url.QueryEscape(since), nil).Body
			seen = append(seen, listed(page)...)
			since, _ = page["next_batch"].(string)
			before, _ = page["prev_batch"].(string)
		}
		if since != "" || !slices.Equal(seen, listed(there)) {
			w.t.Errorf("in pages the directory is %v, and goes on at %q", seen, since)
		}
		if back := listed(w.bob.Must("GET", "/publicRooms"+at+"&limit=2&since="+url.QueryEscape(before), nil).Body); !slices.Equal(back, seen[2:4]) {
			w.t.Errorf("backwards from the last page come %v, want %v", back, seen[2:4])
		}
		find := func(u *testserver.User, path string, filter testserver.JSON) []string {
			return listed(u.Must("POST", "/publicRooms"+path, testserver.JSON{"filter": filter}).Body)
		}
		for name, c := range map[string]struct {
			filter testserver.JSON
			want   int
		}{
			"a name": {testserver.JSON{"generic_search_term": "rOOm 4"}, 1}, "a topic": {testserver.JSON{"generic_search_term": "plants"}, 5},
			"nothing": {testserver.JSON{"generic_search_term": "animals"}, 0}, "spaces": {testserver.JSON{"room_types": []any{"m.space"}}, 1},
			"no type": {testserver.JSON{"room_types": []any{nil}}, 4}, "spaces and none": {testserver.JSON{"room_types": []any{nil, "m.space"}}, 5},
		} {
			if got := find(w.bob, at, c.filter); len(got) != c.want {
				w.t.Errorf("%s: %v, want %d rooms", name, got, c.want)
			}
		}
		w.alice.Must("PUT", testserver.Path("directory", "list", "room", rooms[3]), testserver.JSON{"visibility": "private"})
		if got := listed(w.bob.Must("GET", "/publicRooms"+at, nil).Body); slices.Contains(got, rooms[3]) || len(got) != 4 {
			w.t.Errorf("after one was taken out the directory is %v", got)
		}
		w.bob.Refused(http.StatusBadRequest, "M_INVALID_PARAM", "GET", "/publicRooms?since=nonsense", nil)
		w.bob.Refused(http.StatusBadRequest, "M_INVALID_PARAM", "GET", "/publicRooms?server=not%20a%20name", nil)
		w.bob.Refused(http.StatusBadGateway, "M_UNKNOWN", "GET", "/publicRooms?server=localhost:1", nil)
	})
}

// TestADirectoryThatLies: entries of another server's directory that make no sense are left out, and there are never more
// than were asked for.
func TestADirectoryThatLies(t *testing.T) {
	ca := peer.NewCA(t)
	s := testserver.Start(t, testserver.Options{CA: ca})
	p := peer.New(t, ca, peer.Options{})
	alice := s.Register("alice")
	good := testserver.JSON{"room_id": "!good:x.test", "num_joined_members": 3, "world_readable": true, "guest_can_join": false, "canonical_alias": "not an alias", "extra": []any{1}}
	chunk := []any{
		good, "text", nil, testserver.JSON{}, testserver.JSON{"room_id": "no ID", "num_joined_members": 1},
		testserver.JSON{"room_id": "!a:x.test", "num_joined_members": "many"}, testserver.JSON{"room_id": "!b:x.test", "num_joined_members": -1}, testserver.JSON{"room_id": []any{}},
	}
	p.Handle("GET", "/_matrix/federation/v1/publicRooms", func(*peer.Call) peer.Reply {
		return peer.Reply{Body: testserver.JSON{"chunk": chunk, "next_batch": "next", "total_room_count_estimate": -5}}
	})
	body := alice.Must("GET", "/publicRooms?server="+string(p.Name), nil).Body
	entries := testserver.Events(body["chunk"])
	if len(entries) != 1 || entries[0]["room_id"] != "!good:x.test" || entries[0]["canonical_alias"] != nil || entries[0]["extra"] != nil ||
		body["next_batch"] != "next" || body["total_room_count_estimate"] != 0.0 {
		t.Errorf("of the entries came %v", body)
	}
	for i := range 50 {
		chunk = append(chunk, testserver.JSON{"room_id": fmt.Sprintf("!r%d:x.test", i), "num_joined_members": 1})
	}
	if got := alice.Must("GET", "/publicRooms?limit=10&server="+string(p.Name), nil).Body; len(listed(got)) != 10 {
		t.Errorf("asked for 10, got %d", len(listed(got)))
	}
	p.Handle("GET", "/_matrix/federation/v1/publicRooms", func(*peer.Call) peer.Reply { return peer.Reply{Body: []byte(`{"chunk": 5}`)} })
	alice.Refused(http.StatusBadGateway, "M_UNKNOWN", "GET", "/publicRooms?server="+string(p.Name), nil)
}

// TestOpenID: a token that a user gets here tells another server, or anybody, who they are; and nothing else does.
func TestOpenID(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		proof.Of(t, "FD-21", "US-13")
		s := testserver.Start(t, testserver.Options{Engine: engine})
		p := peer.New(t, s.CA, peer.Options{})
		alice, mallory := s.Register("alice"), s.Register("mallory")
		path := testserver.Path("user", alice.ID, "openid", "request_token")
		token := alice.Must("POST", path, testserver.JSON{}).Body
		if token["token_type"] != "Bearer" || token["matrix_server_name"] != string(s.Name) || token["expires_in"] != 3600.0 {
			t.Errorf("the token is %v", token)
		}
		mallory.Refused(http.StatusForbidden, "M_FORBIDDEN", "POST", path, testserver.JSON{})
		to := peer.Target{Server: s.Name, URL: "https://" + string(s.Name)}
		ask := func(token string) peer.Answer {
			return p.DoWith(t, to, "GET", "/_matrix/federation/v1/openid/userinfo?access_token="+url.QueryEscape(token), nil, nil)
		}
		text, _ := token["access_token"].(string)
		if a := ask(text); a.Status != http.StatusOK || string(a.Body) != fmt.Sprintf(`{"sub":%q}`, alice.ID) {
			t.Errorf("whose it is: %d %s", a.Status, a.Body)
		}
		for _, wrong := range []string{"x", text + "x", alice.Token} {
			if a := ask(wrong); a.Status != http.StatusUnauthorized || a.Code() != "M_UNKNOWN_TOKEN" {
				t.Errorf("%q: %d %s", wrong, a.Status, a.Body)
			}
		}
		if a := ask(""); a.Status != http.StatusUnauthorized || a.Code() != "M_MISSING_TOKEN" {
			t.Errorf("without a token: %d %s", a.Status, a.Body)
		}
		// It is good for nothing else, and ends with the account.
		other := *alice
		other.Token = text
		other.Refused(http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "GET", "/account/whoami", nil)
		alice.Must("POST", "/account/deactivate", testserver.JSON{"auth": testserver.JSON{"type": "m.login.password", "user": "alice", "password": testserver.Password}})
		if a := ask(text); a.Status != http.StatusUnauthorized {
			t.Errorf("after the account was closed: %d %s", a.Status, a.Body)
		}
	})
}

// TestRefusedOnPurpose: what this server does not do, it says in the words of the specification.
func TestRefusedOnPurpose(t *testing.T) {
	s := testserver.Start(t, testserver.Options{})
	p := peer.New(t, s.CA, peer.Options{})
	to := peer.Target{Server: s.Name, URL: "https://" + string(s.Name)}
	for _, c := range []struct{ method, path, listed string }{
		{"GET", "/_matrix/federation/v1/query/weather?city=x", "/_matrix/federation/v1/query/{queryType}"},
		{"POST", "/_matrix/policy/v1/sign", "/_matrix/policy/v1/sign"}, // it is no policy server
	} {
		a := p.Do(t, to, c.method, c.path, nil)
		if a.Status != http.StatusNotFound || a.Code() != "M_UNRECOGNIZED" {
			t.Errorf("%s: %d %s", c.path, a.Status, a.Body)
		}
		proof.Refused(t, c.method, c.listed)
	}
	s.Nobody().Refused(http.StatusNotFound, "M_UNRECOGNIZED", "GET", "/.well-known/matrix/policy_server", nil)
	proof.Refused(t, "GET", "/.well-known/matrix/policy_server")
	proof.Of(t, "PS-05")
}

// TestCanonicalAliasOfAnotherServer: an alias of another server may stand in a room's m.room.canonical_alias if that server says
// that it leads there.
func TestCanonicalAliasOfAnotherServer(t *testing.T) {
	eachTwo(t, func(w *two) {
		proof.Of(w.t, "EV-12")
		room := w.together()
		other := w.bob.CreateRoom(testserver.JSON{})
		alias := func(of string) string {
			name := "#" + testserver.Unique("far") + ":" + string(w.b.Name)
			w.bob.Must("PUT", testserver.Path("directory", "room", name), testserver.JSON{"room_id": of})
			return name
		}
		path := testserver.Path("rooms", room, "state", "m.room.canonical_alias", "")
		w.alice.Must("PUT", path, testserver.JSON{"alt_aliases": []string{alias(room)}})
		w.alice.Refused(http.StatusBadRequest, "M_BAD_ALIAS", "PUT", path, testserver.JSON{"alias": alias(other)})
		w.alice.Refused(http.StatusBadRequest, "M_BAD_ALIAS", "PUT", path, testserver.JSON{"alias": "#none:" + string(w.b.Name)})
	})
}
