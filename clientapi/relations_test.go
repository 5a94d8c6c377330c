package clientapi_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
)

func TestRelations(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		for name, test := range map[string]func(*testing.T, *testserver.Server){
			"places": bundlePlaces, "edits": bundledEdits, "references": bundledReferences, "annotations": annotations,
			"threads": bundledThreads, "list of threads": threadList, "children": relatedEvents, "redaction": redactedRelations,
			"hidden": hiddenRelations,
		} {
			t.Run(name, func(t *testing.T) { test(t, s) })
		}
		s.Stop()
		if out, ok := s.Run("verify", "-full"); !ok {
			t.Errorf("the database is not sound: %s", out)
		}
	})
}

// v1 is a path below a room under version 1 of the API.
func v1(room string, more ...string) string { return "/_matrix/client/v1" + is(room, more...) }

// relate is the content of a message that relates to an event.
func relate(relType, target, text string, more ...any) object {
	relates := object{"rel_type": relType, "event_id": target}
	for i := 0; i+1 < len(more); i += 2 {
		relates[more[i].(string)] = more[i+1]
	}
	content := object{"msgtype": "m.text", "body": text, "m.relates_to": relates}
	if relType == "m.replace" {
		content["m.new_content"] = object{"msgtype": "m.text", "body": text}
	}
	return content
}

func react(u *testserver.User, room, target, key string) string {
	return u.Send(room, "m.reaction", object{"m.relates_to": object{"rel_type": "m.annotation", "event_id": target, "key": key}})
}

// bundle is what an event says of what relates to it.
func bundle(event object) object {
	b, _ := testserver.At(event, "unsigned", "m.relations").(object)
	return b
}

// eventOf reads an event as a user sees it.
func eventOf(u *testserver.User, room, id string) object {
	return u.Must("GET", is(room, "event", id), nil).Body
}

func ids(events []object) []string {
	var out []string
	for _, e := range events {
		id, _ := e["event_id"].(string)
		out = append(out, id)
	}
	return out
}

func find(events []object, id string) object {
	for _, e := range events {
		if e["event_id"] == id {
			return e
		}
	}
	return nil
}

// bundlePlaces: the aggregation is there wherever the specification wants it, and only there.
func bundlePlaces(t *testing.T, s *testserver.Server) {
	proof.Of(t, "EV-01")
	alice, bob, room := together(t, s)
	root := alice.Say(room, "root")
	edit := alice.Send(room, "m.room.message", relate("m.replace", root, "better"))
	reply := bob.Send(room, "m.room.message", relate("m.thread", root, "in the thread"))
	second := bob.Send(room, "m.room.message", relate("m.replace", reply, "in the thread, better"))
	ok := func(where string, event object) {
		t.Helper()
		b := bundle(event)
		if testserver.At(b, "m.replace", "event_id") != edit || testserver.At(b, "m.thread", "latest_event", "event_id") != reply ||
			testserver.At(b, "m.thread", "latest_event", "unsigned", "m.relations", "m.replace", "event_id") != second ||
			testserver.At(event, "content", "body") != "root" {
			t.Errorf("%s: %v", where, event)
		}
	}
	ok("event", eventOf(bob, room, root))
	ok("messages", find(testserver.Events(bob.Must("GET", is(room, "messages")+"?dir=b&limit=20", nil).Body["chunk"]), root))
	around := bob.Must("GET", is(room, "context", root), nil).Body
	ok("context", around["event"].(object))
	ok("context of another", find(testserver.Events(bob.Must("GET", is(room, "context", edit), nil).Body["events_before"]), root))
	ok("threads", find(testserver.Events(bob.Must("GET", v1(room, "threads"), nil).Body["chunk"]), root))
	children := testserver.Events(bob.Must("GET", v1(room, "relations", root), nil).Body["chunk"])
	if testserver.At(bundle(find(children, reply)), "m.replace", "event_id") != second {
		t.Errorf("relations: %v", children)
	}
	limited := bob.Sync("", 0, "filter", `{"room":{"timeline":{"limit":4}}}`)
	if testserver.At(limited, "rooms", "join", room, "timeline", "limited") != true {
		t.Fatal("the timeline is not limited")
	}
	ok("limited sync", find(testserver.Timeline(limited, room), root))
	since := token(bob.Sync("", 0))
	next := bob.Say(room, "next")
	alice.Send(room, "m.room.message", relate("m.thread", next, "x"))
	if event := find(testserver.Timeline(bob.Sync(since, 10_000), room), next); bundle(event) != nil {
		t.Errorf("a timeline without a gap has %v", event)
	}
	// State events have none.
	name, _ := alice.Must("PUT", is(room, "state", "m.room.name", ""), object{"name": "n"}).Body["event_id"].(string)
	alice.Send(room, "m.room.message", relate("m.reference", name, "x"))
	if event := eventOf(bob, room, name); bundle(event) != nil {
		t.Errorf("a state event has %v", event)
	}
}

func bundledEdits(t *testing.T, s *testserver.Server) {
	proof.Of(t, "EV-02")
	alice, bob, room := together(t, s)
	other := alice.CreateRoom(object{})
	original := alice.Say(room, "one")
	current := func() any { return testserver.At(bundle(eventOf(bob, room, original)), "m.replace", "event_id") }
	first := alice.Send(room, "m.room.message", relate("m.replace", original, "two"))
	second := alice.Send(room, "m.room.message", relate("m.replace", original, "three"))
	if got := current(); got != second {
		t.Errorf("the newest edit is %v, want %s (not %s)", got, second, first)
	}
	for what, send := range map[string]func() string{
		"of another sender": func() string { return bob.Send(room, "m.room.message", relate("m.replace", original, "bob's")) },
		"of another type":   func() string { return alice.Send(room, "org.example.x", relate("m.replace", original, "x")) },
		"of another room":   func() string { return alice.Send(other, "m.room.message", relate("m.replace", original, "x")) },
		"of an edit":        func() string { return alice.Send(room, "m.room.message", relate("m.replace", second, "x")) },
		"without content": func() string {
			content := relate("m.replace", original, "x")
			delete(content, "m.new_content")
			return alice.Send(room, "m.room.message", content)
		},
		"that is state": func() string {
			content := relate("m.replace", original, "x")
			id, _ := alice.Must("PUT", is(room, "state", "m.room.message", ""), content).Body["event_id"].(string)
			return id
		},
	} {
		send()
		if got := current(); got != second {
			t.Errorf("an edit %s counts: %v", what, got)
		}
	}
	if event := eventOf(bob, room, second); testserver.At(bundle(event), "m.replace") != nil {
		t.Errorf("an edit was edited: %v", event)
	}
	if event := eventOf(bob, room, original); testserver.At(event, "content", "body") != "one" {
		t.Errorf("the original is %v", event)
	}
	// An encrypted event's edit has its content where nobody here can see it.
	sealed := alice.Send(room, "m.room.encrypted", object{"algorithm": "x", "ciphertext": "x"})
	edited := alice.Send(room, "m.room.encrypted", object{"algorithm": "x", "ciphertext": "y", "m.relates_to": object{"rel_type": "m.replace", "event_id": sealed}})
	if event := eventOf(bob, room, sealed); testserver.At(bundle(event), "m.replace", "event_id") != edited {
		t.Errorf("the encrypted event is %v", event)
	}
	alice.Must("PUT", is(room, "redact", original, testserver.Unique("t")), object{})
	if event := eventOf(bob, room, original); bundle(event) != nil {
		t.Errorf("redacted, the original has %v", event)
	}
}

func bundledReferences(t *testing.T, s *testserver.Server) {
	proof.Of(t, "EV-03")
	alice, bob, room := together(t, s)
	parent := alice.Say(room, "parent")
	one := bob.Send(room, "m.room.message", relate("m.reference", parent, "one"))
	two := alice.Send(room, "org.example.x", relate("m.reference", parent, "two"))
	event := eventOf(bob, room, parent)
	if got := ids(testserver.Events(testserver.At(bundle(event), "m.reference", "chunk"))); fmt.Sprint(got) != fmt.Sprint([]string{one, two}) {
		t.Errorf("the references are %v", event)
	}
	if len(bundle(event)) != 1 {
		t.Errorf("the bundle is %v", bundle(event))
	}
}

func annotations(t *testing.T, s *testserver.Server) {
	proof.Of(t, "EV-04")
	alice, bob, room := together(t, s)
	parent := alice.Say(room, "parent")
	mine := object{"m.relates_to": object{"rel_type": "m.annotation", "event_id": parent, "key": "👍"}}
	path := is(room, "send", "m.reaction")
	first := bob.Must("PUT", path+"/once", mine).Body["event_id"].(string)
	if again := bob.Must("PUT", path+"/once", mine).Body["event_id"]; again != first {
		t.Errorf("the same transaction made %v", again)
	}
	bob.Refused(http.StatusBadRequest, "M_DUPLICATE_ANNOTATION", "PUT", path+"/twice", mine)
	react(bob, room, parent, "👎")
	react(alice, room, parent, "👍")
	bob.Send(room, "org.example.mark", mine) // another type
	if event := eventOf(alice, room, parent); bundle(event) != nil {
		t.Errorf("annotations are summed up: %v", event)
	}
	bob.Must("PUT", is(room, "redact", first, testserver.Unique("t")), object{})
	react(bob, room, parent, "👍")
}

func bundledThreads(t *testing.T, s *testserver.Server) {
	proof.Of(t, "EV-05")
	alice, bob, room := together(t, s)
	carol, dave := s.Register(testserver.Unique("carol")), s.Register(testserver.Unique("dave"))
	for _, u := range []*testserver.User{carol, dave} {
		alice.Invite(room, u.ID)
		u.Join(room)
	}
	root := alice.Say(room, "root")
	bob.Send(room, "m.room.message", relate("m.thread", root, "1"))
	two := bob.Send(room, "m.room.message", relate("m.thread", root, "2"))
	react(alice, room, two, "x")
	three := carol.Send(room, "m.room.message", relate("m.thread", root, "3"))
	reference := dave.Send(room, "m.room.message", relate("m.reference", two, "about 2"))
	check := func(u *testserver.User, latest string, count int, participated bool) {
		t.Helper()
		got := testserver.At(bundle(eventOf(u, room, root)), "m.thread")
		if testserver.At(got, "latest_event", "event_id") != latest || testserver.At(got, "count") != float64(count) || testserver.At(got, "current_user_participated") != participated {
			t.Errorf("%s sees the thread as %v", u.ID, got)
		}
	}
	check(alice, three, 3, true)
	check(bob, three, 3, true)
	check(carol, three, 3, true)
	check(dave, three, 3, false)
	dave.Must("PUT", testserver.Path("user", dave.ID, "account_data", "m.ignored_user_list"), object{"ignored_users": object{carol.ID: object{}}})
	check(dave, two, 2, false)
	latest := testserver.At(bundle(eventOf(dave, room, root)), "m.thread", "latest_event").(object)
	if got := testserver.Events(testserver.At(bundle(latest), "m.reference", "chunk")); len(got) != 1 || got[0]["event_id"] != reference {
		t.Errorf("the latest event has %v", latest)
	}
	alice.Must("PUT", testserver.Path("user", alice.ID, "account_data", "m.ignored_user_list"), object{"ignored_users": object{carol.ID: object{}, bob.ID: object{}}})
	if b := bundle(eventOf(alice, room, root)); b != nil {
		t.Errorf("of a thread of ignored users alone is told %v", b)
	}
	// No thread begins at an event that relates to one; at a reply one may.
	for _, at := range []string{two, reference} {
		bob.Refused(http.StatusBadRequest, "M_UNKNOWN", "PUT", is(room, "send", "m.room.message", testserver.Unique("t")), relate("m.thread", at, "x"))
	}
	reply := bob.Send(room, "m.room.message", object{"msgtype": "m.text", "body": "x", "m.relates_to": object{"m.in_reply_to": object{"event_id": root}}})
	bob.Send(room, "m.room.message", relate("m.thread", reply, "x"))
	bob.Send(room, "m.room.message", relate("m.thread", "$unknown", "x"))
}

func threadList(t *testing.T, s *testserver.Server) {
	proof.Of(t, "EV-06")
	alice, bob, room := together(t, s)
	var roots []string
	for i := range 5 {
		roots = append(roots, alice.Say(room, fmt.Sprint(i)))
	}
	bobs := bob.Say(room, "bob's")
	for _, root := range []string{roots[1], roots[3], bobs, roots[2], roots[1]} {
		alice.Send(room, "m.room.message", relate("m.thread", root, "x"))
	}
	bob.Send(room, "m.room.message", relate("m.thread", roots[4], "x"))
	list := func(u *testserver.User, query string) (got []string, next string) {
		t.Helper()
		body := u.Must("GET", v1(room, "threads")+query, nil).Body
		return ids(testserver.Events(body["chunk"])), token(body)
	}
	want := []string{roots[4], roots[1], roots[2], bobs, roots[3]}
	if got, next := list(alice, ""); !slices.Equal(got, want) || next != "" {
		t.Errorf("the threads are %v %q, want %v", got, next, want)
	}
	var paged []string
	for next, first := "", true; first || next != ""; first = false {
		query := "?limit=2"
		if next != "" {
			query += "&from=" + next
		}
		var got []string
		got, next = list(alice, query)
		if len(got) > 2 {
			t.Errorf("a page has %d threads", len(got))
		}
		paged = append(paged, got...)
	}
	if !slices.Equal(paged, want) {
		t.Errorf("in pages the threads are %v, want %v", paged, want)
	}
	if got, _ := list(bob, "?include=participated"); !slices.Equal(got, []string{roots[4], bobs}) {
		t.Errorf("bob took part in %v", got)
	}
	alice.Must("PUT", testserver.Path("user", alice.ID, "account_data", "m.ignored_user_list"), object{"ignored_users": object{bob.ID: object{}}})
	events := testserver.Events(alice.Must("GET", v1(room, "threads"), nil).Body["chunk"])
	if root := find(events, bobs); root == nil || len(root["content"].(object)) != 0 {
		t.Errorf("the thread of an ignored user begins with %v", root)
	}
	if find(events, roots[4]) != nil {
		t.Error("a thread in which only an ignored user wrote is shown")
	}
	stranger := s.Register(testserver.Unique("stranger"))
	stranger.Refused(http.StatusForbidden, "M_FORBIDDEN", "GET", v1(room, "threads"), nil)
	for _, query := range []string{"?from=x", "?include=x", "?limit=0", "?limit=x"} {
		alice.Refused(http.StatusBadRequest, "M_INVALID_PARAM", "GET", v1(room, "threads")+query, nil)
	}
}

func relatedEvents(t *testing.T, s *testserver.Server) {
	proof.Of(t, "EV-07")
	alice, bob, room := together(t, s)
	root := alice.Say(room, "root")
	var sent []string
	for i := range 5 {
		sent = append(sent, bob.Send(room, "m.room.message", relate("m.thread", root, fmt.Sprint(i))))
	}
	reaction := react(bob, room, root, "x")
	deep := react(alice, room, sent[0], "y")
	deeper := alice.Send(room, "m.room.message", relate("m.reference", deep, "z"))
	bob.Send(room, "m.room.message", object{"msgtype": "m.text", "body": "a reply", "m.relates_to": object{"m.in_reply_to": object{"event_id": root}}})
	get := func(path, query string) object {
		t.Helper()
		return alice.Must("GET", v1(room, "relations", root)+path+query, nil).Body
	}
	backwards := slices.Clone(sent)
	slices.Reverse(backwards)
	for _, c := range []struct {
		path, query string
		want        []string
		depth       any
	}{
		{"", "", append([]string{reaction}, backwards...), nil},
		{"", "?dir=f", append(slices.Clone(sent), reaction), nil},
		{"/m.thread", "?dir=f", sent, nil},
		{"/m.annotation", "", []string{reaction}, nil},
		{"/m.annotation/m.reaction", "", []string{reaction}, nil},
		{"/m.thread/m.reaction", "", nil, nil},
		{"/m.reference", "", nil, nil},
		{"", "?recurse=true&dir=f", append(slices.Clone(sent), reaction, deep, deeper), 4.0},
		{"/m.thread", "?recurse=true&dir=f", sent, 4.0},
		{"", "?recurse=false&limit=1", []string{reaction}, nil},
	} {
		body := get(c.path, c.query)
		if got := ids(testserver.Events(body["chunk"])); !slices.Equal(got, c.want) || body["recursion_depth"] != c.depth {
			t.Errorf("%s%s: %v of depth %v, want %v", c.path, c.query, got, body["recursion_depth"], c.want)
		}
	}
	var paged []string
	query := "?limit=2"
	var second string
	for {
		body := get("/m.thread", query)
		paged = append(paged, ids(testserver.Events(body["chunk"]))...)
		if body["next_batch"] == nil {
			break
		}
		if (body["prev_batch"] == nil) != (query == "?limit=2") {
			t.Errorf("%s has the previous page %v", query, body["prev_batch"])
		}
		if second == "" {
			second = token(body)
		}
		query = "?limit=2&from=" + token(body)
	}
	if !slices.Equal(paged, backwards) {
		t.Errorf("in pages: %v, want %v", paged, backwards)
	}
	if got := ids(testserver.Events(get("/m.thread", "?to="+second)["chunk"])); !slices.Equal(got, backwards[:2]) {
		t.Errorf("up to the second page: %v, want %v", got, backwards[:2])
	}
	if got := testserver.Events(get("/m.thread", "?from="+second+"&to=s"+strings.TrimPrefix(token(alice.Sync("", 0)), "s"))["chunk"]); len(got) != 0 {
		t.Errorf("backwards to a later place there are %v", got)
	}
	stranger := s.Register(testserver.Unique("stranger"))
	stranger.Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", v1(room, "relations", root), nil)
	alice.Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", v1(room, "relations", "$nothing"), nil)
	for _, query := range []string{"?dir=x", "?from=x", "?to=x", "?limit=0", "?recurse=x"} {
		alice.Refused(http.StatusBadRequest, "M_INVALID_PARAM", "GET", v1(room, "relations", root)+query, nil)
	}
}

func redactedRelations(t *testing.T, s *testserver.Server) {
	proof.Of(t, "EV-08")
	alice, bob, room := together(t, s)
	root := alice.Say(room, "root")
	one := alice.Send(room, "m.room.message", relate("m.replace", root, "first"))
	two := alice.Send(room, "m.room.message", relate("m.replace", root, "second"))
	inThread := bob.Send(room, "m.room.message", relate("m.thread", root, "in it"))
	last := bob.Send(room, "m.room.message", relate("m.thread", root, "last in it"))
	reference := bob.Send(room, "m.room.message", relate("m.reference", root, "about it"))
	redact := func(u *testserver.User, id string) {
		t.Helper()
		u.Must("PUT", is(room, "redact", id, testserver.Unique("t")), object{})
	}
	redact(alice, two)
	redact(bob, last)
	b := bundle(eventOf(bob, room, root))
	if testserver.At(b, "m.replace", "event_id") != one || testserver.At(b, "m.thread", "latest_event", "event_id") != inThread || testserver.At(b, "m.thread", "count") != 1.0 {
		t.Errorf("without the redacted children: %v", b)
	}
	if got := ids(testserver.Events(bob.Must("GET", v1(room, "relations", root), nil).Body["chunk"])); !slices.Equal(got, []string{reference, inThread, one}) {
		t.Errorf("the children are %v", got)
	}
	redact(alice, root)
	b = bundle(eventOf(bob, room, root))
	if testserver.At(b, "m.replace") != nil || testserver.At(b, "m.thread", "count") != 1.0 || len(testserver.Events(testserver.At(b, "m.reference", "chunk"))) != 1 {
		t.Errorf("of the redacted root: %v", b)
	}
	if got := ids(testserver.Events(bob.Must("GET", v1(room, "threads"), nil).Body["chunk"])); !slices.Equal(got, []string{root}) {
		t.Errorf("the threads are %v", got)
	}
	redact(bob, inThread)
	redact(bob, reference)
	if b := bundle(eventOf(bob, room, root)); b != nil {
		t.Errorf("without children: %v", b)
	}
}

// hiddenRelations: what somebody may not see counts for nothing.
func hiddenRelations(t *testing.T, s *testserver.Server) {
	proof.Of(t, "A02")
	alice, bob, room := together(t, s)
	root := alice.Say(room, "root")
	seen := alice.Send(room, "m.room.message", relate("m.thread", root, "seen"))
	bob.Must("POST", is(room, "leave"), object{})
	alice.Send(room, "m.room.message", relate("m.thread", root, "hidden"))
	alice.Send(room, "m.room.message", relate("m.replace", root, "hidden"))
	alice.Send(room, "m.room.message", relate("m.reference", root, "hidden"))
	late := alice.Say(room, "late")
	alice.Send(room, "m.room.message", relate("m.thread", late, "hidden"))
	check := func(b object) {
		t.Helper()
		if len(b) != 1 || testserver.At(b, "m.thread", "count") != 1.0 || testserver.At(b, "m.thread", "latest_event", "event_id") != seen {
			t.Errorf("whoever left sees %v", b)
		}
	}
	check(bundle(eventOf(bob, room, root)))
	threads := testserver.Events(bob.Must("GET", v1(room, "threads"), nil).Body["chunk"])
	if len(threads) != 1 {
		t.Errorf("whoever left sees the threads %v", threads)
	}
	check(bundle(threads[0]))
	for _, query := range []string{"", "?recurse=true"} {
		if got := ids(testserver.Events(bob.Must("GET", v1(room, "relations", root)+query, nil).Body["chunk"])); !slices.Equal(got, []string{seen}) {
			t.Errorf("whoever left sees the children %v", got)
		}
	}
}
