package federation_test

import (
	"net/http"
	"net/url"
	"slices"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
)

// inTree are the rooms of a page of a space's tree.
func inTree(body testserver.JSON) (ids []string) {
	for _, room := range testserver.Events(body["rooms"]) {
		id, _ := room["room_id"].(string)
		ids = append(ids, id)
	}
	return ids
}

// TestSpaces: the tree of a space whose rooms are on two servers, in order, in pages, with what each may know of it.
func TestSpaces(t *testing.T) {
	eachTwo(t, func(w *two) {
		proof.Of(w.t, "RM-13", "RM-14", "RM-15")
		child := func(u *testserver.User, space, room string, content testserver.JSON) {
			content["via"] = []string{string(u.Server.Name)}
			u.Must("PUT", testserver.Path("rooms", space, "state", "m.space.child", room), content)
		}
		make := func(u *testserver.User, options testserver.JSON) string {
			if _, ok := options["preset"]; !ok {
				options["preset"] = "public_chat"
			}
			return u.CreateRoom(options)
		}
		space := testserver.JSON{"type": "m.space"}
		top := make(w.alice, testserver.JSON{"name": "Top", "creation_content": space})
		inner := make(w.bob, testserver.JSON{"name": "Inner", "creation_content": space})
		third := make(w.bob, testserver.JSON{"name": "Third"})
		second, last := make(w.alice, testserver.JSON{"name": "Second"}), make(w.alice, testserver.JSON{"name": "Last"})
		secret := make(w.alice, testserver.JSON{"name": "Secret", "preset": "private_chat"})
		members := make(w.alice, testserver.JSON{"name": "Members", "initial_state": []testserver.JSON{{
			"type": "m.room.join_rules", "content": testserver.JSON{"join_rule": "restricted", "allow": []testserver.JSON{{"type": "m.room_membership", "room_id": secret}}},
		}}})
		child(w.alice, top, last, testserver.JSON{})
		child(w.alice, top, second, testserver.JSON{"order": "b", "suggested": true})
		child(w.alice, top, secret, testserver.JSON{"order": "c"})
		child(w.alice, top, members, testserver.JSON{"order": "d"})
		w.alice.Must("PUT", testserver.Path("rooms", top, "state", "m.space.child", inner), testserver.JSON{"via": []string{string(w.b.Name)}, "order": "a"})
		w.alice.Must("PUT", testserver.Path("rooms", top, "state", "m.space.child", "!gone"), testserver.JSON{}) // taken out again
		child(w.bob, inner, third, testserver.JSON{})
		w.bob.Must("PUT", testserver.Path("rooms", inner, "state", "m.space.child", top), testserver.JSON{"via": []string{string(w.a.Name)}}) // a loop
		// A room that says of itself that it belongs to a space is not believed.
		claims := make(w.bob, testserver.JSON{"name": "Claims"})
		w.bob.Must("PUT", testserver.Path("rooms", claims, "state", "m.space.parent", top), testserver.JSON{"via": []string{string(w.a.Name)}, "canonical": true})

		tree := func(u *testserver.User, query string) testserver.JSON {
			return u.Must("GET", "/_matrix/client/v1"+testserver.Path("rooms", top, "hierarchy")+query, nil).Body
		}
		want := []string{top, inner, third, second, secret, members, last}
		if got := inTree(tree(w.alice, "")); !slices.Equal(got, want) {
			w.t.Errorf("alice sees %v\nwant %v", got, want)
		}
		child3 := testserver.Events(testserver.Events(tree(w.alice, "")["rooms"])[0]["children_state"])
		if len(child3) != 5 || child3[0]["state_key"] != inner || child3[0]["origin_server_ts"] == nil || child3[0]["event_id"] != nil {
			w.t.Errorf("the children of the top are %v", child3)
		}
		if got := inTree(tree(w.alice, "?suggested_only=true")); !slices.Equal(got, []string{top, second}) {
			w.t.Errorf("suggested are %v", got)
		}
		if got := inTree(tree(w.alice, "?max_depth=1")); !slices.Equal(got, slices.DeleteFunc(slices.Clone(want), func(id string) bool { return id == third })) {
			w.t.Errorf("to a depth of one: %v", got)
		}
		var paged []string
		from := ""
		for range 4 {
			page := tree(w.alice, "?limit=2&from="+url.QueryEscape(from))
			paged = append(paged, inTree(page)...)
			if from, _ = page["next_batch"].(string); from == "" {
				break
			}
		}
		if !slices.Equal(paged, want) || from != "" {
			w.t.Errorf("in pages: %v, more at %q", paged, from)
		}
		page := tree(w.alice, "?limit=2")
		w.alice.Refused(http.StatusBadRequest, "M_INVALID_PARAM", "GET",
			"/_matrix/client/v1"+testserver.Path("rooms", top, "hierarchy")+"?max_depth=1&from="+url.QueryEscape(page["next_batch"].(string)), nil)

		// bob is in none of alice's rooms and his server neither: it learns of them through the top's server, which tells
		// nothing of what nobody there may get into.
		inRoom := w.bob.Must("GET", "/_matrix/client/v1"+testserver.Path("rooms", inner, "hierarchy"), nil).Body
		if got := inTree(inRoom); !slices.Equal(got, []string{inner, third, top, second, last}) && !slices.Equal(got, []string{inner, top, second, last, third}) {
			w.t.Errorf("bob sees %v", got)
		}
		summary := w.bob.Must("GET", "/_matrix/client/v1"+testserver.Path("room_summary", second)+"?via="+string(w.a.Name), nil).Body
		if summary["name"] != "Second" || summary["join_rule"] != "public" || summary["num_joined_members"] != 1.0 || summary["room_version"] != "12" || summary["membership"] != nil {
			w.t.Errorf("the summary is %v", summary)
		}
		own := w.alice.Must("GET", "/_matrix/client/v1"+testserver.Path("room_summary", secret), nil).Body
		if own["membership"] != "join" || own["name"] != "Secret" {
			w.t.Errorf("alice's summary is %v", own)
		}
		w.bob.Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", "/_matrix/client/v1"+testserver.Path("room_summary", secret)+"?via="+string(w.a.Name), nil)
		w.a.Nobody().Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", "/_matrix/client/v1"+testserver.Path("room_summary", secret), nil)
		if got := w.a.Nobody().Must("GET", "/_matrix/client/v1"+testserver.Path("room_summary", second), nil).Body; got["name"] != "Second" || got["membership"] != nil {
			w.t.Errorf("without a session the summary is %v", got)
		}
		// Once invited bob may know of the secret room, and of the one for its members once he is in it.
		w.alice.Invite(secret, w.bob.ID)
		w.bob.SyncUntil("", "the invitation", func(body testserver.JSON) bool { return testserver.At(body, "rooms", "invite", secret) != nil })
		w.bob.Join(secret, string(w.a.Name))
		if got := w.bob.Must("GET", "/_matrix/client/v1"+testserver.Path("room_summary", members)+"?via="+string(w.a.Name), nil).Body; got["name"] != "Members" {
			w.t.Errorf("of the room for members bob learns %v", got)
		}
	})
}

// TestASpaceThatLies: another server's tale of a space is used as far as it is about that space.
func TestASpaceThatLies(t *testing.T) {
	ca := peer.NewCA(t)
	s := testserver.Start(t, testserver.Options{CA: ca})
	p := peer.New(t, ca, peer.Options{})
	alice := s.Register("alice")
	room := func(id string) testserver.JSON {
		return testserver.JSON{"room_id": id, "name": id, "num_joined_members": 1, "join_rule": "public", "world_readable": false, "guest_can_join": false}
	}
	child := func(id string) testserver.JSON {
		return testserver.JSON{"type": "m.space.child", "state_key": id, "sender": "@x:x.test", "origin_server_ts": 1, "content": testserver.JSON{"via": []string{string(p.Name)}}}
	}
	asked := "!space:x.test"
	p.Handle("GET", "/_matrix/federation/v1/hierarchy/{room}", func(c *peer.Call) peer.Reply {
		top := room(asked)
		top["room_type"] = "m.space"
		bad := child("!bad:x.test")
		bad["sender"] = 5
		top["children_state"] = []any{child("!a:x.test"), child("no room"), "text", bad, testserver.JSON{"type": "m.room.topic", "state_key": "!t:x.test"}, child("!b:x.test")}
		return peer.Reply{Body: testserver.JSON{
			"room": top, "inaccessible_children": []string{"!b:x.test"},
			"children": []any{room("!a:x.test"), room("!stranger:x.test"), 7, testserver.JSON{"room_id": 5}},
		}}
	})
	mine := alice.CreateRoom(testserver.JSON{"creation_content": testserver.JSON{"type": "m.space"}})
	alice.Must("PUT", testserver.Path("rooms", mine, "state", "m.space.child", asked), testserver.JSON{"via": []string{string(p.Name), "not a name"}})
	got := inTree(alice.Must("GET", "/_matrix/client/v1"+testserver.Path("rooms", mine, "hierarchy"), nil).Body)
	if !slices.Equal(got, []string{mine, asked, "!a:x.test"}) {
		t.Errorf("the tree is %v", got)
	}
	asked = "!other:x.test" // it tells of another room than the one that it is asked for
	alice.Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", "/_matrix/client/v1"+testserver.Path("room_summary", "!wanted:x.test")+"?via="+string(p.Name), nil)
}
