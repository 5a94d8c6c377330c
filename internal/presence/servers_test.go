package presence

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/proof"
)

// TestInterestedServersAreTold has three servers, of which one shares no room with anybody who changes.
func TestInterestedServersAreTold(t *testing.T) {
	proof.Of(t, "ED-02")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		w.p.Tell(w)
		w.join(1, alice, bob, zoe, "@x:third.test")
		w.join(2, alice, zoe)
		w.join(3, carol, "@y:fourth.test")
		w.pass(time.Minute)
		w.connect(alice, 1)
		w.connect(bob, 1)
		w.pass(4 * time.Second)
		if got := fmt.Sprint(w.sent); got != "map[them.test:[[@alice:us.test @bob:us.test]] third.test:[[@alice:us.test @bob:us.test]]]" {
			t.Errorf("servers are told %s", got)
		}
		clear(w.sent)
		for i := range 600 { // ten a second, for a minute
			w.p.Set(w.user(alice), alice, 1, State(1+i%2), "")
			w.pass(100 * time.Millisecond)
		}
		if n := len(w.sent["them.test"]); n < 5 || n > 13 {
			t.Errorf("600 changes in a minute are told %d times", n)
		}
		s, err := w.p.Statuses(t.Context(), "them.test", []matrix.UserID{alice, carol, zoe, "@nobody:us.test"})
		if w.must(err); len(s) != 1 || s[0].User != alice {
			t.Errorf("what is told is %+v", s)
		}
		w.move(1, store.Leave, zoe) // as when she is banned while the server does not answer
		w.move(2, store.Leave, zoe)
		if s, err = w.p.Statuses(t.Context(), "them.test", []matrix.UserID{alice}); err != nil || len(s) != 0 {
			t.Errorf("a server that is shut out is told %+v (%v)", s, err)
		}
	})
}

func TestServersAreToldAgain(t *testing.T) {
	w := onSQLite(t)
	w.p.Tell(w)
	w.join(1, alice, bob, zoe)
	w.connect(alice, 1)
	w.connect(bob, 1)()
	w.pass(10 * time.Minute) // online, and then alice unavailable and bob gone
	clear(w.sent)
	w.pass(50 * time.Minute)
	if got := fmt.Sprint(w.sent); got != "map[them.test:[[@alice:us.test] [@alice:us.test]]]" {
		t.Errorf("in 50 minutes servers are told %s", got)
	}
}

func TestWhoComesIsTold(t *testing.T) {
	w := onSQLite(t)
	w.p.Tell(w)
	w.join(1, alice, bob, zoe)
	w.join(2, zoe, "@y:fourth.test")
	w.connect(alice, 1)
	w.pass(10 * time.Second)
	clear(w.sent)
	w.join(1, "@x:third.test")
	w.move(1, store.Leave, bob)
	w.pass(10 * time.Second)
	if got := fmt.Sprint(w.sent); got != "map[third.test:[[@alice:us.test]]]" {
		t.Errorf("when a server comes, servers are told %s", got)
	}
	clear(w.sent)
	w.join(2, alice)
	w.pass(10 * time.Second)
	if len(w.sent["fourth.test"]) != 1 {
		t.Errorf("when alice comes, servers are told %v", w.sent)
	}
}

// TestWhatOtherServersSay is what is taken in of users who share a room with one of ours, and of no others.
func TestWhatOtherServersSay(t *testing.T) {
	proof.Of(t, "ED-02")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		w.join(1, alice, zoe)
		w.join(2, "@y:fourth.test", "@z:fourth.test") // no room of ours
		take := func(updates ...Update) {
			t.Helper()
			w.must(w.p.Take(t.Context(), updates))
			w.pass(5 * time.Second)
		}
		take(
			Update{User: zoe, State: Online, Current: true, Message: "hi", Active: w.clock},
			Update{User: "@y:fourth.test", State: Online}, Update{User: "@unheard:of.test", State: Online},
		)
		list, at := w.told(alice, 0)
		w.wants("alice sees", list, "@zoe:them.test online hi")
		if len(w.p.users) != 1 {
			t.Errorf("%d users are kept", len(w.p.users))
		}
		take(Update{User: zoe, State: Online, Current: true, Message: "hi"})
		take(Update{User: zoe, State: Unavailable}, Update{User: zoe, State: Online, Current: true, Message: "hi"}) // the last one counts
		list, _ = w.told(alice, at)
		w.wants("nothing new", list)
		take(Update{User: zoe, State: Offline, Message: "bye"})
		list, at = w.told(alice, at)
		w.wants("then", list, "@zoe:them.test offline bye")
		for range 3 {
			take(Update{User: zoe, State: Unavailable})
			w.pass(40 * time.Minute)
		}
		w.is(zoe, Unavailable)
		w.pass(time.Hour)
		list, _ = w.told(alice, at)
		w.wants("after a long silence", list, "@zoe:them.test offline")
		if next := w.p.step(t.Context()); !next.IsZero() {
			t.Errorf("the loop wants to look again at %v", next)
		}
	})
}

func TestOtherServersUsersAreBounded(t *testing.T) {
	w := onSQLite(t)
	w.join(1, alice, zoe)
	w.p.perServer["them.test"] = maxPerServer
	w.must(w.p.Take(t.Context(), []Update{{User: zoe, State: Online}}))
	if len(w.p.users) != 0 {
		t.Error("one more user of a server is kept than may be")
	}
	clear(w.p.perServer)
	w.must(w.p.Take(t.Context(), []Update{{User: zoe, State: Online, Message: strings.Repeat("x", 10)}}))
	w.pass(time.Second)
	w.connect(bob, 1)
	w.pass(time.Minute)
	e := w.p.users[w.user(zoe)]
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	w.p.drop(e)
	if len(w.p.users) != 1 || len(w.p.byID) != 1 || len(w.p.perServer) != 0 || w.p.order.Len() != 1 || len(w.p.timers) > 1 {
		t.Error("of a user who was dropped something is kept")
	}
}

// BenchmarkChange is one user who comes or goes, in a room of 1,000: what is done once for all, and what each of the 1,000
// clients asks when it is woken.
func BenchmarkChange(b *testing.B) {
	for _, engine := range dbtest.Engines {
		w := newWorld(b, dbtest.Open(b, engine))
		w.p.Tell(w)
		var ids []matrix.UserID
		for n := range 1000 {
			ids = append(ids, matrix.UserID(fmt.Sprintf("@u%d:us.test", n)))
		}
		w.join(1, ids...)
		for _, id := range ids {
			w.connect(id, 1)
		}
		w.pass(time.Minute)
		i := 0
		change := func() {
			w.p.Set(w.user(ids[0]), ids[0], 1, State(1+i%2), "")
			i++
			w.pass(tellLongest)
		}
		b.Run(engine+"/told", func(b *testing.B) {
			for b.Loop() {
				change()
			}
		})
		b.Run(engine+"/read by one of them", func(b *testing.B) {
			at := w.p.Position()
			change()
			q := Query{User: w.user(ids[1]), Joined: func(room store.RoomNID) bool { return room == 1 }, After: at, Limit: 1000}
			for b.Loop() {
				if found, _, err := w.p.Read(b.Context(), q); err != nil || len(found) != 1 {
					b.Fatal(found, err)
				}
			}
		})
		b.Run(engine+"/poll", func(b *testing.B) {
			for b.Loop() {
				w.connect(ids[2], 3)()
			}
		})
	}
}
