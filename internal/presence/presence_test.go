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

const (
	alice = matrix.UserID("@alice:us.test")
	bob   = matrix.UserID("@bob:us.test")
	carol = matrix.UserID("@carol:us.test")
	zoe   = matrix.UserID("@zoe:them.test")
)

func TestPeopleComeGetIdleAndGo(t *testing.T) {
	proof.Of(t, "US-12")
	w := onSQLite(t)
	w.is(alice, Offline)
	leave := w.connect(alice, 1)
	w.is(alice, Online)
	w.pass(4 * time.Minute)
	leave()
	w.connect(alice, 1)() // a poll is nothing that somebody does
	w.pass(50 * time.Second)
	w.is(alice, Online)
	leave = w.connect(alice, 1)
	w.pass(10 * time.Second)
	w.is(alice, Unavailable)
	w.p.Active(w.user(alice), alice, 1)
	w.is(alice, Online)
	leave()
	w.pass(59 * time.Second)
	w.is(alice, Online)
	w.pass(time.Second)
	w.is(alice, Offline)
	s, err := w.p.Of(t.Context(), w.user(alice), alice)
	w.must(err)
	if c := s.Content(w.clock); c.LastActiveAgo == nil || *c.LastActiveAgo != time.Minute.Milliseconds() || c.Current {
		t.Errorf("alice's presence is %+v", c)
	}
	w.p.Active(w.user(alice), alice, 7) // somebody who sends without waiting for anything
	w.is(alice, Online)
	w.pass(time.Minute)
	w.is(alice, Offline)
}

func TestClientsAreTakenTogether(t *testing.T) {
	proof.Of(t, "US-12")
	w := onSQLite(t)
	phone, laptop := w.connect(alice, 1, Unavailable), w.connect(alice, 2, Offline)
	w.is(alice, Unavailable)
	w.p.Active(w.user(alice), alice, 2) // hides
	w.is(alice, Unavailable)
	w.p.Active(w.user(alice), alice, 1)
	w.is(alice, Online)
	w.p.Set(w.user(alice), alice, 1, Offline, "")
	w.is(alice, Offline)
	w.p.Set(w.user(alice), alice, 2, Unavailable, "lunch")
	w.is(alice, Unavailable)
	laptop()
	w.connect(alice, 2)() // does not say; what was set stands
	w.is(alice, Unavailable)
	w.connect(alice, 2, Online)()
	w.is(alice, Online)
	w.p.Set(w.user(alice), alice, 2, Offline, "")
	w.is(alice, Offline)
	w.connect(alice, 2)() // as the specification has it: polling shows that one is there
	w.is(alice, Online)
	phone()
	w.pass(2 * time.Minute)
	w.is(alice, Offline)
	w.connect(bob, 1, Unavailable) // opened behind other windows
	w.is(bob, Unavailable)
	w.connect(bob, 1, Online)
	w.is(bob, Online)
	w.pass(idleAfter)
	w.connect(bob, 1, Online) // as before: nobody came back
	w.is(bob, Unavailable)
	for device := range int64(3 * maxDevices) {
		w.connect(alice, device+1)
	}
	if n := len(w.p.users[w.user(alice)].devices); n != maxDevices {
		t.Errorf("%d devices are kept", n)
	}
}

func TestOnlyChangesAreTold(t *testing.T) {
	proof.Of(t, "US-12")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		w.join(1, alice, bob)
		w.join(2, carol)
		leave := w.connect(alice, 1)
		w.connect(carol, 1)
		w.pass(0)
		list, at := w.told(bob, 0)
		w.wants("bob is told at first", list, "@alice:us.test online")
		list, _ = w.told(carol, 0)
		w.wants("carol is told at first", list, "@carol:us.test online")
		list, _ = w.told(alice, 0)
		w.wants("alice is told at first", list, "@alice:us.test online")
		for range 50 { // sends and polls, but changes nothing
			w.p.Active(w.user(alice), alice, 1)
			leave()
			leave = w.connect(alice, 1)
			w.pass(time.Second)
		}
		if list, upTo := w.told(bob, at); len(list) != 0 || upTo != at || len(w.heard) != 1 {
			t.Errorf("nothing changed, and bob is told %q up to %d, listeners were woken %d times", list, upTo-at, len(w.heard))
		}
		for range 10 { // there and back, too fast to be told
			w.p.Set(w.user(alice), alice, 1, Unavailable, "")
			w.p.Set(w.user(alice), alice, 1, Online, "")
		}
		w.pass(time.Minute)
		if len(w.heard) != 1 {
			t.Errorf("what was no change in the end woke listeners %d times", len(w.heard)-1)
		}
		for i := range 600 { // ten a second, for a minute
			w.p.Set(w.user(alice), alice, 1, State(1+i%2), "")
			w.pass(100 * time.Millisecond)
		}
		if n := len(w.heard) - 1; n < 20 || n > 61 {
			t.Errorf("600 changes in a minute woke the listeners %d times", n)
		}
		w.p.Set(w.user(alice), alice, 1, Unavailable, "at lunch")
		w.pass(5 * time.Second)
		list, at = w.told(bob, at)
		w.wants("bob is told then", list, "@alice:us.test unavailable at lunch")
		leave()
		w.pass(2 * time.Minute)
		list, at = w.told(bob, at)
		w.wants("bob is told in the end", list, "@alice:us.test offline at lunch")
		list, _ = w.told(bob, at)
		w.wants("and nothing more", list)
	})
}

func TestNewRoomsBringPeopleIntoView(t *testing.T) {
	w := onSQLite(t)
	w.join(1, alice)
	w.join(2, carol)
	w.connect(alice, 1)
	w.connect(carol, 1)
	w.connect(bob, 1)
	w.pass(time.Minute)
	list, at := w.told(bob, 0)
	w.wants("bob alone sees", list, "@bob:us.test online")
	w.join(1, bob)
	list, _ = w.told(bob, at)
	w.wants("nobody changed", list)
	list, _ = w.told(bob, at, func(q *Query) { q.Fresh = map[store.RoomNID]bool{1: true} })
	w.wants("in the new room are", list, "@alice:us.test online")
	w.join(1, carol)
	list, _ = w.told(alice, at, func(q *Query) { q.Met = map[matrix.UserID]bool{carol: true, zoe: true} })
	w.wants("alice saw carol come", list, "@carol:us.test online")
	list, _ = w.told(alice, at, func(q *Query) { q.All = true })
	w.wants("all", list, "@alice:us.test online", "@bob:us.test online", "@carol:us.test online")
	list, _ = w.told(alice, at, func(q *Query) { q.All, q.Limit = true, 2 })
	if len(list) != 2 {
		t.Errorf("of at most two there are %q", list)
	}
	list, _ = w.told(alice, 0, func(q *Query) { q.Keep = func(id matrix.UserID) bool { return id != bob } })
	w.wants("without bob", list, "@alice:us.test online", "@carol:us.test online")
	w.move(1, store.Leave, carol)
	w.p.Set(w.user(carol), carol, 1, Unavailable, "gone")
	w.pass(time.Minute)
	list, _ = w.told(alice, at)
	w.wants("of who has left", list)
}

// TestIdleCostsNothing counts how often the loop looks: presence is what users of other servers switch off for what it
// costs.
func TestIdleCostsNothing(t *testing.T) {
	w := onSQLite(t)
	w.p.Tell(w)
	var ids []matrix.UserID
	for n := range 500 {
		ids = append(ids, matrix.UserID(fmt.Sprintf("@u%d:us.test", n)))
	}
	w.join(1, ids...)
	for _, id := range ids { // sockets
		w.connect(id, 1)
	}
	w.pass(time.Hour) // all get idle, and other servers are told
	looks := w.pass(24 * time.Hour)
	// Every 25 minutes other servers are told again, which takes two looks: one to gather and one to tell.
	if most := 24*60/25*3 + 2; looks > most {
		t.Errorf("in a day of 500 idle sockets the loop looked %d times, more than %d", looks, most)
	}
	if len(w.heard) > 4 {
		t.Errorf("listeners were woken in %d rounds", len(w.heard))
	}
	w.p.Tell(nil)
	w.pass(time.Hour)
	if next := w.p.step(t.Context()); !next.IsZero() {
		t.Errorf("the loop wants to look again at %v", next)
	}
	looks = 0
	for range 100 { // long polls of half a minute, each followed by the next
		for _, id := range ids {
			leave := w.connect(id, 2, Unavailable)
			leave()
			w.connect(id, 2, Unavailable)
		}
		looks += w.pass(30 * time.Second)
	}
	if looks > 300 {
		t.Errorf("50,000 polls had the loop look %d times", looks)
	}
}

func TestPauseGrowsWithListeners(t *testing.T) {
	w := onSQLite(t)
	var ids []matrix.UserID
	for n := range 1000 {
		ids = append(ids, matrix.UserID(fmt.Sprintf("@u%d:us.test", n)))
	}
	w.join(1, ids...)
	for i := range 600 { // somebody comes every 100 ms, for a minute
		w.connect(ids[i], 1)
		w.pass(100 * time.Millisecond)
	}
	if n := len(w.heard); n < 5 || n > 13 {
		t.Errorf("1,000 listeners were woken %d times in a minute", n)
	}
	list, _ := w.told(ids[999], 0)
	if len(list) < 500 {
		t.Errorf("only %d of 600 were told", len(list))
	}
}

func TestPresenceOutlivesTheProcess(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		w.join(1, alice, bob, carol, zoe)
		w.must(db.Write(t.Context(), func(tx *store.Tx) error {
			return tx.SetProfile(w.user(alice), `{"displayname":"Alice","avatar_url":"mxc://us.test/a"}`)
		}))
		w.connect(alice, 1)
		w.p.Set(w.user(alice), alice, 1, Online, "here")
		w.connect(carol, 1, Unavailable)
		w.must(w.p.Take(t.Context(), []Update{{User: zoe, State: Online}}))
		w.pass(time.Second)
		_, before := w.told(bob, 0)
		w.must(w.p.leave(t.Context()))
		w.clock = w.clock.Add(time.Second)

		w.start()
		list, at := w.told(bob, before) // a client of before the restart learns what may have changed
		w.wants("after the restart", list, "@alice:us.test online here", "@carol:us.test unavailable", "@zoe:them.test online")
		w.connect(carol, 1)
		w.pass(30 * time.Second)
		list, _ = w.told(bob, at)
		w.wants("that a client came back", list)
		w.is(carol, Unavailable)
		w.pass(2 * time.Minute)
		list, _ = w.told(bob, at)
		w.wants("that alice did not", list, "@alice:us.test offline here")
		found, _, err := w.p.Read(t.Context(), Query{User: w.user(alice), Limit: 10, After: at})
		w.must(err)
		if len(found) != 1 || found[0].Name != "Alice" || found[0].Avatar != "mxc://us.test/a" {
			t.Errorf("alice herself is shown %+v", found)
		}

		w.pass(time.Minute)
		w.clock = w.clock.Add(time.Hour)
		w.start() // this time after a crash: what other servers said is gone, what was stored is not
		s, err := w.p.Of(t.Context(), w.user(alice), alice)
		w.must(err)
		if s.State != Offline || s.Message != "here" || s.Active.IsZero() || w.clock.Sub(s.Active) < time.Hour {
			t.Errorf("alice is %+v", s)
		}
		w.is(zoe, Offline)
	})
}

func TestNewNamesAreTold(t *testing.T) {
	proof.Of(t, "US-02")
	w := onSQLite(t)
	w.join(1, alice, bob)
	w.connect(alice, 1)
	w.pass(time.Minute)
	_, at := w.told(bob, 0)
	w.must(w.db.Write(t.Context(), func(tx *store.Tx) error { return tx.SetProfile(w.user(alice), `{"displayname":"Alice"}`) }))
	w.p.Renamed(w.user(alice))
	w.p.Renamed(w.user(bob)) // of whom nothing is known
	w.pass(time.Minute)
	found, _, err := w.p.Read(t.Context(), Query{User: w.user(bob), Joined: func(store.RoomNID) bool { return true }, After: at, Limit: 10})
	w.must(err)
	if len(found) != 1 || found[0].User != alice || found[0].Name != "Alice" || found[0].State != Online {
		t.Errorf("bob is told %+v", found)
	}
}

func TestNothingHappensWhereItIsOff(t *testing.T) {
	var p *Presence
	p.Connect(1, alice, 1, nil)()
	p.Active(1, alice, 1)
	p.Set(1, alice, 1, Online, "here")
	p.Moved(1, 1)
	p.Renamed(1)
	p.Closed(1)
	p.Listen(nil)
	p.Tell(nil)
	s, err := p.Of(t.Context(), 1, alice)
	if err != nil || s.State != Offline || s.Message != "" || p.Position() != 0 || p.Take(t.Context(), []Update{{User: zoe, State: Online}}) != nil {
		t.Errorf("switched off it says %+v (%v)", s, err)
	}
}

func TestShorten(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "here": "here", "a\x00b": "ab", strings.Repeat("x", 2000): strings.Repeat("x", MaxMessage),
		strings.Repeat("x", 1023) + "é": strings.Repeat("x", 1023), strings.Repeat("x", 1022) + "é": strings.Repeat("x", 1022) + "é",
	} {
		if got := Shorten(in); got != want {
			t.Errorf("%.20q… becomes one of %d bytes, want %d", in, len(got), len(want))
		}
	}
}
