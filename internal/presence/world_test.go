package presence

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
)

// world is a Presence whose loop the test turns, at the times that the test wants.
type world struct {
	t     testing.TB
	db    *store.DB
	clock time.Time
	p     *Presence
	home  bool // other servers neither tell nor are told

	people map[matrix.UserID]store.User
	rooms  map[store.RoomNID][]matrix.UserID // of everybody who was put there
	heard  []int                             // how many listeners each round woke

	sent map[matrix.ServerName][][]matrix.UserID // what servers are to be told
}

func newWorld(t testing.TB, db *store.DB) *world {
	w := &world{
		t: t, db: db, clock: time.UnixMilli(1_700_000_000_000), people: map[matrix.UserID]store.User{},
		rooms: map[store.RoomNID][]matrix.UserID{}, sent: map[matrix.ServerName][][]matrix.UserID{},
	}
	w.start()
	return w
}

// start makes a Presence over the database, as a process does that starts.
func (w *world) start() {
	w.t.Helper()
	p, err := New(w.ctx(), Options{
		DB: w.db, Server: "us.test", Log: slog.New(slog.DiscardHandler), Clock: func() time.Time { return w.clock }, Abroad: !w.home,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.p = p
	p.Listen(func(rooms map[store.RoomNID]struct{}, users []store.UserNID) int {
		woken := map[matrix.UserID]bool{}
		for room := range rooms {
			for _, id := range w.rooms[room] {
				woken[id] = true
			}
		}
		w.heard = append(w.heard, len(woken))
		return len(woken)
	})
}

// Presence implements Remote.
func (w *world) Presence(server matrix.ServerName, users []matrix.UserID) {
	slices.Sort(users)
	w.sent[server] = append(w.sent[server], users)
}

func (w *world) ctx() context.Context { return w.t.Context() }

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) user(id matrix.UserID) store.UserNID {
	w.t.Helper()
	if u, ok := w.people[id]; ok {
		return u.NID
	}
	u, err := w.db.User(w.ctx(), id)
	w.must(err)
	w.people[id] = u
	return u.NID
}

// join puts users into a room.
func (w *world) join(room store.RoomNID, ids ...matrix.UserID) { w.move(room, store.Join, ids...) }

func (w *world) move(room store.RoomNID, to store.Membership, ids ...matrix.UserID) {
	w.t.Helper()
	for _, id := range ids {
		w.user(id)
	}
	w.must(w.db.Write(w.ctx(), func(tx *store.Tx) error {
		for _, id := range ids {
			if _, err := tx.PutMember(room, w.people[id], to, 1, ""); err != nil {
				return err
			}
		}
		return nil
	}))
	for _, id := range ids {
		w.p.Moved(room, w.user(id))
	}
	w.rooms[room] = slices.DeleteFunc(w.rooms[room], func(id matrix.UserID) bool { return slices.Contains(ids, id) })
	if to == store.Join {
		w.rooms[room] = append(w.rooms[room], ids...)
	}
}

// connect is a client's request that waits.
func (w *world) connect(id matrix.UserID, device int64, wish ...State) (leave func()) {
	var as *State
	if len(wish) > 0 {
		as = &wish[0]
	}
	return w.p.Connect(w.user(id), id, device, as)
}

// pass lets time go by, and the loop do what it has to in it. It says how often the loop looked.
func (w *world) pass(d time.Duration) (looks int) {
	w.t.Helper()
	end := w.clock.Add(d)
	for {
		next := w.p.step(w.ctx())
		looks++
		select {
		case <-w.p.kick:
		default:
		}
		if next.IsZero() || next.After(end) {
			w.clock = end
			return looks
		}
		if looks > 100_000 {
			w.t.Fatal("the loop does not rest")
		}
		w.clock = later(w.clock, next)
	}
}

// shown is a user's state as it is now.
func (w *world) shown(id matrix.UserID) State {
	w.t.Helper()
	s, err := w.p.Of(w.ctx(), w.user(id), id)
	w.must(err)
	return s.State
}

func (w *world) is(id matrix.UserID, want State) {
	w.t.Helper()
	if got := w.shown(id); got != want {
		w.t.Errorf("%s is %s, want %s", id, got, want)
	}
}

// told is what a client gets that has a position, as "user state", sorted, and the position after it.
func (w *world) told(id matrix.UserID, after int64, change ...func(*Query)) (list []string, upTo int64) {
	w.t.Helper()
	q := Query{User: w.user(id), After: after, All: after == 0, Limit: 1000}
	q.Joined = func(room store.RoomNID) bool { return slices.Contains(w.rooms[room], id) }
	for _, f := range change {
		f(&q)
	}
	found, upTo, err := w.p.Read(w.ctx(), q)
	w.must(err)
	for _, s := range found {
		text := string(s.User) + " " + s.State.String()
		if s.Message != "" {
			text += " " + s.Message
		}
		list = append(list, text)
	}
	slices.Sort(list)
	return list, upTo
}

func (w *world) wants(what string, got []string, want ...string) {
	w.t.Helper()
	if !slices.Equal(got, want) {
		w.t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// onSQLite is a world whose database matters little.
func onSQLite(t testing.TB) *world { return newWorld(t, dbtest.Open(t, "sqlite")) }
