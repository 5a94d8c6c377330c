package clientapi_test

import (
	"fmt"
	"net/url"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/proof"
)

// separate is a filter of a client that knows threads.
const separate = `{"room":{"timeline":{"unread_thread_notifications":true}}}`

// reply sends a message into the thread of an event.
func reply(u *testserver.User, room, root, text string, more object) string {
	content := object{"msgtype": "m.text", "body": text, "m.relates_to": object{"rel_type": "m.thread", "event_id": root}}
	for key, value := range more {
		content[key] = value
	}
	return u.Send(room, "m.room.message", content)
}

// unreadOf says how a response counts a room: "main notify/highlight", then each thread by its name.
func unreadOf(body object, room string, names map[string]string) string {
	in := testserver.At(body, "rooms", "join", room)
	count := func(v any) string {
		return fmt.Sprintf("%v/%v", testserver.At(v, "notification_count"), testserver.At(v, "highlight_count"))
	}
	out := count(testserver.At(in, "unread_notifications"))
	threads, _ := testserver.At(in, "unread_thread_notifications").(object)
	for _, name := range []string{"a", "b"} {
		if t, ok := threads[names[name]]; ok {
			out += " " + name + " " + count(t)
			delete(threads, names[name])
		}
	}
	if len(threads) > 0 {
		out += fmt.Sprint(" and also ", threads)
	}
	return out
}

// threads is a room in which Alice talks and Bob reads, by /sync with and without threads and over a socket.
type threads struct {
	t          *testing.T
	alice, bob *testserver.User
	room       string
	roots      map[string]string
	since      [2]string         // of Bob's clients: one that knows threads, one that does not
	frames     func(want string) // reads what the socket is told until it is that
}

// expect checks what Bob is told: to the client that knows threads, and to the one that does not; from where each was,
// afresh, and over the socket.
func (c *threads) expect(when, apart, together string) {
	c.t.Helper()
	for i, want := range []string{apart, together} {
		filter := []string{separate, "{}"}[i]
		next := c.bob.Sync(c.since[i], 10_000, "filter", filter)
		if got := unreadOf(next, c.room, c.roots); got != want {
			c.t.Errorf("%s, from where it was, with the filter %s: %s, want %s", when, filter, got, want)
		}
		c.since[i] = token(next)
		if got := unreadOf(c.bob.Sync("", 0, "filter", filter), c.room, c.roots); got != want {
			c.t.Errorf("%s, afresh, with the filter %s: %s, want %s", when, filter, got, want)
		}
	}
	c.frames(apart) // it is told as it happens, perhaps in several frames
}

func (c *threads) receipt(event, thread string) {
	c.t.Helper()
	body := object{}
	if thread != "" {
		body["thread_id"] = thread
	}
	c.bob.Must("POST", testserver.Path("rooms", c.room, "receipt", "m.read.private", event), body)
}

func TestUnreadThreads(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		s := testserver.Start(t, testserver.Options{Engine: engine})
		alice, bob, room := together(t, s)
		proof.Of(t, "US-07", "SY-08")
		c := &threads{t: t, alice: alice, bob: bob, room: room, roots: map[string]string{}}
		c.roots["a"], c.roots["b"] = alice.Say(room, "a"), alice.Say(room, "b")
		for i, filter := range []string{separate, "{}"} {
			c.since[i] = token(bob.Sync("", 0, "filter", filter))
		}
		conn := bob.Socket(url.Values{"filter": {separate}})
		c.frames = func(want string) {
			t.Helper()
			frames(t, conn, "the counts "+want, func(f object) bool {
				if testserver.At(f, "rooms", "join", room, "unread_notifications") == nil {
					return false
				}
				return unreadOf(f, room, c.roots) == want
			})
		}
		c.frames("2/0")

		first := reply(alice, room, c.roots["a"], "a1", nil)
		c.expect("a message in a thread", "2/0 a 1/0", "3/0")
		last := reply(alice, room, c.roots["a"], "a2", object{"m.mentions": object{"room": true}})
		c.expect("a mention in a thread", "2/0 a 2/1", "4/1")
		reply(alice, room, c.roots["b"], "b1", nil)
		c.expect("a message in another thread", "2/0 a 2/1 b 1/0", "5/1")
		alice.Send(room, "m.reaction", object{"m.relates_to": object{"rel_type": "m.annotation", "event_id": last, "key": "+"}})
		c.expect("a reaction in a thread", "2/0 a 2/1 b 1/0", "5/1")
		for thread, event := range map[string]string{"main": first, c.roots["b"]: first, "$none": c.roots["a"], "": first} {
			bob.Refused(400, "M_INVALID_PARAM", "POST", testserver.Path("rooms", room, "receipt", "m.read", event), object{"thread_id": thread})
		}
		bob.Refused(400, "M_INVALID_PARAM", "POST", testserver.Path("rooms", room, "receipt", "m.fully_read", first), object{"thread_id": c.roots["a"]})
		c.receipt(first, c.roots["a"])
		c.expect("a receipt in the thread", "2/0 a 1/1 b 1/0", "4/1")
		c.receipt(c.roots["b"], "main")
		c.expect("a receipt in the main timeline", "0/0 a 1/1 b 1/0", "2/1")
		alice.Say(room, "main")
		c.expect("a message in the main timeline", "1/0 a 1/1 b 1/0", "3/1")
		reply(bob, room, c.roots["b"], "b2", nil)
		c.expect("an own message in a thread", "1/0 a 1/1", "2/1")
		reply(alice, room, c.roots["b"], "b3", nil)
		c.expect("an answer in a thread that was read", "1/0 a 1/1 b 1/0", "3/1")
		bob.Say(room, "main")
		c.expect("an own message in the main timeline", "0/0 a 1/1 b 1/0", "2/1")
		bob.Must("PUT", testserver.Path("user", bob.ID, "rooms", room, "account_data", "org.example.note"), object{"n": 1})
		c.expect("nothing but own data of the room", "0/0 a 1/1 b 1/0", "2/1")
		c.receipt(reply(alice, room, c.roots["a"], "a3", nil), "")
		c.expect("a receipt for everything", "0/0", "0/0")
		reply(alice, room, c.roots["a"], "a4", nil)
		c.expect("a message in a thread that was read", "0/0 a 1/0", "1/0")
		bob.Must("POST", testserver.Path("rooms", room, "leave"), object{})
		alice.Invite(room, bob.ID)
		bob.Join(room)
		c.expect("coming back", "0/0", "0/0")
	})
}
