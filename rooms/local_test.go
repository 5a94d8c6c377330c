package rooms_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"testing"

	"conclave/internal/cluster"
	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/rooms"
)

// local is the domain over a database of its own, with users of one server and no network.
type local struct {
	t     testing.TB
	db    *store.DB
	rooms *rooms.Rooms
}

// homeName is the server of the tests.
const homeName = "one.example"

// eachLocal runs a test over both engines.
func eachLocal(t *testing.T, test func(l *local)) {
	t.Helper()
	dbtest.Each(t, func(t *testing.T, db *store.DB) { test(newLocal(t, db)) })
}

// newLocal starts the domain. It reads everything anew: nothing of another one's memory is in it.
func newLocal(t testing.TB, db *store.DB) *local {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r, err := rooms.New(ctx, rooms.Options{
		DB: db, Bus: cluster.NewLocal(),
		Identity: rooms.Identity{Name: homeName, KeyID: "ed25519:t", Key: ed25519.NewKeyFromSeed([]byte("the seed of a key for tests only"))},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
		cancel()
	})
	return &local{t, db, r}
}

func (l *local) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// refused checks that an error is a standard one with a code.
func (l *local) refused(what string, err error, code string) {
	l.t.Helper()
	var e *matrix.Error
	if !errors.As(err, &e) || e.Code != code {
		l.t.Errorf("%s: %v, want %s", what, err, code)
	}
}

// user is a user by a localpart, or by a whole ID.
func (l *local) user(name string) rooms.Sender {
	l.t.Helper()
	id := matrix.UserID(name)
	if name[0] != '@' {
		id = matrix.UserID("@" + name + ":" + homeName)
	}
	u, err := l.rooms.User(l.t.Context(), id)
	l.must(err)
	return rooms.Sender{NID: u.NID, ID: id}
}

// create makes a room as a request says, public by default.
func (l *local) create(creator rooms.Sender, change ...func(*rooms.CreateRequest)) rooms.Ref {
	l.t.Helper()
	req := rooms.CreateRequest{Creator: creator, Preset: "public_chat"}
	for _, f := range change {
		f(&req)
	}
	id, err := l.rooms.Create(l.t.Context(), req)
	l.must(err)
	ref, err := l.rooms.Lookup(l.t.Context(), id)
	l.must(err)
	return ref
}

func (l *local) join(ref rooms.Ref, users ...rooms.Sender) {
	l.t.Helper()
	for _, u := range users {
		l.must(l.rooms.Join(l.t.Context(), rooms.JoinRequest{Room: ref.ID, User: u}))
	}
}

// text sends a message.
func (l *local) text(ref rooms.Ref, who rooms.Sender, body string) matrix.EventID {
	l.t.Helper()
	id, err := l.rooms.Send(l.t.Context(), message(ref, who, body))
	l.must(err)
	return id
}

func message(ref rooms.Ref, who rooms.Sender, body string) rooms.SendRequest {
	return rooms.SendRequest{Room: ref, Sender: who, Type: "m.room.message", Content: fmt.Appendf(nil, `{"msgtype":"m.text","body":%q}`, body)}
}

// state sends a state event.
func (l *local) state(ref rooms.Ref, who rooms.Sender, typ, key, content string) (matrix.EventID, error) {
	return l.rooms.Send(l.t.Context(), rooms.SendRequest{Room: ref, Sender: who, Type: typ, StateKey: &key, Content: []byte(content)})
}

// current reads an event of the current state, "" where there is none.
func (l *local) current(ref rooms.Ref, typ, key string) string {
	l.t.Helper()
	s, err := l.rooms.CurrentState(l.t.Context(), ref.NID)
	l.must(err)
	row, err := l.rooms.StateEvent(l.t.Context(), ref.NID, s, typ, key)
	l.must(err)
	if row == nil {
		return ""
	}
	return string(row.Event.Content())
}

// stands is a user's membership by the state, which the table of memberships has to repeat.
func (l *local) stands(ref rooms.Ref, who rooms.Sender) string {
	l.t.Helper()
	text, _ := matrix.GetString([]byte(l.current(ref, "m.room.member", string(who.ID))), "membership")
	row, err := l.rooms.Membership(l.t.Context(), ref.NID, who.NID)
	l.must(err)
	if table := ""; row != nil {
		if table = row.Membership.String(); table != text {
			l.t.Errorf("%s is %q by the state and %q by the table", who.ID, text, table)
		}
	} else if text != "" {
		l.t.Errorf("%s is %q by the state and not in the table", who.ID, text)
	}
	return text
}

// row reads an event's row.
func (l *local) row(ref rooms.Ref, id matrix.EventID) *store.EventRow {
	l.t.Helper()
	row, err := l.rooms.EventInRoom(l.t.Context(), ref.NID, id)
	l.must(err)
	return row
}

// timeline reads all events of a room in order, as the database has them.
func (l *local) timeline(ref rooms.Ref) (rows []*store.EventRow) {
	l.t.Helper()
	l.must(l.db.Read(l.t.Context(), func(tx *store.Tx) (err error) {
		rows, err = tx.Timeline(ref.NID, store.Place{}, store.Place{Pos: 1 << 60}, false, 100_000)
		return err
	}))
	return rows
}
