package presence

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/proof"
)

// account gives a user of ours an account.
func (w *world) account(id matrix.UserID) {
	w.t.Helper()
	user := w.user(id)
	w.must(w.db.Write(w.ctx(), func(tx *store.Tx) error {
		_, err := tx.CreateAccount(store.Account{User: user, ID: id})
		return err
	}))
}

// deactivate closes an account in the database alone.
func (w *world) deactivate(id matrix.UserID) {
	w.t.Helper()
	user := w.user(id)
	w.must(w.db.Write(w.ctx(), func(tx *store.Tx) error { return tx.Deactivate(user) }))
}

// stored is what the database has of a user's presence.
func (w *world) stored(id matrix.UserID) (rows []string) {
	w.t.Helper()
	user := w.user(id)
	w.must(w.db.Read(w.ctx(), func(tx *store.Tx) error {
		rows = nil
		return tx.PresenceOf([]store.UserNID{user}, func(r store.PresenceRow) { rows = append(rows, fmt.Sprint(r.State, " ", r.Message)) })
	}))
	return rows
}

// TestClosedAccountsAreForgotten closes an account while its user is there: nothing of it stays in memory or comes back to
// the database, whatever is still under way.
func TestClosedAccountsAreForgotten(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		w.account(alice)
		w.account(carol)
		w.join(1, alice, bob)
		leave := w.connect(alice, 1)
		w.p.Set(w.user(alice), alice, 1, Online, "secret")
		w.p.Set(w.user(carol), carol, 1, Online, "mine")
		w.pass(time.Minute)
		_, at := w.told(bob, 0)
		if got := w.stored(alice); !slices.Equal(got, []string{"2 secret"}) {
			t.Fatalf("the database has %q", got)
		}
		w.p.Set(w.user(alice), alice, 1, Unavailable, "secret still")
		w.pass(2 * time.Second) // told, and to be stored in a while
		w.deactivate(alice)
		w.nothingOf(alice, "at once")
		w.p.Closed(w.user(alice))
		w.p.Closed(w.user(bob)) // of whom nothing is known
		w.p.Set(w.user(alice), alice, 1, Online, "secret again")
		w.p.Active(w.user(alice), alice, 2)
		w.p.Renamed(w.user(alice))
		leave()
		w.connect(alice, 3)
		w.pass(time.Minute)
		w.is(alice, Offline)
		list, _ := w.told(bob, at)
		w.wants("bob is told", list, "@alice:us.test offline")
		w.nothingOf(alice, "after the next round")
		w.must(w.p.leave(t.Context()))
		w.nothingOf(alice, "after the end")
		w.start()
		w.is(alice, Offline)
		if got := w.stored(carol); len(got) != 1 {
			t.Errorf("of carol the database has %q", got)
		}
		closedWhileItIsWritten(newWorld(t, db))
	})
}

func (w *world) nothingOf(id matrix.UserID, when string) {
	w.t.Helper()
	if got := w.stored(id); len(got) != 0 {
		w.t.Errorf("%s the database has %q of %s", when, got, id)
	}
}

// closedWhileItIsWritten has an account closed of which a row is on its way.
func closedWhileItIsWritten(w *world) {
	const dora = "@dora:us.test"
	w.account(dora)
	w.join(1, dora)
	w.connect(dora, 1)
	w.pass(time.Second)
	e := w.p.users[w.user(dora)]
	w.p.saved(map[*entry]bool{e: true}, nil) // written, and still open then and now
	if len(w.p.unsaved) != 0 {
		w.t.Error("what was written is to be written again")
	}
	row := e.row()
	w.deactivate(dora)
	w.p.Closed(w.user(dora))
	w.must(w.db.Write(w.ctx(), func(tx *store.Tx) error { return tx.PutPresence([]store.PresenceRow{row}) }))
	w.nothingOf(dora, "after a late writer")
	w.p.saved(map[*entry]bool{e: true}, nil) // open when its row was made, closed when that was written
	if _, again := w.p.unsaved[e]; !again {
		w.t.Error("a row that may have come too late is not looked at again")
	}
	w.p.saveAt = time.Time{}
	w.pass(time.Second)
	if len(w.p.unsaved) != 0 {
		w.t.Error("a closed account is written again and again")
	}
}

// TestChangesThatDoNotFitComeNext has a client that takes two at a time: it misses no change, and does not get any twice.
func TestChangesThatDoNotFitComeNext(t *testing.T) {
	proof.Of(t, "US-12")
	w := onSQLite(t)
	var ids []matrix.UserID
	for n := range 7 {
		ids = append(ids, matrix.UserID(fmt.Sprintf("@u%d:us.test", n)))
	}
	w.join(1, append(ids, bob)...)
	w.join(2, carol)
	for _, id := range append(ids, carol) {
		w.connect(id, 1)
	}
	w.pass(time.Minute)
	two := func(q *Query) { q.Limit = 2 }
	list, at := w.told(bob, 0, two)
	if next, _ := w.told(bob, at, two); len(list) != 2 || len(next) != 0 {
		t.Errorf("at first bob is told %q, and then %q", list, next)
	}
	for i, id := range append(ids, carol) {
		w.p.Set(w.user(id), id, 1, State(i%2), "") // some go, and are told of all the same
		w.pass(time.Second)
	}
	var all []string
	for range 4 {
		list, at = w.told(bob, at, two)
		all = append(all, list...)
	}
	w.wants("in four parts", all, "@u0:us.test offline", "@u1:us.test unavailable", "@u2:us.test offline", "@u3:us.test unavailable",
		"@u4:us.test offline", "@u5:us.test unavailable", "@u6:us.test offline")
	if list, upTo := w.told(bob, at, two); len(list) != 0 || upTo != w.p.Position() {
		t.Errorf("after all bob is told %q, up to %d of %d", list, upTo, w.p.Position())
	}
	// Whoever was away for long is told of what changed first, and of who is there besides as far as there is room.
	list, at = w.told(bob, at, two, func(q *Query) { q.All, q.After = true, q.After-3 })
	w.wants("of the last three", list, "@u5:us.test unavailable", "@u6:us.test offline")
	list, _ = w.told(bob, at, func(q *Query) { q.All = true })
	w.wants("everybody who is there", list, "@u1:us.test unavailable", "@u3:us.test unavailable", "@u5:us.test unavailable")
}

// TestWhatIsNotStoredIsNotDropped has more users than are kept: the one told of longest ago goes, once its state is stored.
func TestWhatIsNotStoredIsNotDropped(t *testing.T) {
	w := onSQLite(t)
	w.join(1, alice, bob)
	w.p.Set(w.user(alice), alice, 1, Offline, "unsaved")
	w.pass(time.Second)
	w.p.Set(w.user(bob), bob, 1, Offline, "saved")
	w.pass(2 * time.Minute)
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	e := w.p.users[w.user(alice)]
	w.p.unsaved[e] = struct{}{}
	for range maxUsers {
		w.p.order.PushFront(&entry{timer: -1})
	}
	if w.p.trim(); w.p.users[w.user(alice)] == nil || w.p.users[w.user(bob)] != nil {
		t.Error("the wrong one is dropped")
	}
	delete(w.p.unsaved, e)
	if w.p.trim(); w.p.users[w.user(alice)] != nil {
		t.Error("what is stored is kept")
	}
}

// TestRoundsAreBounded has users of other servers come and go by the thousand: ours do not wait for them.
func TestRoundsAreBounded(t *testing.T) {
	w := onSQLite(t)
	for i := range 2*tellMost + 100 {
		w.p.changed[&entry{local: i%20 == 0}] = struct{}{}
	}
	ours := 0
	for _, want := range []int{tellMost, tellMost, 100, 0} {
		part := w.p.round()
		for e := range part {
			if e.local {
				ours++
			}
		}
		if len(part) != want || ours != 105 {
			t.Errorf("a round has %d users, want %d; until then %d of ours", len(part), want, ours)
		}
	}
}

// TestTheLastWordIsKept sets a status in the moment in which the process ends, before anybody is told.
func TestTheLastWordIsKept(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		w.account(alice)
		w.account(carol)
		w.connect(alice, 1)
		w.p.Set(w.user(alice), alice, 1, Online, "at lunch")
		w.p.Set(w.user(carol), carol, 1, Online, "here")
		w.pass(time.Minute)
		w.p.Set(w.user(alice), alice, 1, Unavailable, "gone home")
		w.p.Set(w.user(carol), carol, 1, Online, "")
		w.must(w.p.leave(t.Context()))
		if got := w.stored(alice); !slices.Equal(got, []string{"1 gone home"}) {
			t.Errorf("of alice the database has %q", got)
		}
		if got := w.stored(carol); !slices.Equal(got, []string{"2 "}) {
			t.Errorf("of carol the database has %q", got)
		}
		w.start()
		if s, err := w.p.Of(t.Context(), w.user(alice), alice); err != nil || s.Message != "gone home" || s.State != Unavailable {
			t.Errorf("the next process shows %+v, %v", s, err)
		}
	})
}

// TestHomeTakesUpNobodyElse switches presence of other servers off between two processes.
func TestHomeTakesUpNobodyElse(t *testing.T) {
	w := onSQLite(t)
	w.join(1, alice, zoe)
	w.connect(alice, 1)
	w.must(w.p.Take(t.Context(), []Update{{User: zoe, State: Online}}))
	w.pass(time.Second)
	w.must(w.p.leave(t.Context()))
	w.home = true
	w.start()
	list, _ := w.told(alice, 0)
	w.wants("alice is told", list, "@alice:us.test online")
	w.is(zoe, Offline)
}
