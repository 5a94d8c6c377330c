package federation

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/presence"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/proof"
)

// TestReadPushed reads entries of m.presence: what is malformed, or about somebody else's user, is nothing; what only
// goes too far is cut.
func TestReadPushed(t *testing.T) {
	proof.Of(t, "ED-02")
	now := time.UnixMilli(1_700_000_000_000)
	const zoe = "@zoe:them.test"
	want := func(state presence.State, current bool, message string, ago time.Duration) presence.Update {
		return presence.Update{User: zoe, State: state, Current: current, Message: message, Active: now.Add(-ago)}
	}
	unknown := presence.Update{User: zoe, State: presence.Online}
	long := strings.Repeat("é", presence.MaxMessage)
	for entry, want := range map[string]presence.Update{
		`{"user_id":"@zoe:them.test","presence":"online","last_active_ago":0}`:                                                    want(presence.Online, false, "", 0),
		`{"user_id":"@zoe:them.test","presence":"online","last_active_ago":5000,"currently_active":true,"status_msg":"hi","x":1}`: want(presence.Online, true, "hi", 5*time.Second),
		`{"user_id":"@zoe:them.test","presence":"unavailable","last_active_ago":1}`:                                               want(presence.Unavailable, false, "", time.Millisecond),
		`{"user_id":"@zoe:them.test","presence":"offline","last_active_ago":1,"status_msg":null}`:                                 want(presence.Offline, false, "", time.Millisecond),
		`{"user_id":"@zoe:them.test","presence":"online"}`:                                                                        unknown,
		`{"user_id":"@zoe:them.test","presence":"online","last_active_ago":9223372036854775807}`:                                  unknown,
		`{"user_id":"@zoe:them.test","presence":"online","last_active_ago":1700000000001}`:                                        unknown,
		`{"user_id":"@zoe:them.test","presence":"online","last_active_ago":1,"status_msg":"a\u0000b"}`:                            want(presence.Online, false, "ab", time.Millisecond),
		`{"user_id":"@zoe:them.test","presence":"online","last_active_ago":1,"status_msg":"` + long + `"}`:                        want(presence.Online, false, long[:presence.MaxMessage], time.Millisecond),
	} {
		if got, ok := readPushed("them.test", []byte(entry), now); !ok || got != want {
			t.Errorf("%.120s is %+v (%v)", entry, got, ok)
		}
	}
	for _, entry := range badEntries(zoe, "online") {
		if got, ok := readPushed("them.test", []byte(entry), now); ok {
			t.Errorf("%.120q is taken as %+v", entry, got)
		}
	}
}

// badEntries are entries about a user that nobody can use.
func badEntries(user matrix.UserID, state string) (entries []string) {
	change := func(name string, value any) {
		entry := map[string]any{"user_id": user, "presence": state, "last_active_ago": 1, "currently_active": true}
		if entry[name] = value; value == nil {
			delete(entry, name)
		}
		raw, err := json.Marshal(entry)
		if err != nil {
			panic(err)
		}
		entries = append(entries, string(raw))
	}
	for _, other := range []any{
		nil, "", 1, "zoe", "@zoe", "@zoe:", "zoe:them.test", "@zoe:us.test", "@zoe:other.test", string(user) + ":1", string(user) + ".evil.test",
		"@zoe:THEM.test", "@zo\x00e:them.test", "@" + strings.Repeat("z", 300) + ":them.test", []string{string(user)}, map[string]any{},
	} {
		change("user_id", other)
	}
	for _, other := range []any{nil, "", "Online", "busy", "free_for_chat", 2, true, []string{"online"}} {
		change("presence", other)
	}
	for _, other := range []any{-1, 1.5, "1", true, json.Number("9223372036854775808"), json.Number("1e3")} {
		change("last_active_ago", other)
	}
	for _, other := range []any{1, true, []string{"hi"}, map[string]any{"body": "hi"}} {
		change("status_msg", other)
	}
	for _, other := range []any{"true", 1} {
		change("currently_active", other)
	}
	return append(entries, `null`, `1`, `"text"`, `[]`, `{}`,
		fmt.Sprintf(`{"user_id":%q,"presence":%q,"presence":%q,"last_active_ago":1}`, user, state, state),
		fmt.Sprintf(`{"user_id":%q,"presence":%q,"last_active_ago":1,"status_msg":"\ud800"}`, user, state),
		fmt.Sprintf(`{"user_id":%q,"presence":%q,"last_active_ago":1,"status_msg":"`+"\xff"+`"}`, user, state),
		fmt.Sprintf(`{"user_id":%q,"presence":%q,"last_active_ago":1,"x":%s1%s}`, user, state, strings.Repeat("[", 100), strings.Repeat("]", 100)),
	)
}

// TestBadPresenceSpoilsNothingElse sends lists with all sorts of entries to a server: the good ones count, up to a bound.
func TestBadPresenceSpoilsNothingElse(t *testing.T) {
	proof.Of(t, "ED-02", "F18")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newHouse(t, db)
		people, err := presence.New(t.Context(), presence.Options{DB: db, Server: ourName, Log: slog.New(slog.DiscardHandler), Clock: w.clk.now, Abroad: true})
		if err != nil {
			t.Fatal(err)
		}
		_, w.us = w.startServer(func(o *ServerOptions) { o.DB, o.Rooms, o.Presence = db, w.rooms, people })
		ref, bob, carol := w.room(11, "public_chat"), w.p.User("bob"), w.p.User("carol")
		w.joins(w.p, ref, bob)
		w.joins(w.p, ref, carol)
		tell := func(txn string, push ...string) {
			t.Helper()
			accepted(t, w.send(w.p, txn, nil, []string{
				`{"edu_type":"m.presence","content":{}}`, `{"edu_type":"m.presence","content":{"push":{}}}`, `{"edu_type":"m.presence","content":null}`,
				`{"edu_type":"m.presence","content":{"push":[` + strings.Join(push, ",") + `]}}`, `{"edu_type":"m.presence","content":{"push":"all"}}`,
			}))
		}
		shown := func(id matrix.UserID) string {
			t.Helper()
			user, err := db.User(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			s, err := people.Of(t.Context(), user.NID, id)
			if err != nil {
				t.Fatal(err)
			}
			return s.State.String() + " " + s.Message
		}
		good := func(id matrix.UserID, state, message string) string {
			return fmt.Sprintf(`{"user_id":%q,"presence":%q,"status_msg":%q,"last_active_ago":1}`, id, state, message)
		}
		entries := []string{good(bob, "unavailable", "first"), good(w.user("alice").ID, "online", "spoofed"), good("@x:other.test", "online", "spoofed")}
		for _, bad := range badEntries(carol, "online") {
			entries = append(entries, strings.ReplaceAll(bad, "them.test", string(w.p.Name)))
		}
		entries = append(entries, good(w.p.User("stranger"), "online", "in no room"))
		tell("bad", append(entries, good(carol, "online", "last"))...)
		for id, want := range map[matrix.UserID]string{
			bob: "unavailable first", carol: "online last", w.user("alice").ID: "offline ", "@x:other.test": "offline ", w.p.User("stranger"): "offline ",
		} {
			if got := shown(id); got != want {
				t.Errorf("%s is shown %q, want %q", id, got, want)
			}
		}
		var many []string
		for len(many) < maxPresenceIn-1 {
			many = append(many, `{}`)
		}
		tell("long", append(many, good(bob, "online", "the last that counts"), good(carol, "offline", "one too many"))...)
		if got := shown(bob) + ", " + shown(carol); got != "online the last that counts, online last" {
			t.Errorf("after a long list they are shown %q", got)
		}
		tell("endless", append([]string{good(bob, "offline", "")}, strings.Split(strings.Repeat("0,", 12_000)+"0", ",")...)...)
		if got := shown(bob); got != "offline " {
			t.Errorf("after a list without end bob is shown %q", got)
		}
	})
}

// TestWaitingPresenceIsBounded has servers that do not fetch what they are to be told: it is counted, and forgotten when it
// gets too much or too old.
func TestWaitingPresenceIsBounded(t *testing.T) {
	clk := newClock()
	s := NewSignals(nil, testIdentity(t), slog.New(slog.DiscardHandler), clk.now)
	var users []matrix.UserID
	for n := range 150 {
		users = append(users, matrix.UserID(fmt.Sprint("@u", n, ":us.test")))
	}
	counted := func(what string, want int) {
		t.Helper()
		n := 0
		for _, a := range s.presence {
			n += len(a.users)
		}
		if n != want || s.waits != want {
			t.Errorf("%s %d wait and %d are counted, want %d", what, n, s.waits, want)
		}
	}
	s.Presence("a.test", users)
	s.Presence("a.test", users)
	s.Presence("b.test", users[:3])
	s.Presence(ourName, users)
	counted("at first", 153)
	s.takePresence("a.test")
	counted("after a hundred were taken", 53)
	s.takePresence("a.test")
	counted("after all were taken", 3)
	clk.add(presenceLife + time.Second)
	s.Presence("b.test", users[:2])
	counted("after a while", 2)
	clk.add(presenceLife + time.Second)
	if _, ok := s.takePresence("b.test"); ok || s.waits != 0 || len(s.presence) != 0 {
		t.Errorf("what is old is kept: %d", s.waits)
	}
	for n := range presencePeers + 1 {
		s.Presence(matrix.ServerName(fmt.Sprint("s", n, ".test")), users[:2])
	}
	counted("after more servers than are kept", 2)
	for n := range 2 * presenceQueue {
		s.Presence("many.test", []matrix.UserID{matrix.UserID(fmt.Sprint("@n", n, ":us.test"))})
	}
	counted("of more users than are kept", presenceQueue+2)
	s.waits = presenceWaits // as if others waited
	s.Presence("c.test", users)
	counted("after too many in all", len(users))
}
