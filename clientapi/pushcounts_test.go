package clientapi_test

import (
	"fmt"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
)

// counting is a room in which Alice talks, Bob has rules of his own and Carol has none.
type counting struct {
	t                 *testing.T
	alice, bob, carol *testserver.User
	room              string
	since             map[*testserver.User]string
	last              string // event
}

func newCounting(t *testing.T, s *testserver.Server, options object) *counting {
	t.Helper()
	c := &counting{t: t, alice: s.Register(testserver.Unique("alice")), bob: s.Register(testserver.Unique("bob")),
		carol: s.Register(testserver.Unique("carol")), since: map[*testserver.User]string{}}
	options["preset"], options["invite"] = "private_chat", []string{c.bob.ID, c.carol.ID}
	c.room = c.alice.CreateRoom(options)
	for _, u := range []*testserver.User{c.bob, c.carol} {
		u.Join(c.room)
		c.since[u] = token(u.Sync("", 0))
	}
	return c
}

// say sends a message of Alice's; more is what its content has besides the text.
func (c *counting) say(text string, more object) string {
	c.t.Helper()
	content := object{"msgtype": "m.text", "body": text}
	for key, value := range more {
		content[key] = value
	}
	c.last = c.alice.Send(c.room, "m.room.message", content)
	return c.last
}

func mention(users ...string) object { return object{"m.mentions": object{"user_ids": users}} }

var everybody = object{"m.mentions": object{"room": true}}

// expect checks what Bob and Carol are told: as it comes, and counted anew from the database.
func (c *counting) expect(when, bob, carol string) {
	c.t.Helper()
	for u, want := range map[*testserver.User]string{c.bob: bob, c.carol: carol} {
		next := u.Sync(c.since[u], 0)
		c.since[u] = token(next)
		if testserver.At(next, "rooms", "join", c.room, "unread_notifications") != nil {
			if got := unreadOf(next, c.room, nil); got != want {
				c.t.Errorf("%s, %s is told %s, want %s", when, u.ID, got, want)
			}
		}
		if c.last != "" { // has the server forget what it holds in memory
			u.Must("POST", testserver.Path("rooms", c.room, "read_markers"), object{"m.fully_read": c.last})
		}
		if got := unreadOf(u.Sync("", 0), c.room, nil); got != want {
			c.t.Errorf("%s, counted anew for %s: %s, want %s", when, u.ID, got, want)
		}
	}
}

func (c *counting) rule(kind, id string, body object) {
	c.t.Helper()
	c.bob.Must("PUT", rulePath(kind, id), body)
}

func (c *counting) read(event string) {
	c.t.Helper()
	c.bob.Must("POST", testserver.Path("rooms", c.room, "receipt", "m.read", event), object{})
}

// ruleCounts changes Bob's rules while he has not read what came before: each event counts by the rules of its time.
func ruleCounts(t *testing.T, s *testserver.Server) {
	c := newCounting(t, s, object{})
	proof.Of(t, "PU-01", "PU-05", "PU-09")
	c.say("plain", nil)
	c.expect("a message", "1/0", "1/0")
	named := c.say("you", mention(c.bob.ID, "@nobody:elsewhere.example"))
	c.expect("a mention", "2/1", "2/0")
	c.rule("content", "cake", object{"pattern": "cake", "actions": highlights})
	c.say("a Cake!", nil)
	c.expect("a keyword", "3/2", "3/0")
	c.say("pancakes", nil)
	c.expect("a word that holds a keyword", "4/2", "4/0")
	mute := object{"conditions": []any{object{"kind": "event_match", "key": "room_id", "pattern": c.room}}, "actions": []any{}}
	c.rule("override", "mute", mute)
	muted := c.say("cake", mention(c.bob.ID))
	c.expect("a mention and a keyword in a muted room", "4/2", "5/0")
	c.say("all", everybody)
	c.expect("a mention of everybody in a muted room", "4/2", "6/1")
	c.bob.Must("DELETE", rulePath("override", "mute"), nil)
	c.rule("room", c.room, object{"actions": []any{}})
	c.say("plain", nil)
	c.expect("a message where only mentions count", "4/2", "7/1")
	c.say("you", mention(c.bob.ID))
	c.expect("a mention where only mentions count", "5/3", "8/1")
	c.say("all", everybody)
	c.expect("a mention of everybody where only mentions count", "6/4", "9/2")
	c.say("cake", nil)
	c.expect("a keyword where only mentions count", "7/5", "10/2")
	c.alice.Send(c.room, "m.room.message", object{"msgtype": "m.notice", "body": "you", "m.mentions": object{"user_ids": []string{c.bob.ID}}})
	c.expect("a notice", "7/5", "10/2")
	c.alice.Must("PUT", testserver.Path("rooms", c.room, "redact", named, testserver.Unique("txn")), object{})
	c.expect("a redaction of a mention", "6/4", "9/2")
	c.bob.Must("PUT", testserver.Path("user", c.bob.ID, "account_data", "m.ignored_user_list"), object{"ignored_users": object{c.alice.ID: object{}}})
	c.expect("with the sender ignored", "0/0", "9/2")
	c.say("cake", mention(c.bob.ID))
	c.expect("a mention by somebody ignored", "0/0", "10/2")
	c.bob.Must("PUT", testserver.Path("user", c.bob.ID, "account_data", "m.ignored_user_list"), object{"ignored_users": object{}})
	c.expect("with the sender ignored no more", "7/5", "10/2")
	c.read(muted)
	c.expect("a receipt in the middle of what was muted", "4/4", "10/2")
	c.bob.Must("DELETE", rulePath("room", c.room), nil)
	c.say("plain", nil)
	c.expect("with the predefined rules and a keyword", "5/4", "11/2")
	c.bob.Must("PUT", rulePath("override", ".m.rule.master", "enabled"), object{"enabled": true})
	c.say("cake", mention(c.bob.ID))
	c.expect("with the master rule", "5/4", "12/2")
	c.bob.Must("PUT", rulePath("override", ".m.rule.master", "enabled"), object{"enabled": false})
	c.bob.Say(c.room, "I")
	c.expect("an own message", "0/0", "13/2")
	c.conditions()
}

// conditions tries each kind of condition in a rule of Bob's own.
func (c *counting) conditions() {
	c.t.Helper()
	c.bob.Must("DELETE", rulePath("content", "cake"), nil)
	c.bob.Must("PUT", testserver.Path("profile", c.bob.ID, "displayname"), object{"displayname": "Robert"})
	testserver.Path("rooms", c.room)
	c.bob.Must("PUT", testserver.Path("rooms", c.room, "state", "m.room.member", c.bob.ID), object{"membership": "join", "displayname": "Robert"})
	condition := func(kind string, more object) object {
		more["kind"] = kind
		return more
	}
	match := func(key, pattern string) object {
		return condition("event_match", object{"key": key, "pattern": pattern})
	}
	for _, r := range []struct {
		when      string
		condition object
		hits      string
		content   object
	}{
		{"a pattern for the whole value", match("content.topic", "*ca?e"), "1/1", object{"topic": "A CAKE"}},
		{"a pattern for a part of the value", match("content.topic", "ca?e"), "1/0", object{"topic": "A CAKE"}},
		{"a key with a dot", match(`content.a\.b`, "c"), "1/1", object{"a.b": "c"}},
		{"a property", condition("event_property_is", object{"key": "content.n", "value": 5}), "1/1", object{"n": 5}},
		{"a property of another type", condition("event_property_is", object{"key": "content.n", "value": "5"}), "1/0", object{"n": 5}},
		{"a list", condition("event_property_contains", object{"key": "content.l", "value": true}), "1/1", object{"l": []any{1, true}}},
		{"a list without it", condition("event_property_contains", object{"key": "content.l", "value": 2}), "1/0", object{"l": []any{1, true}}},
		{"the display name", condition("contains_display_name", object{}), "1/1", object{"body": "what, robert?"}},
		{"another name", condition("contains_display_name", object{}), "1/0", object{"body": "what, roberta?"}},
		{"the number of members", condition("room_member_count", object{"is": "3"}), "1/1", nil},
		{"another number of members", condition("room_member_count", object{"is": ">3"}), "1/0", nil},
		{"the sender's power", condition("sender_notification_permission", object{"key": "room"}), "1/1", nil},
		{"an unknown condition", condition("im.example.unknown", object{}), "1/0", nil},
	} {
		c.rule("override", "tried", object{"conditions": []any{r.condition}, "actions": highlights})
		c.bob.Say(c.room, "I have read all")
		c.say("hello", r.content)
		if got := unreadOf(c.bob.Sync("", 0), c.room, nil); got != r.hits {
			c.t.Errorf("%s: %s, want %s", r.when, got, r.hits)
		}
	}
	c.bob.Must("DELETE", rulePath("override", "tried"), nil)
}

// ruleCountsElsewhere counts in threads, in rooms whose messages are encrypted and for events of other types.
func ruleCountsElsewhere(t *testing.T, s *testserver.Server) {
	c := newCounting(t, s, object{})
	proof.Of(t, "PU-03", "US-07")
	root := c.say("root", nil)
	filter := fmt.Sprintf(`{"room":{"rooms":[%q],"timeline":{"unread_thread_notifications":true}}}`, c.room)
	threads := func(when, want string) {
		t.Helper()
		for range 2 { // as it came, and anew
			if got := unreadOf(c.bob.Sync("", 0, "filter", filter), c.room, map[string]string{"a": root}); got != want {
				t.Errorf("%s: %s, want %s", when, got, want)
			}
			c.bob.Must("POST", testserver.Path("rooms", c.room, "read_markers"), object{"m.fully_read": c.last})
		}
	}
	threads("a message", "1/0")
	c.last = reply(c.alice, c.room, root, "one", mention(c.bob.ID))
	threads("a mention in a thread", "1/0 a 1/1")
	c.rule("room", c.room, object{"actions": []any{}})
	c.last = reply(c.alice, c.room, root, "two", nil)
	threads("a message in a thread where only mentions count", "1/0 a 1/1")
	c.last = reply(c.alice, c.room, root, "three", mention(c.bob.ID))
	threads("a mention in a thread where only mentions count", "1/0 a 2/2")
	c.bob.Must("DELETE", rulePath("room", c.room), nil)
	c.last = reply(c.alice, c.room, root, "four", nil)
	threads("a message in a thread, by the predefined rules", "1/0 a 3/2")
	c.alice.Must("PUT", testserver.Path("rooms", c.room, "redact", c.last, testserver.Unique("txn")), object{})
	threads("a redaction in a thread", "1/0 a 2/2")

	c = newCounting(t, s, object{})
	sealed := func() { c.last = c.alice.Send(c.room, "m.room.encrypted", object{"algorithm": "x", "ciphertext": "y"}) }
	sealed()
	c.expect("an encrypted message", "1/0", "1/0")
	c.bob.Must("PUT", rulePath("underride", ".m.rule.encrypted", "enabled"), object{"enabled": false})
	sealed()
	c.expect("an encrypted message without its rule", "1/0", "2/0")
	c.say("plain", nil)
	c.expect("a plain message without the rule for encrypted ones", "2/0", "3/0")
	c.last = c.alice.Send(c.room, "m.sticker", object{"body": "x", "url": "mxc://a/b", "m.mentions": object{"user_ids": []string{c.bob.ID}}})
	c.expect("a sticker that mentions", "3/1", "3/0")
	c.last = c.alice.Send(c.room, "m.sticker", object{"body": "x", "url": "mxc://a/b", "m.mentions": object{"room": true}})
	c.expect("a sticker that mentions everybody", "4/2", "4/1")
	c.last = c.alice.Send(c.room, "m.sticker", object{"body": "x", "url": "mxc://a/b"})
	c.expect("a sticker", "4/2", "4/1")
}

// ruleNewcomers counts for people who come into a room with rules of their own, and leave it.
func ruleNewcomers(t *testing.T, s *testserver.Server) {
	c := newCounting(t, s, object{})
	dave := s.Register(testserver.Unique("dave"))
	dave.Must("PUT", rulePath("content", "cake"), object{"pattern": "cake", "actions": highlights})
	c.say("cake", nil)
	c.alice.Invite(c.room, dave.ID)
	dave.Join(c.room)
	c.say("cake", nil)
	if got := unreadOf(dave.Sync("", 0), c.room, nil); got != "1/1" {
		t.Errorf("whoever came with a keyword is told %s, want 1/1", got)
	}
	dave.Must("POST", testserver.Path("rooms", c.room, "leave"), object{})
	c.say("cake", nil)
	c.alice.Invite(c.room, dave.ID)
	dave.Join(c.room)
	if got := unreadOf(dave.Sync("", 0), c.room, nil); got != "0/0" {
		t.Errorf("whoever comes back is told %s, want 0/0", got)
	}
	c.expect("messages with somebody else's keyword", "3/0", "3/0")
}
