package clientapi_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
)

// slidingWaiting shows that a wake without news for the client is no answer.
func slidingWaiting(t *testing.T, s *testserver.Server) {
	alice, bob, room := together(t, s)
	eve := s.Register(testserver.Unique("eve"))
	alice.Invite(room, eve.ID)
	eve.Join(room)
	other := alice.CreateRoom(object{"preset": "private_chat", "invite": []string{bob.ID}})
	bob.Join(other)
	bob.Must("PUT", testserver.Path("user", bob.ID, "account_data", "m.ignored_user_list"), object{"ignored_users": object{eve.ID: object{}}})
	alice.Say(room, "top")
	c := slides(bob, 0, 0, 5)
	c.next(0)
	answer := make(chan object, 1)
	go func() { answer <- c.next(60_000) }()
	setter{alice, other}.topic("outside the window")
	eve.Say(room, "ignored")
	bob.Must("PUT", testserver.Path("user", bob.ID, "account_data", "org.example.mine"), object{"not": "asked for"})
	alice.Say(room, "news")
	got := slidRoom(<-answer, room)
	if texts := bodies(testserver.Events(got["timeline"])); !slices.Equal(texts, []string{"news"}) {
		t.Errorf("the client was woken by %v", got)
	}
}

// slidingLostAnswers repeats requests: the same comes again, whatever was written meanwhile.
func slidingLostAnswers(t *testing.T, s *testserver.Server) {
	alice, bob, one := together(t, s)
	two := alice.CreateRoom(object{"preset": "private_chat", "invite": []string{bob.ID}})
	bob.Join(two)
	alice.Say(one, "1")
	c := slides(bob, 0, 0, 5)
	c.next(0)
	alice.Say(two, "2")
	lost := c.peek(10_000)
	again := c.peek(10_000)
	for _, body := range []object{lost, again} {
		if got := slidRoom(body, two); got["initial"] != true || !slices.Contains(bodies(testserver.Events(got["timeline"])), "2") {
			t.Errorf("an answer that may be lost: %v", got)
		}
	}
	c.pos, _ = again["pos"].(string)
	if body := c.next(0); body["rooms"] != nil {
		t.Errorf("after the answer that came: %v", body)
	}
}

func slidingBadRequests(t *testing.T, s *testserver.Server) {
	proof.Of(t, "A05")
	alice, bob, room := together(t, s)
	c := slides(bob, 0, 9, 5)
	c.next(0)
	first := c.pos
	bob.Refused(http.StatusBadRequest, "M_UNKNOWN_POS", "POST", slidingPath+"?pos=nonsense", c.body)
	bob.Refused(http.StatusBadRequest, "M_UNKNOWN_POS", "POST", slidingPath+"?pos=p1_"+strings.SplitN(first, "_", 2)[1], c.body)
	bob.Refused(http.StatusBadRequest, "M_UNKNOWN_POS", "POST", slidingPath+"?pos="+first+"x", c.body)
	alice.Refused(http.StatusBadRequest, "M_UNKNOWN_POS", "POST", slidingPath+"?pos="+first, c.body)
	for i := range 3 { // a set of rooms that changes again and again: the last two states are kept
		bob.Join(alice.CreateRoom(object{"preset": "public_chat", "name": fmt.Sprint(i)}))
		c.next(10_000)
	}
	bob.Refused(http.StatusBadRequest, "M_UNKNOWN_POS", "POST", slidingPath+"?pos="+first, c.body)
	c.pos = ""
	if body := c.next(0); slidRoom(body, room)["initial"] != true {
		t.Errorf("a new beginning: %v", body)
	}
	for i := range 40 { // more connections than a device may have
		other := slides(bob, 0, 0, 1)
		other.body["conn_id"] = fmt.Sprint(i)
		other.next(0)
	}
	bob.Refused(http.StatusBadRequest, "M_UNKNOWN_POS", "POST", slidingPath+"?pos="+c.pos, c.body)
	many := make([]object, 0, 101)
	lists := object{}
	for i := range 101 {
		lists[fmt.Sprint(i)] = object{"timeline_limit": 1}
		many = append(many, object{})
	}
	for name, body := range map[string]object{
		"lists": {"lists": lists}, "conn_id": {"conn_id": strings.Repeat("x", 65)}, "NUL": {"conn_id": "a\x00"},
		"range": {"lists": object{"a": object{"ranges": [][]int{{3}}}}}, "backwards": {"lists": object{"a": object{"ranges": [][]int{{3, 1}}}}},
		"negative": {"lists": object{"a": object{"ranges": [][]int{{-1, 1}}}}}, "null": {"lists": object{"a": nil}},
		"state": {"lists": object{"a": object{"required_state": [][]string{{"m.room.name"}}}}}, "filter": {"lists": object{"a": object{"filters": object{"tags": many}}}},
		"subscription": {"room_subscriptions": object{room: nil}}, "since": {"extensions": object{"to_device": object{"enabled": true, "since": "x"}}},
	} {
		a, err := bob.Do("POST", slidingPath, body)
		if err != nil || a.Status != http.StatusBadRequest || a.Body["errcode"] == nil || a.Body["error"] == "" {
			t.Errorf("%s: %v %d %s", name, err, a.Status, a.Raw)
		}
	}
	// What nobody sees is no news: rooms that do not exist or are others'.
	secret := alice.CreateRoom(object{"preset": "private_chat"})
	c = &slider{User: bob, body: object{"room_subscriptions": object{secret: object{"timeline_limit": 5}, "!none:nowhere.test": object{"timeline_limit": 5}}}}
	if body := c.next(0); body["rooms"] != nil {
		t.Errorf("somebody else's room: %v", body)
	}
}

func slidingNames(t *testing.T, s *testserver.Server) {
	alice, bob, room := together(t, s)
	bob.Must("PUT", testserver.Path("profile", bob.ID, "displayname"), object{"displayname": "Robert"})
	c := slides(alice, 0, 9, 1)
	got := slidRoom(c.next(0), room)
	heroes := testserver.Events(got["heroes"])
	if _, named := got["name"]; named || len(heroes) != 1 || heroes[0]["user_id"] != bob.ID || heroes[0]["displayname"] != "Robert" {
		t.Errorf("a room without a name: %v", got)
	}
	set := func(typ string, content object) {
		alice.Must("PUT", testserver.Path("rooms", room, "state", typ, ""), content)
	}
	set("m.room.name", object{"name": "Plans"})
	set("m.room.avatar", object{"url": "mxc://x/y"})
	if got = slidRoom(c.next(10_000), room); got["name"] != "Plans" || got["avatar"] != "mxc://x/y" || got["heroes"] != nil || got["joined_count"] != nil {
		t.Errorf("a room that was named: %v", got)
	}
	other := slides(alice, 0, 9, 1)
	other.body["conn_id"] = "other"
	if got = slidRoom(other.next(0), room); got["name"] != "Plans" || got["heroes"] != nil {
		t.Errorf("a room with a name: %v", got)
	}
	set("m.room.name", object{})
	got = slidRoom(c.next(10_000), room)
	if name, told := got["name"]; !told || name != nil || len(testserver.Events(got["heroes"])) != 1 {
		t.Errorf("a room whose name was taken: %v", got)
	}
	bob.Must("POST", testserver.Path("rooms", room, "leave"), object{})
	if got = slidRoom(c.next(10_000), room); got["joined_count"] != float64(1) || got["invited_count"] != float64(0) {
		t.Errorf("after one left: %v", got)
	}
}

func slidingSubscriptions(t *testing.T, s *testserver.Server) {
	alice, bob, one := together(t, s)
	two := alice.CreateRoom(object{"preset": "private_chat", "invite": []string{bob.ID}})
	bob.Join(two)
	for i := range 3 {
		alice.Say(one, fmt.Sprint(i))
	}
	alice.Say(two, "top")
	c := slides(bob, 0, 0, 1, [2]string{"m.room.create", ""})
	c.body["room_subscriptions"] = object{one: object{"timeline_limit": 3, "required_state": [][2]string{{"m.room.join_rules", ""}}}}
	body := c.next(0)
	if got := slidRoom(body, one); !slices.Equal(bodies(testserver.Events(got["timeline"])), []string{"0", "1", "2"}) || !slices.Equal(slidTypes(got), []string{"m.room.join_rules|"}) {
		t.Errorf("a room that is subscribed to: %v", got)
	}
	c.body["room_subscriptions"] = object{two: object{"timeline_limit": 2, "required_state": [][2]string{{"m.room.join_rules", ""}}}}
	got := slidRoom(c.next(10_000), two)
	if !slices.Equal(slidTypes(got), []string{"m.room.join_rules|"}) || got["unstable_expanded_timeline"] != true || len(testserver.Events(got["timeline"])) != 2 {
		t.Errorf("a room of the list that is subscribed to as well: %v", got)
	}
	setter{alice, one}.topic("nobody asks")
	if body := c.next(0); body["rooms"] != nil {
		t.Errorf("a room that is subscribed to no more: %v", body)
	}
}

func slidingUnread(t *testing.T, s *testserver.Server) {
	alice, bob, room := together(t, s)
	alice.Say(room, "one")
	last := alice.Say(room, "two")
	c := slides(bob, 0, 9, 5)
	if got := slidRoom(c.next(0), room); got["notification_count"] != float64(2) || got["highlight_count"] != float64(0) {
		t.Errorf("unread at first: %v", got)
	}
	bob.Must("POST", testserver.Path("rooms", room, "receipt", "m.read", last), object{})
	if got := slidRoom(c.next(10_000), room); got["notification_count"] != float64(0) || got["timeline"] != nil {
		t.Errorf("after reading elsewhere: %v", got)
	}
	alice.Must("POST", testserver.Path("rooms", room, "receipt", "m.read", last), object{})
	if body := c.next(0); body["rooms"] != nil {
		t.Errorf("what others have read changes nothing: %v", body)
	}
}

func slidingToDevice(t *testing.T, s *testserver.Server) {
	proof.Of(t, "E2-11")
	alice, bob := s.Register(testserver.Unique("alice")), s.Register(testserver.Unique("bob"))
	send := func(text string) {
		alice.Must("PUT", "/sendToDevice/org.example.hello/"+testserver.Unique("txn"), object{"messages": object{bob.ID: object{bob.Device: object{"text": text}}}})
	}
	texts := func(body object) (list []string) {
		for _, e := range testserver.Events(testserver.At(body, "extensions", "to_device", "events")) {
			list = append(list, fmt.Sprint(testserver.At(e, "content", "text")))
		}
		return list
	}
	ask := object{"enabled": true}
	c := &slider{User: bob, body: object{"conn_id": "encryption", "extensions": object{"to_device": ask, "e2ee": object{"enabled": true}}}}
	send("one")
	first := c.next(0)
	if got := texts(first); !slices.Equal(got, []string{"one"}) {
		t.Errorf("at first: %q", got)
	}
	if counts := testserver.At(first, "extensions", "e2ee"); testserver.At(counts, "device_unused_fallback_key_types") == nil {
		t.Errorf("keys: %v", counts)
	}
	since, _ := testserver.At(first, "extensions", "to_device", "next_batch").(string)
	ask["since"] = since
	send("two")
	for range 2 { // the answer is lost once
		if got := texts(c.peek(10_000)); !slices.Equal(got, []string{"two"}) {
			t.Errorf("the next: %q", got)
		}
	}
	// Without its token a client gets what it has not acknowledged: the first message is gone.
	fresh := &slider{User: bob, body: object{"conn_id": "other", "extensions": object{"to_device": object{"enabled": true, "limit": 1}}}}
	if got := texts(fresh.next(0)); !slices.Equal(got, []string{"two"}) {
		t.Errorf("what waits: %q", got)
	}
	send("three")
	send("four")
	for _, want := range []string{"three", "four"} { // by its position alone, one at a time
		if got := texts(fresh.next(10_000)); !slices.Equal(got, []string{want}) {
			t.Errorf("what came then: %q, want %q", got, want)
		}
	}
	room := alice.CreateRoom(object{"preset": "private_chat", "invite": []string{bob.ID}})
	bob.Join(room)
	bob.SyncUntil("", "the room", func(object) bool { return true })
	c.pos = ""
	delete(ask, "since")
	c.next(0)
	alice.Must("POST", "/keys/upload", object{"one_time_keys": object{}})
	carol := s.Register(testserver.Unique("carol"))
	alice.Invite(room, carol.ID)
	carol.Join(room)
	body := c.next(10_000)
	if changed, _ := testserver.At(body, "extensions", "e2ee", "device_lists", "changed").([]any); !slices.Contains(changed, any(carol.ID)) {
		t.Errorf("whose devices are to be followed: %v", body["extensions"])
	}
}

func slidingExtensionRooms(t *testing.T, s *testserver.Server) {
	alice, bob, one := together(t, s)
	two := alice.CreateRoom(object{"preset": "private_chat", "invite": []string{bob.ID}})
	bob.Join(two)
	id := alice.Say(one, "read this")
	bob.Must("PUT", testserver.Path("user", bob.ID, "account_data", "org.example.mine"), object{"a": 1})
	for _, room := range []string{one, two} {
		bob.Must("PUT", testserver.Path("user", bob.ID, "rooms", room, "account_data", "org.example.here"), object{"b": 2})
	}
	alice.Must("POST", testserver.Path("rooms", one, "receipt", "m.read", id), object{})
	alice.Must("PUT", testserver.Path("rooms", one, "typing", alice.ID), object{"typing": true, "timeout": 30_000})
	on := object{"enabled": true}
	c := slides(bob, 0, 0, 1)
	c.body["extensions"] = object{"account_data": on, "receipts": on, "typing": on}
	ext := c.next(0)["extensions"]
	global := testserver.Events(testserver.At(ext, "account_data", "global"))
	if !slices.ContainsFunc(global, func(e object) bool { return e["type"] == "org.example.mine" }) {
		t.Errorf("global data: %v", global)
	}
	if len(testserver.Events(testserver.At(ext, "account_data", "rooms", one))) != 1 || testserver.At(ext, "account_data", "rooms", two) != nil {
		t.Errorf("data of rooms: %v", testserver.At(ext, "account_data", "rooms"))
	}
	if testserver.At(ext, "receipts", "rooms", one, "content", id, "m.read", alice.ID) == nil {
		t.Errorf("receipts: %v", testserver.At(ext, "receipts"))
	}
	if users, _ := testserver.At(ext, "typing", "rooms", one, "content", "user_ids").([]any); len(users) != 1 {
		t.Errorf("typing: %v", testserver.At(ext, "typing"))
	}
	alice.Must("PUT", testserver.Path("rooms", one, "typing", alice.ID), object{"typing": false})
	body := c.next(10_000)
	if users, told := testserver.At(body, "extensions", "typing", "rooms", one, "content", "user_ids").([]any); !told || len(users) != 0 || body["rooms"] != nil {
		t.Errorf("nobody types any more: %v", body)
	}
	bob.Must("PUT", testserver.Path("user", bob.ID, "rooms", one, "account_data", "org.example.more"), object{"c": 3})
	body = c.next(10_000)
	if events := testserver.Events(testserver.At(body, "extensions", "account_data", "rooms", one)); len(events) != 1 || events[0]["type"] != "org.example.more" {
		t.Errorf("new data of a room: %v", body)
	}
	for name, x := range map[string]struct {
		lists, rooms any
		want         bool
	}{
		"no lists": {[]string{}, nil, false}, "this list": {[]string{"all"}, nil, true}, "another list": {[]string{"other"}, []string{}, false},
		"this room": {[]string{}, []string{one}, true}, "any subscription": {[]string{}, []string{"*"}, false}, "any list": {[]string{"*"}, nil, true},
	} {
		ask := object{"enabled": true, "lists": x.lists}
		if x.rooms != nil {
			ask["rooms"] = x.rooms
		}
		c := slides(bob, 0, 0, 1)
		c.body["conn_id"], c.body["extensions"] = "choice", object{"account_data": ask}
		if got := testserver.At(c.next(0), "extensions", "account_data", "rooms", one) != nil; got != x.want {
			t.Errorf("%s: data of the room: %v", name, got)
		}
	}
}

// slidingLateExtensions asks for extensions after rooms were told of: what went by then comes.
func slidingLateExtensions(t *testing.T, s *testserver.Server) {
	alice, bob, room := together(t, s)
	id := alice.Say(room, "read this")
	alice.Must("POST", testserver.Path("rooms", room, "receipt", "m.read", id), object{})
	bob.Must("PUT", testserver.Path("user", bob.ID, "account_data", "org.example.mine"), object{"a": 1})
	c := slides(bob, 0, 9, 1)
	c.next(0)
	on := object{"enabled": true}
	c.body["extensions"] = object{"account_data": on, "receipts": on}
	ext := c.next(10_000)["extensions"]
	if testserver.At(ext, "receipts", "rooms", room, "content", id) == nil || len(testserver.Events(testserver.At(ext, "account_data", "global"))) == 0 {
		t.Errorf("extensions that are asked for later: %v", ext)
	}
	if ext, _ := c.next(0)["extensions"].(object); len(ext) != 0 {
		t.Errorf("they come again: %v", ext)
	}
}

// slidingKeysPaused switches the extension for encryption off and on again: nobody's new devices are lost meanwhile.
func slidingKeysPaused(t *testing.T, s *testserver.Server) {
	proof.Of(t, "E2-05")
	alice, bob, room := together(t, s)
	changed := func(body object) []string {
		return names(testserver.At(body, "extensions", "e2ee", "device_lists", "changed"))
	}
	on := object{"e2ee": object{"enabled": true}}
	c := slides(bob, 0, 9, 1)
	c.body["extensions"] = on
	c.next(0)
	for _, way := range []string{"in the middle", "from the beginning"} {
		c.body["extensions"] = object{}
		if way == "from the beginning" {
			c.pos = ""
			c.next(0)
		}
		publish(t, s.Login(alice.ID))
		for i := range 2 { // the answer after the change says nothing of it, nor does the next
			alice.Say(room, fmt.Sprint(i))
			if got := changed(c.next(10_000)); got != nil {
				t.Errorf("%s: it is switched off, and tells of %v", way, got)
			}
		}
		c.body["extensions"] = on
		if got := changed(c.next(0)); !slices.Contains(got, alice.ID) {
			t.Errorf("%s: of the device that came meanwhile is told %v", way, got)
		}
		if got := changed(c.next(0)); got != nil {
			t.Errorf("%s: it is told again: %v", way, got)
		}
	}
}

// slidingRestart goes on with a connection after the server was started anew: its state is in the database. It is the last.
func slidingRestart(t *testing.T, s *testserver.Server) {
	alice, bob, room := together(t, s)
	other := alice.CreateRoom(object{"preset": "private_chat", "invite": []string{bob.ID}})
	bob.Join(other)
	alice.Say(room, "before")
	c := slides(bob, 0, 0, 5)
	c.next(0)
	http.DefaultClient.CloseIdleConnections() // a server that drains gives unused ones some seconds
	s.Stop()
	s.Start()
	alice.Say(room, "after")
	body := c.next(10_000)
	got := slidRoom(body, room)
	if texts := bodies(testserver.Events(got["timeline"])); got["initial"] != nil || !slices.Equal(texts, []string{"after"}) || slidRoom(body, other) != nil {
		t.Errorf("after a restart: %v", body)
	}
	answer := make(chan *testserver.Answer, 1)
	go func() {
		a, err := bob.Do("POST", c.at(60_000), c.body)
		if err != nil {
			a = &testserver.Answer{}
		}
		answer <- a
	}()
	bob2 := s.Login(strings.TrimPrefix(strings.Split(bob.ID, ":")[0], "@"))
	began := time.Now()
	bob2.Must("POST", "/logout/all", object{})
	if a := <-answer; a.Status != http.StatusUnauthorized || time.Since(began) > 30*time.Second {
		t.Errorf("the session ended: %d %s after %s", a.Status, a.Raw, time.Since(began))
	}
}

// slidingManyRooms opens more rooms than one answer shows: the next shows the rest, and a message in one of them is one room.
func slidingManyRooms(t *testing.T, s *testserver.Server) {
	alice, bob := s.Register(testserver.Unique("alice")), s.Register(testserver.Unique("bob"))
	shared := alice.CreateRoom(object{"preset": "public_chat"})
	bob.Join(shared)
	const rooms = 205
	var made sync.WaitGroup
	for part := range 5 {
		made.Go(func() {
			for range (rooms - 1 + part) / 5 {
				if a, err := alice.Do("POST", "/createRoom", object{"preset": "private_chat"}); err != nil || a.Status != http.StatusOK {
					t.Errorf("a room was not made: %v %v", err, a)
				}
			}
		})
	}
	made.Wait()
	c := slides(alice, 0, 999, 1)
	known := map[string]bool{}
	for i, want := range []int{200, 5, 0} {
		body := c.next(0)
		got, _ := body["rooms"].(object)
		if len(got) != want || testserver.At(body, "lists", "all", "count") != float64(rooms) {
			t.Errorf("answer %d has %d rooms, want %d, of %v", i, len(got), want, testserver.At(body, "lists", "all", "count"))
		}
		for id := range got {
			if known[id] || slidRoom(body, id)["initial"] != true {
				t.Errorf("room %s comes again", id)
			}
			known[id] = true
		}
	}
	bob.Say(shared, "one message")
	body := c.next(10_000)
	if got, _ := body["rooms"].(object); len(got) != 1 || slidRoom(body, shared) == nil || slidOrder(body)[0] != shared {
		t.Errorf("one message in one of many rooms: %v", body)
	}
}
