package clientapi_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/wait"
)

func TestSearch(t *testing.T) {
	t.Parallel() // it mostly waits
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		t.Run("all at once", func(t *testing.T) { // each mostly waits for the index
			for name, test := range map[string]func(*testing.T, *testserver.Server){
				"keys": searchKeys, "order": searchOrder, "pages": searchPages, "context": searchContext, "filters": searchFilters,
				"visible": searchVisible, "encrypted": searchEncrypted, "changes": searchChanges, "refusals": searchRefusals,
			} {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					proof.Of(t, "EV-14")
					test(t, s)
				})
			}
		})
		s.Stop()
		if out, ok := s.Run("verify", "-full"); !ok {
			t.Errorf("the database is not sound: %s", out)
		}
	})
}

// found is what a search for events is answered.
func found(u *testserver.User, term string, more ...any) object {
	criteria := object{"search_term": term}
	query := ""
	for i := 0; i+1 < len(more); i += 2 {
		if more[i] == "next_batch" {
			query = "?next_batch=" + more[i+1].(string)
			continue
		}
		criteria[more[i].(string)] = more[i+1]
	}
	body := u.Must("POST", "/search"+query, object{"search_categories": object{"room_events": criteria}}).Body
	answer, _ := testserver.At(body, "search_categories", "room_events").(object)
	return answer
}

// hits are the IDs of the events of an answer, in its order.
func hits(answer object) []string {
	var out []string
	for _, r := range testserver.Events(answer["results"]) {
		id, _ := testserver.At(r, "result", "event_id").(string)
		out = append(out, id)
	}
	return out
}

// indexed waits until an event can be found by a word, and with it what was sent before.
func indexed(t *testing.T, u *testserver.User, word, id string) {
	t.Helper()
	wait.Until(t, word+" to be found", func() bool { return slices.Contains(hits(found(u, word)), id) })
}

// mark sends a message that nothing else is like, and waits until it is indexed.
func mark(t *testing.T, u *testserver.User, room string) {
	t.Helper()
	word := testserver.Unique("mark")
	indexed(t, u, word, u.Say(room, word))
}

func same(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: found %v, want %v", what, got, want)
	}
}

func searchKeys(t *testing.T, s *testserver.Server) {
	alice, bob, room := together(t, s)
	body := alice.Say(room, "The quick, brown FOX (ümlaut-case) 東京タワー v2.5!")
	alice.Send(room, "org.example.other", object{"body": "fox"})
	name := alice.Must("PUT", is(room, "state", "m.room.name", ""), object{"name": "Foxes of the north"}).Body["event_id"].(string)
	topic := alice.Must("PUT", is(room, "state", "m.room.topic", ""), object{
		"topic": "about the fox", "m.topic": object{"m.text": []object{{"body": "<b>vulpes</b>", "mimetype": "text/html"}, {"body": "canidae"}}},
	}).Body["event_id"].(string)
	mark(t, alice, room)
	for _, u := range []*testserver.User{alice, bob} {
		for _, term := range []string{"fox", "FOX brown", "fox, the Quick!", "ÜMLAUT", "case", "東京", "2 v"} {
			if got := hits(found(u, term, "keys", []string{"content.body"})); !slices.Equal(got, []string{body}) && term != "2 v" {
				t.Errorf("%q finds %v, want %s", term, got, body)
			}
		}
		same(t, "fox", hits(found(u, "fox", "order_by", "recent")), topic, body)
		same(t, "fox as a topic", hits(found(u, "fox", "keys", []string{"content.topic"})), topic)
		same(t, "a topic's plain form", hits(found(u, "canidae")), topic)
		same(t, "a topic's other form", hits(found(u, "vulpes")))
		same(t, "foxes", hits(found(u, "Foxes")), name)
		same(t, "foxes in messages", hits(found(u, "foxes", "keys", []string{"content.body"})))
		same(t, "not all words", hits(found(u, "fox hound")))
		same(t, "nothing", hits(found(u, "!?")))
		same(t, "the index's own words", hits(found(u, "room")))
		same(t, "operators", hits(found(u, `quick OR nothing`)))
	}
	answer := found(alice, "Fox, brown")
	if fmt.Sprint(answer["highlights"]) != "[fox brown]" || answer["count"] != 1.0 {
		t.Errorf("the answer is %v", answer)
	}
	if got := alice.Must("POST", "/search", object{"search_categories": object{}}).Body; testserver.At(got, "search_categories", "room_events") != nil {
		t.Errorf("a search for nothing is answered %v", got)
	}
}

func searchOrder(t *testing.T, s *testserver.Server) {
	alice, _, room := together(t, s)
	much := alice.Say(room, "apple apple apple")
	little := alice.Say(room, "an apple among very many other words of all kinds that say nothing of it at all")
	some := alice.Say(room, "apple pie with an apple")
	mark(t, alice, room)
	same(t, "by rank", hits(found(alice, "apple")), much, some, little)
	same(t, "by rank, when said", hits(found(alice, "apple", "order_by", "rank")), much, some, little)
	same(t, "by time", hits(found(alice, "apple", "order_by", "recent")), some, little, much)
	last := 1e9
	for _, r := range testserver.Events(found(alice, "apple")["results"]) {
		rank, _ := r["rank"].(float64)
		if rank <= 0 || rank >= last {
			t.Errorf("the ranks are not falling: %v after %v", rank, last)
		}
		last = rank
	}
}

func searchPages(t *testing.T, s *testserver.Server) {
	alice, bob, room := together(t, s)
	other := bob.CreateRoom(object{"invite": []string{alice.ID}})
	alice.Join(other)
	var all, ofBob, ofRoom []string
	for i := range 7 {
		u, in := alice, room
		if i%2 == 0 {
			u = bob
		}
		if i%3 == 0 {
			in = other
		}
		id := u.Say(in, "pear")
		all = append([]string{id}, all...)
		if u == bob {
			ofBob = append([]string{id}, ofBob...)
		}
		if in == room {
			ofRoom = append([]string{id}, ofRoom...)
		}
	}
	mark(t, alice, room)
	groupings := object{"group_by": []object{{"key": "room_id"}, {"key": "sender"}}}
	for _, order := range []string{"recent", "rank"} {
		walk := func(token string, begun []string, next func(object) any) []string {
			got := begun
			for token != "" {
				answer := found(alice, "pear", "order_by", order, "filter", object{"limit": 2}, "groupings", groupings, "next_batch", token)
				if n := len(hits(answer)); n > 2 {
					t.Errorf("a page has %d results", n)
				}
				got = append(got, hits(answer)...)
				token, _ = next(answer).(string)
			}
			return got
		}
		first := found(alice, "pear", "order_by", order, "filter", object{"limit": 2}, "groupings", groupings)
		if first["count"].(float64) < 3 {
			t.Errorf("the count is %v", first["count"])
		}
		same(t, order, walk(token(first), hits(first), func(a object) any { return a["next_batch"] }), all...)
		group := func(a object, key, value string) any { return testserver.At(a, "groups", key, value) }
		for key, want := range map[string][]string{"sender " + bob.ID: ofBob, "room_id " + room: ofRoom} {
			kind, value, _ := strings.Cut(key, " ")
			g := group(first, kind, value)
			var begun []string
			for _, id := range g.(object)["results"].([]any) {
				begun = append(begun, id.(string))
			}
			same(t, order+" "+key, walk(testserver.At(g, "next_batch").(string), begun, func(a object) any {
				return testserver.At(group(a, kind, value), "next_batch")
			}), want...)
		}
	}
}

func searchContext(t *testing.T, s *testserver.Server) {
	alice, bob, room := together(t, s)
	alice.Must("PUT", is(room, "state", "m.room.member", alice.ID), object{"membership": "join", "displayname": "Al"})
	for i := range 4 {
		alice.Say(room, fmt.Sprint("before ", i))
	}
	plum := bob.Say(room, "plum")
	for i := range 4 {
		alice.Say(room, fmt.Sprint("after ", i))
	}
	alice.Send(room, "m.room.message", relate("m.thread", plum, "x"))
	mark(t, alice, room)
	alice.Must("PUT", is(room, "state", "m.room.member", alice.ID), object{"membership": "join", "displayname": "Another"})
	answer := found(alice, "plum", "event_context", object{"before_limit": 2, "after_limit": 3, "include_profile": true}, "include_state", true)
	results := testserver.Events(answer["results"])
	if len(results) != 1 {
		t.Fatalf("found %v", answer)
	}
	around := results[0]["context"]
	before, after := bodies(testserver.Events(testserver.At(around, "events_before"))), bodies(testserver.Events(testserver.At(around, "events_after")))
	if fmt.Sprint(before, after) != "[before 3 before 2] [after 0 after 1 after 2]" {
		t.Errorf("around it stand %v and %v", before, after)
	}
	if testserver.At(around, "profile_info", alice.ID, "displayname") != "Al" || testserver.At(around, "profile_info", bob.ID) == nil {
		t.Errorf("the profiles are %v", testserver.At(around, "profile_info"))
	}
	if testserver.At(results[0], "result", "unsigned", "m.relations", "m.thread", "count") != 1.0 {
		t.Errorf("the result is %v", results[0])
	}
	start, _ := testserver.At(around, "start").(string)
	page := alice.Must("GET", is(room, "messages")+"?dir=b&limit=1&from="+start, nil).Body
	if got := bodies(testserver.Events(page["chunk"])); fmt.Sprint(got) != "[before 1]" {
		t.Errorf("before the context stand %v", got)
	}
	names := 0
	for _, e := range testserver.Events(testserver.At(answer, "state", room)) {
		if e["state_key"] == alice.ID && testserver.At(e, "content", "displayname") == "Another" {
			names++
		}
	}
	if names != 1 {
		t.Errorf("the state is %v", answer["state"])
	}
}

func searchFilters(t *testing.T, s *testserver.Server) {
	alice, bob, room := together(t, s)
	other := alice.CreateRoom(object{"topic": "quince"})
	mine, theirs := alice.Say(room, "quince"), bob.Say(room, "quince")
	there := alice.Say(other, "quince")
	mark(t, alice, other)
	for what, c := range map[string]struct {
		filter object
		want   []string
	}{
		"a room":        {object{"rooms": []string{room}}, []string{theirs, mine}},
		"not a room":    {object{"not_rooms": []string{other}}, []string{theirs, mine}},
		"no room":       {object{"rooms": []string{}}, nil},
		"a sender":      {object{"senders": []string{bob.ID}}, []string{theirs}},
		"not a sender":  {object{"not_senders": []string{bob.ID}, "types": []string{"m.room.message"}}, []string{there, mine}},
		"no one known":  {object{"senders": []string{"@nobody:nowhere.test"}}, nil},
		"another type":  {object{"types": []string{"m.room.topic"}, "rooms": []string{room}}, nil},
		"not this type": {object{"not_types": []string{"m.room.t*"}}, []string{there, theirs, mine}},
		"with a link":   {object{"contains_url": true}, nil},
		"a limit":       {object{"limit": 1, "types": []string{"m.room.message"}}, []string{there}},
	} {
		same(t, what, hits(found(alice, "quince", "order_by", "recent", "filter", c.filter)), c.want...)
	}
	bob.Must("PUT", testserver.Path("user", bob.ID, "account_data", "m.ignored_user_list"), object{"ignored_users": object{alice.ID: object{}}})
	same(t, "without the ignored", hits(found(bob, "quince")), theirs)
}

// searchVisible: nothing is found that one may not read, by whatever is told of it.
func searchVisible(t *testing.T, s *testserver.Server) {
	proof.Of(t, "A02")
	alice, bob, room := together(t, s)
	joined := alice.CreateRoom(object{"initial_state": []object{
		{"type": "m.room.history_visibility", "content": object{"history_visibility": "joined"}},
	}})
	alice.Say(joined, "melon early")
	alice.Invite(joined, bob.ID)
	bob.Join(joined)
	seen := alice.Say(joined, "melon seen")
	edited := alice.Say(room, "melon original")
	bob.Must("POST", is(room, "leave"), object{})
	alice.Say(room, "melon late")
	alice.Send(room, "m.room.message", relate("m.replace", edited, "melon hidden"))
	stranger := s.Register(testserver.Unique("stranger"))
	invited := s.Register(testserver.Unique("invited"))
	alice.Invite(room, invited.ID)
	mark(t, alice, room)
	answer := found(bob, "melon", "order_by", "recent", "groupings", object{"group_by": []object{{"key": "room_id"}}})
	same(t, "whoever joined and left", hits(answer), seen)
	if answer["count"] != 1.0 || answer["next_batch"] != nil || len(answer["groups"].(object)["room_id"].(object)) != 1 {
		t.Errorf("what is hidden is counted: %v", answer)
	}
	same(t, "words of an edit that is hidden", hits(found(bob, "hidden")))
	same(t, "whoever sees all", hits(found(alice, "hidden")), edited)
	same(t, "a stranger", hits(found(stranger, "melon")))
	same(t, "somebody invited", hits(found(invited, "melon")))
	bob.Must("POST", is(joined, "leave"), object{})
	same(t, "after leaving", hits(found(bob, "melon")), seen)
	bob.Must("POST", is(joined, "forget"), object{})
	same(t, "after forgetting", hits(found(bob, "melon")))
}

func searchEncrypted(t *testing.T, s *testserver.Server) {
	alice, _, room := together(t, s)
	clear := alice.Say(room, "grape clear")
	alice.Must("PUT", is(room, "state", "m.room.encryption", ""), object{"algorithm": "im.conclave.group.v1"})
	alice.Send(room, "m.room.encrypted", object{"algorithm": "im.conclave.group.v1", "ciphertext": "grape", "body": "grape"})
	alice.Say(room, "grape in spite of it")
	alice.Must("PUT", is(room, "state", "m.room.name", ""), object{"name": "grape"})
	mark(t, alice, alice.CreateRoom(object{}))
	same(t, "grape", hits(found(alice, "grape")), clear)
}

// searchChanges: what was edited is found as it is now, and what was redacted not at all, from the moment of the redaction on.
func searchChanges(t *testing.T, s *testserver.Server) {
	alice, bob, room := together(t, s)
	id := alice.Say(room, "cherry")
	gone := alice.Say(room, "cherry gone")
	bob.Send(room, "m.room.message", relate("m.replace", id, "cherry bob"))
	indexed(t, alice, "cherry", id)
	edit := alice.Send(room, "m.room.message", relate("m.replace", id, "damson"))
	indexed(t, bob, "damson", id)
	same(t, "the old word", hits(found(bob, "cherry")), gone)
	same(t, "an edit of another", hits(found(bob, "bob")))
	if result := testserver.Events(found(bob, "damson")["results"])[0]["result"]; testserver.At(result, "unsigned", "m.relations", "m.replace", "event_id") != edit {
		t.Errorf("the edited event is %v", result)
	}
	redact := func(id string) {
		t.Helper()
		alice.Must("PUT", is(room, "redact", id, testserver.Unique("t")), object{})
	}
	redact(gone)
	same(t, "at once after the redaction", hits(found(bob, "cherry")))
	redact(edit)
	same(t, "at once after the edit's redaction", hits(found(bob, "damson")))
	indexed(t, bob, "cherry", id)
	redact(id)
	same(t, "at once after all", hits(found(bob, "cherry")))
	mark(t, alice, room)
}

func searchRefusals(t *testing.T, s *testserver.Server) {
	alice := s.Register(testserver.Unique("alice"))
	events := func(criteria object) object { return object{"search_categories": object{"room_events": criteria}} }
	alice.Refused(http.StatusBadRequest, "M_MISSING_PARAM", "POST", "/search", events(object{}))
	for _, bad := range []object{
		{"search_term": strings.Repeat("x", 1001)}, {"search_term": strings.Repeat("x ", 3) + "a b c d e f g h i j k l m"}, {"search_term": "x", "keys": []string{"content.secret"}},
		{"search_term": "x", "order_by": "size"}, {"search_term": "x", "groupings": object{"group_by": []object{{"key": "type"}}}},
		{"search_term": "x", "filter": object{"limit": 0}},
	} {
		alice.Refused(http.StatusBadRequest, "M_INVALID_PARAM", "POST", "/search", events(bad))
	}
	alice.Refused(http.StatusBadRequest, "M_INVALID_PARAM", "POST", "/search?next_batch=x", events(object{"search_term": "x"}))
	s.Nobody().Refused(http.StatusUnauthorized, "M_MISSING_TOKEN", "POST", "/search", events(object{"search_term": "x"}))
}
