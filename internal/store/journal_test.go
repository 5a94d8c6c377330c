package store_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/wait"
)

// TestJournalIsTheStream has many writers of both kinds, some of whom fail: whatever range the journal answers, it answers
// what the database does.
func TestJournalIsTheStream(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		a := newAppends(t, db)
		var working atomic.Int32
		var all sync.WaitGroup
		for w := range 6 {
			working.Add(1)
			all.Go(func() {
				defer working.Add(-1)
				if w%2 == 0 {
					a.appendMany(w)
				} else {
					changeMany(t, db, w)
				}
			})
		}
		answered := 0
		last := store.Pos(0)
		for done := false; !done; {
			done = working.Load() == 0
			bound, err := db.StreamBound(t.Context())
			must(t, err)
			if commits, ok := db.Committed(last, bound); ok {
				answered++
				if got, want := inRange(commits, last, bound), readRange(t, db, last, bound); !slices.Equal(got, want) {
					t.Fatalf("between %d and %d the journal has\n%v, the database\n%v", last, bound, got, want)
				}
			}
			last = bound
		}
		all.Wait()
		if answered < 10 {
			t.Errorf("the journal answered %d times", answered)
		}
	})
}

func (a *appends) appendMany(w int) {
	room, head := a.room()
	for n := range 40 {
		row := a.row(room, fmt.Sprint(w, " ", n))
		group := &store.Append{Room: room, Head: head, Events: []*store.EventRow{row, a.row(room, fmt.Sprint(w, " ", n, " too"))}}
		if n%3 == 0 {
			group.Members = []store.MemberChange{{Member: a.by, Membership: store.Join, Event: row.NID}}
		}
		if n%5 == 4 {
			group.Head = 1 // which it is not
		}
		if err := a.db.Append(a.t.Context(), group); err == nil {
			head = group.Events[1].NID
		}
	}
}

func changeMany(t *testing.T, db *store.DB, w int) {
	for n := range 40 {
		_ = db.Write(t.Context(), func(tx *store.Tx) error {
			for range 1 + rand.IntN(2) {
				if _, err := tx.AddChange(store.ChangeReceipt, store.RoomNID(w+1), store.UserNID(n+1)); err != nil {
					return err
				}
			}
			if n%4 == 3 {
				return fmt.Errorf("changed my mind")
			}
			return nil
		})
	}
}

// inRange describes what commits hold in a range.
func inRange(commits []store.Commit, after, upTo store.Pos) (list []string) {
	for _, c := range commits {
		for _, e := range c.Events {
			if e.Pos > after && e.Pos <= upTo {
				list = append(list, fmt.Sprint(e.Pos, " event ", e.Event.ID()))
			}
		}
		for _, ch := range c.Changes {
			if ch.Pos > after && ch.Pos <= upTo {
				list = append(list, fmt.Sprint(ch))
			}
		}
	}
	slices.Sort(list)
	return list
}

func readRange(t *testing.T, db *store.DB, after, upTo store.Pos) (list []string) {
	t.Helper()
	must(t, db.Read(t.Context(), func(tx *store.Tx) error {
		err := tx.Stream(after, upTo, 100_000, func(e *store.EventRow) { list = append(list, fmt.Sprint(e.Pos, " event ", e.Event.ID())) })
		if err != nil {
			return err
		}
		return tx.Changes(after, upTo, func(c store.Change) { list = append(list, fmt.Sprint(c)) })
	}))
	slices.Sort(list)
	return list
}

// TestJournalForgets holds the newest part of the stream only.
func TestJournalForgets(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		before, err := db.StreamBound(t.Context())
		must(t, err)
		var changes []store.Change
		must(t, db.Write(t.Context(), func(tx *store.Tx) error {
			first, err := tx.NextPos(5000)
			changes = nil
			for n := range 5000 {
				changes = append(changes, store.Change{Pos: first + store.Pos(n), Kind: store.ChangeReceipt, Room: 1, User: 1})
			}
			if err != nil {
				return err
			}
			return tx.AddChanges(changes)
		}))
		bound, err := db.StreamBound(t.Context())
		must(t, err)
		if _, ok := db.Committed(before, bound); ok || bound < changes[4999].Pos {
			t.Errorf("5000 changes are remembered: %v, bound %d", ok, bound)
		}
		if commits, ok := db.Committed(bound, bound); !ok || len(commits) != 0 {
			t.Errorf("after the end: %v, %v", commits, ok)
		}
	})
}

// TestJournalWaitsForAProcessBefore opens a database in which another process, whose hold on it is gone, still has a
// transaction under way: its change is missed by nobody.
func TestJournalWaitsForAProcessBefore(t *testing.T) {
	url := dbtest.URL(t, "postgres")
	old, err := store.Open(t.Context(), store.Options{URL: url, Cluster: true}) // has no hold
	must(t, err)
	defer func() { must(t, old.Close()) }()
	var at store.Pos
	took, goOn, ended := make(chan bool), make(chan bool), make(chan error)
	go func() {
		ended <- old.Write(t.Context(), func(tx *store.Tx) (err error) {
			at, err = tx.AddChange(store.ChangeReceipt, 1, 1)
			took <- true
			<-goOn
			return err
		})
	}()
	<-took
	db, err := store.Open(t.Context(), store.Options{URL: url})
	must(t, err)
	defer func() { must(t, db.Close()) }()
	var own store.Pos
	must(t, db.Write(t.Context(), func(tx *store.Tx) (err error) {
		own, err = tx.AddChange(store.ChangeReceipt, 2, 2)
		return err
	}))
	if bound, err := db.StreamBound(t.Context()); err != nil || bound >= at {
		t.Errorf("the bound is %d, %v, with a transaction at %d under way", bound, err, at)
	}
	close(goOn)
	must(t, <-ended)
	bound, err := db.StreamBound(t.Context())
	must(t, err)
	if bound < own {
		t.Errorf("the bound is %d after a commit at %d", bound, own)
	}
	if commits, ok := db.Committed(0, bound); ok {
		t.Errorf("the journal claims to know what another process did: %v", commits)
	}
	if got := readRange(t, db, at-1, bound); len(got) != 2 {
		t.Errorf("the stream has %v", got)
	}
}

// TestJournalEndsWithTheHold takes a node's hold on its database away: from then on it asks the database.
func TestJournalEndsWithTheHold(t *testing.T) {
	url := dbtest.URL(t, "postgres")
	db, err := store.Open(t.Context(), store.Options{URL: url})
	must(t, err)
	defer func() { must(t, db.Close()) }()
	change := func(db *store.DB, user store.UserNID) (at store.Pos) {
		wait.Until(t, "the hold to be there, or there again", func() bool {
			return nil == db.Write(t.Context(), func(tx *store.Tx) (err error) {
				at, err = tx.AddChange(store.ChangeReceipt, 1, user)
				return err
			})
		})
		return at
	}
	change(db, 1)
	bound, err := db.StreamBound(t.Context())
	must(t, err)
	if _, ok := db.Committed(bound, bound); !ok {
		t.Fatal("the journal has not begun")
	}
	must(t, db.Write(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'conclave node' AND datname = current_database()`)
		return err
	}))
	wait.Until(t, "the loss of the hold to be noticed", func() bool {
		_, ok := db.Committed(bound, bound)
		return !ok
	})
	other, err := store.Open(t.Context(), store.Options{URL: url, Cluster: true})
	must(t, err)
	defer func() { must(t, other.Close()) }()
	at := change(other, 2)
	if bound, err = db.StreamBound(t.Context()); err != nil || bound < at {
		t.Errorf("another node committed at %d, the bound is %d, %v", at, bound, err)
	}
	change(db, 3)
}
