package clientapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
)

// TestSyncRows shows what the specification says of /sync, filters and ignored users, row by row.
func TestSyncRows(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		for name, row := range map[string]func(*testing.T, *testserver.Server){
			"state before and after": rowState, "full state": rowFullState, "sections": rowSections, "summary": rowSummary, "order": rowOrder,
			"rooms joined, left and forgotten": rowRooms, "filters stored": rowStoredFilters, "filters of events": rowFilters,
			"lazy members": rowLazy, "ignored users": rowIgnored, "invitations blocked": rowBlocked,
		} {
			t.Run(name, func(t *testing.T) { row(t, s) })
		}
	})
}

// inRoom finds a list of events of a joined room in an answer.
func inRoom(body object, room string, path ...string) []object {
	return testserver.Events(testserver.At(body, append([]string{"rooms", "join", room}, path...)...))
}

// topics are the topics among events, in order.
func topics(events []object) (list []string) {
	for _, e := range events {
		if e["type"] == "m.room.topic" {
			list = append(list, fmt.Sprint(testserver.At(e, "content", "topic")))
		}
	}
	return list
}

// membersIn are the users whose member events are among events, in order of their names.
func membersIn(events []object) (list []string) {
	for _, e := range events {
		if e["type"] == "m.room.member" {
			list = append(list, fmt.Sprint(e["state_key"]))
		}
	}
	slices.Sort(list)
	return list
}

func filterOf(t *testing.T, filter object) string {
	t.Helper()
	raw, err := json.Marshal(filter)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func (r setter) topic(text string) {
	r.user.Must("PUT", testserver.Path("rooms", r.room, "state", "m.room.topic", ""), object{"topic": text})
}

type setter struct {
	user *testserver.User
	room string
}

func rowState(t *testing.T, s *testserver.Server) {
	proof.Of(t, "SY-01")
	alice, bob, room := together(t, s)
	of := setter{alice, room}
	of.topic("first")
	since := token(bob.Sync("", 0))
	of.topic("second")
	for i := range 10 {
		alice.Say(room, fmt.Sprint(i))
	}
	of.topic("third")
	alice.Say(room, "last")
	limit := filterOf(t, object{"room": object{"timeline": object{"limit": 5}}})
	plain := bob.Sync(since, 0, "filter", limit)
	if got := topics(inRoom(plain, room, "state", "events")); !slices.Equal(got, []string{"second"}) {
		t.Errorf("the state at the timeline's start has the topics %q", got)
	}
	after := bob.Sync(since, 0, "filter", limit, "use_state_after", "true")
	if got := topics(inRoom(after, room, "state_after", "events")); !slices.Equal(got, []string{"third"}) || testserver.At(after, "rooms", "join", room, "state") != nil {
		t.Errorf("the state at the timeline's end has the topics %q: %v", got, after)
	}
	for _, body := range []object{plain, after} {
		if got := topics(testserver.Timeline(body, room)); !slices.Equal(got, []string{"third"}) {
			t.Errorf("the timeline has the topics %q", got)
		}
	}
	quiet := bob.Sync(token(after), 0, "use_state_after", "true")
	if testserver.At(quiet, "rooms") != nil {
		t.Errorf("nothing happened: %v", quiet)
	}
}

func rowFullState(t *testing.T, s *testserver.Server) {
	proof.Of(t, "SY-02", "SY-03")
	alice, bob, room := together(t, s)
	setter{alice, room}.topic("gardens")
	since := token(bob.Sync("", 0))
	began := time.Now()
	body := bob.Sync(since, 60_000, "full_state", "true")
	if got := topics(inRoom(body, room, "state", "events")); !slices.Equal(got, []string{"gardens"}) || time.Since(began) > 20*time.Second {
		t.Errorf("full state after %s: %v", time.Since(began), body)
	}
	if got := testserver.At(body, "rooms", "join", room, "timeline", "events"); len(testserver.Events(got)) != 0 {
		t.Errorf("full state repeats the timeline: %v", got)
	}
	for i := range 12 {
		alice.Say(room, fmt.Sprint(i))
	}
	body = bob.Sync(since, 60_000)
	line := testserver.At(body, "rooms", "join", room, "timeline")
	if testserver.At(line, "limited") != true || testserver.At(line, "prev_batch") == nil || len(testserver.Timeline(body, room)) != 10 {
		t.Errorf("12 messages: %v", line)
	}
	if body = bob.Sync(token(body), 0); body["next_batch"] == nil || testserver.At(body, "rooms") != nil {
		t.Errorf("without news and without a timeout: %v", body)
	}
}

func rowSections(t *testing.T, s *testserver.Server) {
	proof.Of(t, "SY-04", "E2-04")
	alice, bob, room := together(t, s)
	carol := s.Register(testserver.Unique("carol"))
	since := token(bob.Sync("", 0))
	invited := carol.CreateRoom(object{"preset": "private_chat", "invite": []string{bob.ID}})
	knocked := carol.CreateRoom(object{"preset": "private_chat", "initial_state": []object{{"type": "m.room.join_rules", "content": object{"join_rule": "knock"}}}})
	bob.Must("POST", testserver.Path("knock", knocked), object{})
	alice.Must("POST", testserver.Path("rooms", room, "kick"), object{"user_id": bob.ID})
	bob.Must("PUT", testserver.Path("user", bob.ID, "account_data", "org.example.mine"), object{"a": 1})
	alice.Must("PUT", "/sendToDevice/org.example.hello/"+testserver.Unique("txn"), object{"messages": object{bob.ID: object{"*": object{"b": 2}}}})
	body := bob.Sync(since, 10_000)
	for _, path := range [][]string{
		{"rooms", "invite", invited, "invite_state", "events"}, {"rooms", "knock", knocked, "knock_state", "events"},
		{"rooms", "leave", room, "timeline", "events"}, {"account_data", "events"}, {"to_device", "events"},
	} {
		if len(testserver.Events(testserver.At(body, path...))) == 0 {
			t.Errorf("there is nothing in %v: %v", path, body)
		}
	}
	if left, _ := testserver.At(body, "device_lists", "left").([]any); !slices.Contains(left, any(alice.ID)) {
		t.Errorf("whose devices need not be followed any more: %v", body["device_lists"])
	}
	if types, ok := body["device_unused_fallback_key_types"].([]any); !ok || len(types) != 0 {
		t.Errorf("fallback keys: %v", body["device_unused_fallback_key_types"])
	}
	mine := testserver.Events(testserver.At(body, "account_data", "events"))
	if len(mine) != 1 || mine[0]["type"] != "org.example.mine" {
		t.Errorf("account data: %v", mine)
	}
}

func rowSummary(t *testing.T, s *testserver.Server) {
	proof.Of(t, "SY-05")
	alice := s.Register(testserver.Unique("alice"))
	room := alice.CreateRoom(object{"preset": "public_chat"})
	var others []*testserver.User
	for range 7 {
		u := s.Register(testserver.Unique("member"))
		u.Join(room)
		others = append(others, u)
	}
	invited := s.Register(testserver.Unique("invited"))
	alice.Invite(room, invited.ID)
	body := alice.Sync("", 0)
	summary := testserver.At(body, "rooms", "join", room, "summary")
	heroes, _ := testserver.At(summary, "m.heroes").([]any)
	if len(heroes) != 5 || slices.Contains(heroes, any(alice.ID)) || testserver.At(summary, "m.joined_member_count") != float64(8) ||
		testserver.At(summary, "m.invited_member_count") != float64(1) {
		t.Errorf("the summary is %v", summary)
	}
	alice.Say(room, "nobody came or went")
	body = alice.Sync(token(body), 10_000)
	if got := testserver.At(body, "rooms", "join", room, "summary"); got != nil && len(got.(object)) != 0 {
		t.Errorf("a message changes the summary: %v", got)
	}
	others[0].Must("POST", testserver.Path("rooms", room, "leave"), object{})
	body = alice.Sync(token(body), 10_000)
	if got := testserver.At(body, "rooms", "join", room, "summary", "m.joined_member_count"); got != float64(7) {
		t.Errorf("after one left: %v", got)
	}
}

func rowOrder(t *testing.T, s *testserver.Server) {
	proof.Of(t, "SY-06")
	alice, bob, room := together(t, s)
	since := token(bob.Sync("", 0))
	var want []string
	for i := range 8 {
		sender := []*testserver.User{alice, bob}[i%2]
		want = append(want, fmt.Sprint(i))
		sender.Say(room, want[i])
	}
	if got := bodies(testserver.Timeline(bob.Sync(since, 10_000), room)); !slices.Equal(got, want) {
		t.Errorf("sync shows %q", got)
	}
}

func rowRooms(t *testing.T, s *testserver.Server) {
	proof.Of(t, "SY-07")
	alice, bob, room := together(t, s)
	setter{alice, room}.topic("gardens")
	for i := range 12 {
		alice.Say(room, fmt.Sprint(i))
	}
	carol := s.Register(testserver.Unique("carol"))
	since := token(carol.Sync("", 0))
	alice.Invite(room, carol.ID)
	carol.Join(room)
	body := carol.Sync(since, 10_000)
	if got := topics(inRoom(body, room, "state", "events")); !slices.Equal(got, []string{"gardens"}) || len(membersIn(inRoom(body, room, "state", "events"))) < 2 {
		t.Errorf("a room just joined comes with %v", inRoom(body, room, "state", "events"))
	}
	bob.Must("POST", testserver.Path("rooms", room, "leave"), object{})
	alice.Say(room, "not for bob")
	if body := bob.Sync("", 0); testserver.At(body, "rooms", "leave", room) != nil {
		t.Error("a room that was left is in a first sync")
	}
	withLeft := filterOf(t, object{"room": object{"include_leave": true}})
	body = bob.Sync("", 0, "filter", withLeft)
	events := testserver.Events(testserver.At(body, "rooms", "leave", room, "timeline", "events"))
	if len(events) == 0 || testserver.At(events[len(events)-1], "content", "membership") != "leave" || slices.Contains(bodies(events), "not for bob") {
		t.Errorf("a room that was left, asked for: %v", events)
	}
	bob.Must("POST", testserver.Path("rooms", room, "forget"), object{})
	if body = bob.Sync("", 0, "filter", withLeft); testserver.At(body, "rooms", "leave", room) != nil {
		t.Error("a forgotten room comes back")
	}
}

func rowStoredFilters(t *testing.T, s *testserver.Server) {
	proof.Of(t, "SY-10")
	alice, bob, room := together(t, s)
	filter := object{"room": object{"timeline": object{"limit": 3}}}
	id, _ := bob.Must("POST", testserver.Path("user", bob.ID, "filter"), filter).Body["filter_id"].(string)
	for i := range 6 {
		alice.Say(room, fmt.Sprint(i))
	}
	for _, given := range []string{id, filterOf(t, filter)} {
		if got := bodies(testserver.Timeline(bob.Sync("", 0, "filter", given), room)); !slices.Equal(got, []string{"3", "4", "5"}) {
			t.Errorf("filter %q shows %q", given, got)
		}
	}
	if strings.HasPrefix(id, "{") {
		t.Errorf("the filter's ID %q looks like a filter", id)
	}
	if got := bob.Must("GET", testserver.Path("user", bob.ID, "filter", id), nil).Body; testserver.At(got, "room", "timeline", "limit") != float64(3) {
		t.Errorf("the stored filter is %v", got)
	}
	alice.Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", "/sync?filter="+id, nil)
	alice.Refused(http.StatusForbidden, "M_FORBIDDEN", "GET", testserver.Path("user", bob.ID, "filter", id), nil)
}

func rowFilters(t *testing.T, s *testserver.Server) {
	proof.Of(t, "SY-11")
	alice, bob, room := together(t, s)
	elsewhere := alice.CreateRoom(object{"preset": "public_chat"})
	bob.Join(elsewhere)
	alice.Say(room, "text")
	alice.Send(room, "m.room.message", object{"msgtype": "m.image", "body": "picture", "url": "mxc://x/y"})
	alice.Send(room, "org.example.one", object{"body": "one"})
	bob.Say(room, "from bob")
	alice.Say(elsewhere, "elsewhere")
	bob.Must("PUT", testserver.Path("user", bob.ID, "account_data", "org.example.kept"), object{})
	bob.Must("PUT", testserver.Path("user", bob.ID, "rooms", room, "account_data", "org.example.kept"), object{})
	line := func(filter object) object { return object{"room": object{"timeline": filter, "rooms": []string{room}}} }
	for name, c := range map[string]struct {
		filter object
		want   []string
	}{
		"types":               {line(object{"types": []string{"m.room.mes*"}}), []string{"text", "picture", "from bob"}},
		"not types":           {line(object{"types": []string{"m.room.message", "org.*"}, "not_types": []string{"org.example.*"}}), []string{"text", "picture", "from bob"}},
		"senders":             {line(object{"types": []string{"m.room.message"}, "senders": []string{bob.ID}}), []string{"from bob"}},
		"not senders":         {line(object{"senders": []string{alice.ID, bob.ID}, "not_senders": []string{bob.ID}, "types": []string{"*.message"}}), []string{"text", "picture"}},
		"with a URL":          {line(object{"contains_url": true}), []string{"picture"}},
		"without a URL":       {line(object{"contains_url": false, "types": []string{"m.room.message"}}), []string{"text", "from bob"}},
		"not this room":       {object{"room": object{"not_rooms": []string{room}}}, nil},
		"rooms of a timeline": {object{"room": object{"timeline": object{"not_rooms": []string{room}}}}, nil},
	} {
		if got := bodies(testserver.Timeline(bob.Sync("", 0, "filter", filterOf(t, c.filter)), room)); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	none := []string{}
	body := bob.Sync("", 0, "filter", filterOf(t, object{
		"account_data": object{"types": []string{"org.example.*"}}, "presence": object{"types": none},
		"room": object{"state": object{"types": []string{"m.room.create"}}, "account_data": object{"types": none}, "ephemeral": object{"types": none}, "timeline": object{"limit": 1}},
	}))
	if got := inRoom(body, room, "state", "events"); len(got) != 1 || got[0]["type"] != "m.room.create" {
		t.Errorf("filtered state: %v", got)
	}
	if got := testserver.Events(testserver.At(body, "account_data", "events")); len(got) != 1 || got[0]["type"] != "org.example.kept" {
		t.Errorf("filtered account data: %v", got)
	}
	if got := testserver.At(body, "rooms", "join", room, "account_data"); got != nil {
		t.Errorf("filtered account data of a room: %v", got)
	}
	filterForms(t, bob, room)
}

// filterForms looks at what of events, and in which form, clients are given.
func filterForms(t *testing.T, bob *testserver.User, room string) {
	t.Helper()
	body := bob.Sync("", 0, "filter", filterOf(t, object{"event_fields": []string{"type", "content.body", `content.a\.b`, "content.none"}}))
	for _, e := range testserver.Timeline(body, room) {
		content, _ := e["content"].(object)
		if e["event_id"] != nil || e["type"] == nil || content["msgtype"] != nil || e["type"] == "m.room.message" && content["body"] == nil {
			t.Errorf("an event with chosen fields: %v", e)
		}
	}
	body = bob.Sync("", 0, "filter", `{"event_format":"federation"}`)
	events := testserver.Timeline(body, room)
	for _, e := range events {
		if e["auth_events"] == nil || e["hashes"] == nil || e["signatures"] == nil {
			t.Errorf("an event as servers exchange it: %v", e)
		}
	}
	if len(events) == 0 {
		t.Error("there is nothing in the timeline")
	}
	bob.Refused(http.StatusBadRequest, "M_INVALID_PARAM", "GET", `/sync?filter={"event_format":"none"}`, nil)
}

func rowLazy(t *testing.T, s *testserver.Server) {
	proof.Of(t, "SY-12")
	alice := s.Register(testserver.Unique("alice"))
	room := alice.CreateRoom(object{"preset": "public_chat"})
	var users []*testserver.User
	for range 8 {
		u := s.Register(testserver.Unique("lazy"))
		u.Join(room)
		users = append(users, u)
	}
	for i := range 12 {
		users[7].Say(room, fmt.Sprint(i))
	}
	lazy := filterOf(t, object{"room": object{"state": object{"lazy_load_members": true}, "timeline": object{"limit": 2}}})
	reader := users[6]
	body := reader.Sync("", 0, "filter", lazy)
	heroes, _ := testserver.At(body, "rooms", "join", room, "summary", "m.heroes").([]any)
	want := []string{reader.ID, users[7].ID}
	for _, hero := range heroes {
		if id := fmt.Sprint(hero); !slices.Contains(want, id) {
			want = append(want, id)
		}
	}
	slices.Sort(want)
	if got := membersIn(inRoom(body, room, "state", "events")); !slices.Equal(got, want) || len(want) >= 9 {
		t.Errorf("the members are %v, want the reader, the sender and the heroes: %v", got, want)
	}
	// Whoever changes in a gap is always told; so is the sender of what follows.
	users[0].Must("PUT", testserver.Path("profile", users[0].ID, "displayname"), object{"displayname": "New name"})
	for i := range 3 {
		users[1].Say(room, fmt.Sprint("again ", i))
	}
	body = reader.Sync(token(body), 10_000, "filter", lazy)
	if got := membersIn(inRoom(body, room, "state", "events")); !slices.Contains(got, users[0].ID) || !slices.Contains(got, users[1].ID) {
		t.Errorf("the members of a gap are %v", got)
	}
	page := reader.Must("GET", testserver.Path("rooms", room, "messages")+"?dir=b&limit=2&filter="+`{"lazy_load_members":true}`, nil).Body
	if got := membersIn(testserver.Events(page["state"])); !slices.Equal(got, []string{users[1].ID}) {
		t.Errorf("a page comes with the members %v", got)
	}
}

func rowIgnored(t *testing.T, s *testserver.Server) {
	proof.Of(t, "SY-13")
	alice, bob, room := together(t, s)
	carol := s.Register(testserver.Unique("carol"))
	alice.Invite(room, carol.ID)
	carol.Join(room)
	carol.Say(room, "before")
	since := token(bob.Sync("", 0))
	bob.Must("PUT", testserver.Path("user", bob.ID, "account_data", "m.ignored_user_list"), object{"ignored_users": object{carol.ID: object{}}})
	carol.Say(room, "ignored")
	carol.Must("PUT", testserver.Path("profile", carol.ID, "displayname"), object{"displayname": "Still Carol"})
	alice.Say(room, "heard")
	their := carol.CreateRoom(object{"preset": "private_chat", "invite": []string{bob.ID}})
	for _, from := range []string{since, ""} { // from memory, and from the database
		body := bob.Sync(from, 10_000)
		got := bodies(testserver.Timeline(body, room))
		if slices.Contains(got, "ignored") || !slices.Contains(got, "heard") || from == "" && slices.Contains(got, "before") {
			t.Errorf("from %q: %q", from, got)
		}
		renamed := false
		for _, e := range testserver.Timeline(body, room) {
			renamed = renamed || testserver.At(e, "content", "displayname") == "Still Carol"
		}
		if !renamed {
			t.Errorf("from %q: the state that ignored users set is missing", from)
		}
		if testserver.At(body, "rooms", "invite", their) != nil {
			t.Errorf("from %q: the invitation of an ignored user is shown", from)
		}
	}
	bob.Must("PUT", testserver.Path("user", bob.ID, "account_data", "m.ignored_user_list"), object{"ignored_users": object{}})
	body := bob.Sync("", 0)
	if got := bodies(testserver.Timeline(body, room)); !slices.Contains(got, "ignored") || testserver.At(body, "rooms", "invite", their) == nil {
		t.Errorf("after ignoring nobody: %q, %v", got, testserver.At(body, "rooms", "invite"))
	}
}

func rowBlocked(t *testing.T, s *testserver.Server) {
	proof.Of(t, "SY-14")
	alice, bob, _ := together(t, s)
	room := alice.CreateRoom(object{"preset": "private_chat", "invite": []string{bob.ID}})
	bob.Must("PUT", testserver.Path("user", bob.ID, "account_data", "m.invite_permission_config"), object{"default_action": "block"})
	if body := bob.Sync("", 0); testserver.At(body, "rooms", "invite", room) != nil {
		t.Error("an invitation is shown to somebody who wants none")
	}
	alice.Refused(http.StatusForbidden, "M_INVITE_BLOCKED", "POST", testserver.Path("rooms", alice.CreateRoom(object{}), "invite"), object{"user_id": bob.ID})
}
