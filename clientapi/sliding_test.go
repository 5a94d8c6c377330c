package clientapi_test

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"testing"

	"conclave/internal/testserver"
)

const slidingPath = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"

// slider is a client of sliding sync on one connection.
type slider struct {
	*testserver.User
	pos  string
	body object
}

// slides opens a connection with a list of some rooms.
func slides(u *testserver.User, first, last, limit int, state ...[2]string) *slider {
	return &slider{User: u, body: object{"lists": object{"all": object{
		"ranges": [][2]int{{first, last}}, "timeline_limit": limit, "required_state": state,
	}}}}
}

// at is the address of a request.
func (c *slider) at(timeout int) string {
	q := url.Values{"timeout": {fmt.Sprint(timeout)}}
	if c.pos != "" {
		q.Set("pos", c.pos)
	}
	return slidingPath + "?" + q.Encode()
}

// peek makes a request and stays where it is, as a client does that loses the answer.
func (c *slider) peek(timeout int) object { return c.Must("POST", c.at(timeout), c.body).Body }

// next makes a request and goes on from its answer.
func (c *slider) next(timeout int) object {
	body := c.peek(timeout)
	c.pos, _ = body["pos"].(string)
	return body
}

// list is the connection's list, to be changed.
func (c *slider) list() object { return testserver.At(c.body, "lists", "all").(object) }

func slidRoom(body object, room string) object {
	found, _ := testserver.At(body, "rooms", room).(object)
	return found
}

// slidOrder are the rooms of the list, in order.
func slidOrder(body object) (ids []string) {
	for _, op := range testserver.Events(testserver.At(body, "lists", "all", "ops")) {
		list, _ := op["room_ids"].([]any)
		for _, id := range list {
			ids = append(ids, fmt.Sprint(id))
		}
	}
	return ids
}

// slidTypes are the types and state keys of the required state, sorted.
func slidTypes(room object) (list []string) {
	for _, e := range testserver.Events(room["required_state"]) {
		list = append(list, fmt.Sprintf("%s|%s", e["type"], e["state_key"]))
	}
	slices.Sort(list)
	return list
}

// TestSlidingSync shows simplified sliding sync (MSC4186), rule by rule.
func TestSlidingSync(t *testing.T) {
	t.Parallel() // it mostly waits
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		for _, row := range []struct {
			name string
			test func(*testing.T, *testserver.Server)
		}{
			{"first and next", slidingFirstAndNext}, {"window", slidingWindow}, {"timeline grows", slidingTimelineGrows},
			{"state widens", slidingStateWidens}, {"required state", slidingRequiredState}, {"departures", slidingDepartures},
			{"invitations", slidingInvitations}, {"filters", slidingFilters}, {"waiting", slidingWaiting},
			{"lost answers", slidingLostAnswers}, {"bad requests", slidingBadRequests}, {"names", slidingNames},
			{"subscriptions", slidingSubscriptions}, {"unread", slidingUnread},
			{"messages to the device", slidingToDevice}, {"extensions", slidingExtensionRooms}, {"extensions come later", slidingLateExtensions},
			{"encryption paused", slidingKeysPaused}, {"many rooms", slidingManyRooms}, {"restart", slidingRestart},
		} {
			t.Run(row.name, func(t *testing.T) { row.test(t, s) })
		}
	})
}

func slidingFirstAndNext(t *testing.T, s *testserver.Server) {
	if features := s.Nobody().Must("GET", "/_matrix/client/versions", nil).Body["unstable_features"]; testserver.At(features, "org.matrix.simplified_msc3575") != true {
		t.Errorf("it is not announced: %v", features)
	}
	alice, bob, room := together(t, s)
	setter{alice, room}.topic("gardens")
	alice.Say(room, "one")
	alice.Say(room, "two")
	c := slides(bob, 0, 9, 2, [2]string{"m.room.topic", ""}, [2]string{"m.room.member", "$ME"})
	first := c.next(0)
	got := slidRoom(first, room)
	if got["initial"] != true || got["limited"] != true || got["prev_batch"] == nil || got["membership"] != "join" ||
		got["joined_count"] != float64(2) || got["notification_count"] != float64(2) || got["num_live"] != float64(0) {
		t.Errorf("a room at first: %v", got)
	}
	if texts := bodies(testserver.Events(got["timeline"])); !slices.Equal(texts, []string{"one", "two"}) {
		t.Errorf("its timeline: %q", texts)
	}
	if types := slidTypes(got); !slices.Equal(types, []string{"m.room.member|" + bob.ID, "m.room.topic|"}) {
		t.Errorf("its state: %q", types)
	}
	if testserver.At(first, "lists", "all", "count") != float64(1) || !slices.Equal(slidOrder(first), []string{room}) {
		t.Errorf("the list: %v", first["lists"])
	}
	alice.Say(room, "three")
	body := c.next(10_000)
	got = slidRoom(body, room)
	if got["initial"] != nil || got["num_live"] != float64(1) || got["required_state"] != nil || got["joined_count"] != nil || got["limited"] != nil ||
		got["notification_count"] != float64(3) {
		t.Errorf("a room with one more message: %v", got)
	}
	if texts := bodies(testserver.Events(got["timeline"])); !slices.Equal(texts, []string{"three"}) {
		t.Errorf("the next timeline: %q", texts)
	}
	if body := c.next(0); body["rooms"] != nil {
		t.Errorf("nothing happened: %v", body)
	}
	page := bob.Must("GET", testserver.Path("rooms", room, "messages")+"?dir=b&limit=1&from="+c.pos, nil).Body
	if texts := bodies(testserver.Events(page["chunk"])); !slices.Equal(texts, []string{"three"}) {
		t.Errorf("the position as a place of the timeline: %q", texts)
	}
}

// slidingWindow lets rooms leave the window and come back: nothing is told twice, nothing is left out, and what is too much
// is cut with a token to go on from.
func slidingWindow(t *testing.T, s *testserver.Server) {
	alice, bob, one := together(t, s)
	two := alice.CreateRoom(object{"preset": "private_chat", "invite": []string{bob.ID}})
	bob.Join(two)
	alice.Say(one, "1a")
	c := slides(bob, 0, 0, 3)
	body := c.next(0)
	if !slices.Equal(slidOrder(body), []string{one}) || slidRoom(body, two) != nil || testserver.At(body, "lists", "all", "count") != float64(2) {
		t.Fatalf("a window of one: %v", body["lists"])
	}
	alice.Say(two, "2a")
	body = c.next(10_000)
	if slidRoom(body, two)["initial"] != true || slidRoom(body, one) != nil || !slices.Equal(slidOrder(body), []string{two}) {
		t.Errorf("another room came to the top: %v", body)
	}
	setter{alice, one}.topic("bumps nothing")
	if body = c.next(0); body["rooms"] != nil || !slices.Equal(slidOrder(body), []string{two}) {
		t.Errorf("a topic outside the window: %v", body)
	}
	alice.Say(one, "1b")
	body = c.next(10_000)
	got := slidRoom(body, one)
	if texts := bodies(testserver.Events(got["timeline"])); got["initial"] != nil || got["limited"] != nil || !slices.Equal(texts, []string{"1b"}) || len(testserver.Events(got["timeline"])) != 2 {
		t.Errorf("a room that came back: %v", got)
	}
	for i := range 5 {
		alice.Say(two, fmt.Sprint(i)) // it comes in, and one goes
	}
	c.next(10_000)
	for i := range 6 {
		alice.Say(one, fmt.Sprint("1", i))
	}
	body = c.next(10_000)
	got = slidRoom(body, one)
	if texts := bodies(testserver.Events(got["timeline"])); got["initial"] != nil || got["limited"] != true || !slices.Equal(texts, []string{"13", "14", "15"}) {
		t.Fatalf("a room that came back with much: %v", got)
	}
	page := bob.Must("GET", testserver.Path("rooms", one, "messages")+"?dir=b&limit=4&from="+fmt.Sprint(got["prev_batch"]), nil).Body
	if texts := bodies(testserver.Events(page["chunk"])); !slices.Equal(texts, []string{"12", "11", "10", "1b"}) {
		t.Errorf("what was cut: %q", texts)
	}
	c.list()["ranges"] = []int{0, 9} // one range by itself
	if body = c.next(0); slidRoom(body, one) != nil || slidRoom(body, two) != nil || len(slidOrder(body)) != 2 {
		t.Errorf("the window grew over rooms that are known: %v", body)
	}
}

func slidingTimelineGrows(t *testing.T, s *testserver.Server) {
	alice, bob, room := together(t, s)
	for i := range 6 {
		alice.Say(room, fmt.Sprint(i))
	}
	c := slides(bob, 0, 9, 1)
	c.next(0)
	alice.Say(room, "6")
	c.next(10_000)
	c.list()["timeline_limit"] = 4
	got := slidRoom(c.next(10_000), room)
	if texts := bodies(testserver.Events(got["timeline"])); got["unstable_expanded_timeline"] != true || got["initial"] != nil || got["num_live"] != float64(0) ||
		!slices.Equal(texts, []string{"3", "4", "5", "6"}) || got["prev_batch"] == nil {
		t.Errorf("more of the timeline: %v", got)
	}
	if body := c.next(0); body["rooms"] != nil {
		t.Errorf("it comes again: %v", body)
	}
	c.list()["timeline_limit"] = 2
	alice.Say(room, "7")
	got = slidRoom(c.next(10_000), room)
	if texts := bodies(testserver.Events(got["timeline"])); got["unstable_expanded_timeline"] != nil || !slices.Equal(texts, []string{"7"}) {
		t.Errorf("with less of the timeline: %v", got)
	}
	c.list()["timeline_limit"] = 4
	if body := c.next(0); body["rooms"] != nil {
		t.Errorf("the client has these: %v", body)
	}
	c.list()["timeline_limit"] = 0
	for i := range 3 {
		alice.Say(room, fmt.Sprint("none", i))
	}
	got = slidRoom(c.next(10_000), room)
	page := bob.Must("GET", testserver.Path("rooms", room, "messages")+"?dir=b&limit=3&from="+fmt.Sprint(got["prev_batch"]), nil).Body
	if texts := bodies(testserver.Events(page["chunk"])); got["limited"] != true || got["timeline"] != nil || !slices.Equal(texts, []string{"none2", "none1", "none0"}) {
		t.Errorf("without a timeline: %v, before it %q", got, texts)
	}
}

func slidingStateWidens(t *testing.T, s *testserver.Server) {
	alice, bob, room := together(t, s)
	setter{alice, room}.topic("gardens")
	c := slides(bob, 0, 9, 0, [2]string{"m.room.create", ""})
	c.next(0)
	c.list()["required_state"] = [][2]string{{"m.room.create", ""}, {"m.room.topic", ""}}
	got := slidRoom(c.next(10_000), room)
	if types := slidTypes(got); !slices.Equal(types, []string{"m.room.topic|"}) || got["initial"] != nil {
		t.Errorf("what is asked for in addition: %v", got)
	}
	c.list()["required_state"] = [][2]string{{"m.room.create", ""}}
	c.next(0)
	setter{alice, room}.topic("ships")
	if types := slidTypes(slidRoom(c.next(0), room)); len(types) != 0 {
		t.Errorf("what is no longer asked for: %q", types)
	}
	c.list()["required_state"] = [][2]string{{"m.room.topic", ""}}
	got = slidRoom(c.next(10_000), room)
	if events := testserver.Events(got["required_state"]); len(events) != 1 || testserver.At(events[0], "content", "topic") != "ships" {
		t.Errorf("what changed while it was not asked for: %v", got)
	}
}

func slidingRequiredState(t *testing.T, s *testserver.Server) {
	alice, bob, room := together(t, s)
	carol := s.Register(testserver.Unique("carol"))
	alice.Invite(room, carol.ID)
	carol.Join(room)
	setter{alice, room}.topic("gardens")
	bob.Say(room, "last")
	member := func(u *testserver.User) string { return "m.room.member|" + u.ID }
	for name, c := range map[string]struct {
		state [][2]string
		has   []string
		hasnt []string
	}{
		"all":          {[][2]string{{"*", "*"}}, []string{"m.room.create|", "m.room.topic|", member(alice), member(bob), member(carol)}, nil},
		"all, lazily":  {[][2]string{{"*", "*"}, {"m.room.member", "$LAZY"}}, []string{"m.room.create|", member(bob)}, []string{member(alice), member(carol)}},
		"all, me":      {[][2]string{{"*", "*"}, {"m.room.member", "$ME"}}, []string{"m.room.topic|", member(bob)}, []string{member(alice)}},
		"every key":    {[][2]string{{"m.room.member", "*"}}, []string{member(alice), member(carol)}, []string{"m.room.create|"}},
		"every type":   {[][2]string{{"*", ""}}, []string{"m.room.create|", "m.room.topic|"}, []string{member(alice)}},
		"one":          {[][2]string{{"m.room.member", carol.ID}}, []string{member(carol)}, []string{member(bob), "m.room.create|"}},
		"none":         {nil, nil, []string{"m.room.create|", member(bob)}},
		"nothing such": {[][2]string{{"org.example.none", ""}}, nil, []string{"m.room.create|"}},
	} {
		types := slidTypes(slidRoom(slides(bob, 0, 9, 1, c.state...).next(0), room))
		for _, want := range c.has {
			if !slices.Contains(types, want) {
				t.Errorf("%s: %q is not in %q", name, want, types)
			}
		}
		for _, not := range c.hasnt {
			if slices.Contains(types, not) {
				t.Errorf("%s: %q is in %q", name, not, types)
			}
		}
	}
	lazy := slides(bob, 0, 9, 5, [2]string{"m.room.member", "$LAZY"})
	lazy.next(0)
	alice.Say(room, "by alice")
	carol.Must("PUT", testserver.Path("rooms", room, "state", "m.room.member", carol.ID), object{"membership": "join", "displayname": "Caroline"})
	if types := slidTypes(slidRoom(lazy.next(10_000), room)); !slices.Contains(types, member(alice)) || !slices.Contains(types, member(carol)) {
		t.Errorf("lazily, one spoke and one changed: %q", types)
	}
}

func slidingDepartures(t *testing.T, s *testserver.Server) {
	alice, bob, kicked := together(t, s)
	banned, left, never := alice.CreateRoom(object{"preset": "public_chat"}), alice.CreateRoom(object{"preset": "public_chat"}), alice.CreateRoom(object{"preset": "public_chat"})
	for _, room := range []string{banned, left, never} {
		bob.Join(room)
	}
	bob.Must("POST", testserver.Path("rooms", never, "leave"), object{})
	c := slides(bob, 0, 9, 5)
	if body := c.next(0); len(slidOrder(body)) != 3 || slidRoom(body, never) != nil {
		t.Errorf("a room that was left before: %v", slidOrder(body))
	}
	bob.Must("POST", testserver.Path("rooms", left, "leave"), object{})
	alice.Must("POST", testserver.Path("rooms", kicked, "kick"), object{"user_id": bob.ID, "reason": "moved on"})
	alice.Must("POST", testserver.Path("rooms", banned, "ban"), object{"user_id": bob.ID})
	for _, room := range []string{kicked, banned, left} {
		alice.Say(room, "not for bob")
	}
	again := c.peek(10_000)
	body := c.next(10_000)
	for room, membership := range map[string]string{kicked: "leave", banned: "ban", left: "leave"} {
		for _, got := range []object{slidRoom(body, room), slidRoom(again, room)} {
			events := testserver.Events(got["timeline"])
			if got["membership"] != membership || len(events) == 0 || testserver.At(events[len(events)-1], "content", "membership") != membership ||
				!slices.Contains(slidTypes(got), "m.room.member|"+bob.ID) || len(bodies(events)) != 0 {
				t.Errorf("a departure (%s): %v", membership, got)
			}
		}
	}
	if body = c.next(0); body["rooms"] != nil {
		t.Errorf("departures are told twice: %v", body["rooms"])
	}
	if order := slidOrder(c.next(0)); slices.Contains(order, left) || !slices.Contains(order, kicked) {
		t.Errorf("lists have the rooms that one was put out of, not those that one left: %v", order)
	}
	bob.Join(left)
	if got := slidRoom(c.next(10_000), left); got["initial"] != true || got["membership"] != "join" {
		t.Errorf("back again: %v", got)
	}
}

func slidingInvitations(t *testing.T, s *testserver.Server) {
	alice, bob := s.Register(testserver.Unique("alice")), s.Register(testserver.Unique("bob"))
	c := slides(bob, 0, 9, 5)
	c.next(0)
	room := alice.CreateRoom(object{"preset": "private_chat", "name": "Plans", "invite": []string{bob.ID}})
	knocked := alice.CreateRoom(object{"preset": "private_chat", "initial_state": []object{{"type": "m.room.join_rules", "content": object{"join_rule": "knock"}}}})
	bob.Must("POST", testserver.Path("knock", knocked), object{})
	body := c.next(10_000)
	names := 0
	for id, membership := range map[string]string{room: "invite", knocked: "knock"} {
		got := slidRoom(body, id)
		events := testserver.Events(got["invite_state"])
		if got["membership"] != membership || got["initial"] != true || got["timeline"] != nil || got["required_state"] != nil || len(events) == 0 {
			t.Errorf("%s: %v", membership, got)
		}
		for _, e := range events {
			if e["type"] == "m.room.name" {
				names++
			}
		}
	}
	if names != 1 {
		t.Errorf("stripped state: %v", body["rooms"])
	}
	if body = c.next(0); body["rooms"] != nil {
		t.Errorf("an invitation is told twice: %v", body)
	}
	bob.Join(room)
	if got := slidRoom(c.next(10_000), room); got["initial"] != true || got["membership"] != "join" || got["invite_state"] != nil || got["name"] != "Plans" {
		t.Errorf("the room after joining: %v", got)
	}
	bob.Must("POST", testserver.Path("rooms", knocked, "leave"), object{})
	body = c.next(10_000)
	if got := slidRoom(body, knocked); got["membership"] != "leave" || slices.Contains(slidOrder(body), knocked) {
		t.Errorf("a knock taken back: %v", body)
	}
	// What an ignored user asks, and what somebody asks who was told not to, is kept from the user as /sync does.
	eve := s.Register(testserver.Unique("eve"))
	bob.Must("PUT", testserver.Path("user", bob.ID, "account_data", "m.ignored_user_list"), object{"ignored_users": object{eve.ID: object{}}})
	hidden := eve.CreateRoom(object{"preset": "private_chat", "invite": []string{bob.ID}})
	seen := alice.CreateRoom(object{"preset": "private_chat", "invite": []string{bob.ID}})
	body = c.next(10_000)
	if slidRoom(body, hidden) != nil || slidRoom(body, seen) == nil || testserver.At(body, "lists", "all", "count") != float64(2) {
		t.Errorf("invitations: %v", body)
	}
}

func slidingFilters(t *testing.T, s *testserver.Server) {
	alice := s.Register(testserver.Unique("alice"))
	bob := s.Register(testserver.Unique("bob"))
	encrypted := alice.CreateRoom(object{"name": "Secret Garden", "initial_state": []object{{"type": "m.room.encryption", "content": object{"algorithm": "m.megolm.v1.aes-sha2"}}}})
	space := alice.CreateRoom(object{"name": "Space", "creation_content": object{"type": "m.space"}})
	child := alice.CreateRoom(object{"name": "Child"})
	direct := alice.CreateRoom(object{"name": "Direct"})
	tagged := alice.CreateRoom(object{"name": "Tagged"})
	invited := bob.CreateRoom(object{"name": "Invited", "invite": []string{alice.ID}})
	names := map[string]string{encrypted: "encrypted", space: "space", child: "child", direct: "direct", tagged: "tagged", invited: "invited"}
	alice.Must("PUT", testserver.Path("rooms", space, "state", "m.space.child", child), object{"via": []string{string(s.Name)}})
	alice.Must("PUT", testserver.Path("rooms", space, "state", "m.space.child", tagged), object{})
	alice.Must("PUT", testserver.Path("user", alice.ID, "account_data", "m.direct"), object{bob.ID: []string{direct}})
	alice.Must("PUT", testserver.Path("user", alice.ID, "rooms", tagged, "account_data", "m.tag"), object{"tags": object{"m.favourite": object{"order": 0.5}}})
	check := func(what string, filter object, want ...string) {
		t.Helper()
		c := slides(alice, 0, 99, 1)
		c.list()["filters"] = filter
		body := c.next(0)
		var got []string
		for _, id := range slidOrder(body) {
			got = append(got, names[id])
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) || testserver.At(body, "lists", "all", "count") != float64(len(want)) || len(slices.Collect(maps.Keys(testserver.At(body, "rooms").(object)))) != len(want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	check("none", object{}, "encrypted", "space", "child", "direct", "tagged", "invited")
	check("direct", object{"is_dm": true}, "direct")
	check("not direct", object{"is_dm": false}, "encrypted", "space", "child", "tagged", "invited")
	check("encrypted", object{"is_encrypted": true}, "encrypted")
	check("invitations", object{"is_invite": true}, "invited")
	check("no invitations", object{"is_invite": false, "is_encrypted": false}, "space", "child", "direct", "tagged")
	check("spaces", object{"room_types": []any{"m.space"}}, "space")
	check("without a type", object{"room_types": []any{nil}, "is_invite": false}, "encrypted", "child", "direct", "tagged")
	check("no spaces", object{"not_room_types": []any{"m.space"}, "is_dm": false}, "encrypted", "child", "tagged", "invited")
	check("a type wanted and not", object{"room_types": []any{"m.space", nil}, "not_room_types": []any{"m.space"}, "is_dm": true}, "direct")
	check("in a space", object{"spaces": []string{space}}, "child")
	check("tags", object{"tags": []string{"m.favourite"}}, "tagged")
	check("not tags", object{"not_tags": []string{"m.favourite"}, "is_invite": false, "not_room_types": []any{"m.space"}}, "encrypted", "child", "direct")
	check("by name", object{"room_name_like": "gArD"}, "encrypted")
	// What makes a room match changes while the client listens.
	c := slides(alice, 0, 99, 1)
	c.list()["filters"] = object{"tags": []string{"m.lowpriority"}}
	if body := c.next(0); testserver.At(body, "lists", "all", "count") != float64(0) {
		t.Errorf("no room has the tag: %v", body)
	}
	alice.Must("PUT", testserver.Path("user", alice.ID, "rooms", child, "account_data", "m.tag"), object{"tags": object{"m.lowpriority": object{}}})
	if body := c.next(10_000); slidRoom(body, child)["initial"] != true {
		t.Errorf("a room was tagged: %v", body)
	}
	c.list()["filters"] = object{"is_encrypted": true, "room_name_like": "direct"}
	c.next(0)
	alice.Must("PUT", testserver.Path("rooms", direct, "state", "m.room.encryption", ""), object{"algorithm": "m.megolm.v1.aes-sha2"})
	if got := slidRoom(c.next(10_000), direct); got["initial"] != true || got["is_dm"] != true {
		t.Errorf("a room was encrypted: %v", got)
	}
	alice.Must("PUT", testserver.Path("user", alice.ID, "account_data", "m.direct"), object{})
	if got := slidRoom(c.next(10_000), direct); got["is_dm"] != false || got["initial"] != nil {
		t.Errorf("a room is not direct any more: %v", got)
	}
}
