package sync

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"

	"conclave/internal/cluster"
	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/rooms"
)

// noKeys is a KeySource of devices without keys or messages.
type noKeys struct{}

func (noKeys) ToDevice(_ context.Context, _ int64, _, upTo store.Pos, _ int) ([]json.RawMessage, store.Pos, error) {
	return nil, upTo, nil
}
func (noKeys) Delivered(context.Context, int64, store.Pos) error { return nil }
func (noKeys) KeyCounts(context.Context, int64) (map[string]int, []string, error) {
	return nil, nil, nil
}
func (noKeys) DeviceListChanges(context.Context, store.UserNID, store.Pos, store.Pos) (changed, left []matrix.UserID, err error) {
	return nil, nil, nil
}

// world is the domain of rooms and an engine over one database, without a server around them.
type world struct {
	t     testing.TB
	db    *store.DB
	rooms *rooms.Rooms
	bus   cluster.Bus
}

func newWorld(t testing.TB, db *store.DB) *world {
	w := &world{t: t, db: db, bus: cluster.NewLocal()}
	ctx, cancel := context.WithCancel(context.Background())
	var err error
	w.rooms, err = rooms.New(ctx, rooms.Options{DB: db, Bus: w.bus, Identity: rooms.Identity{
		Name: "one.example", KeyID: "ed25519:t", Key: ed25519.NewKeyFromSeed([]byte("the seed of a key for tests only")),
	}})
	w.must(err)
	t.Cleanup(func() {
		w.must(w.rooms.Close(context.Background()))
		cancel()
	})
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) user(name string) rooms.Sender {
	w.t.Helper()
	id := matrix.UserID("@" + name + ":one.example")
	u, err := w.rooms.User(w.t.Context(), id)
	w.must(err)
	return rooms.Sender{NID: u.NID, ID: id}
}

// fill makes rooms in which a reader is, each with messages by another.
func (w *world) fill(by, reader rooms.Sender, count, messages int) {
	w.t.Helper()
	ctx := context.Background()
	for range count {
		id, err := w.rooms.Create(ctx, rooms.CreateRequest{Creator: by, Preset: "public_chat"})
		w.must(err)
		ref, err := w.rooms.Lookup(ctx, id)
		w.must(err)
		w.must(w.rooms.Join(ctx, rooms.JoinRequest{Room: id, User: reader}))
		for n := range messages {
			content := fmt.Appendf(nil, `{"body":"message %d","msgtype":"m.text"}`, n)
			_, err := w.rooms.Send(ctx, rooms.SendRequest{Room: ref, Sender: by, Type: "m.room.message", Content: content})
			w.must(err)
		}
	}
}

// engine begins to follow the stream; nothing of what happened before is in its memory.
func (w *world) engine() *Engine {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w.t.Cleanup(cancel)
	e, err := New(ctx, Options{DB: w.db, Rooms: w.rooms, Keys: noKeys{}, Bus: w.bus, Log: slog.New(slog.DiscardHandler)})
	w.must(err)
	return e
}

// first is the first sync of a user.
func (w *world) first(e *Engine, user rooms.Sender) *Response {
	w.t.Helper()
	res, err := e.Sync(context.Background(), Request{Viewpoint: Viewpoint{User: user, Device: 1, DeviceID: "D"}})
	w.must(err)
	return res
}

// TestFirstSyncAsksForAllRoomsAtOnce counts what a first sync asks the database: as much for many rooms as for a few.
func TestFirstSyncAsksForAllRoomsAtOnce(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		alice, few, many := w.user("alice"), w.user("few"), w.user("many")
		w.fill(alice, few, 3, 3)
		w.fill(alice, many, 30, 3)
		e := w.engine()
		asked := func(user rooms.Sender, count int) int64 {
			before := db.Statements()
			res := w.first(e, user)
			if res.Rooms == nil || len(res.Rooms.Join) != count {
				t.Fatalf("the first sync of somebody in %d rooms has %+v", count, res.Rooms)
			}
			for id, room := range res.Rooms.Join {
				if n := len(room.Timeline.Events); n != defaultTimeline {
					t.Errorf("%s has %d events", id, n)
				}
				if room.Unread == nil || room.Unread.Notify != 3 || room.Summary == nil || room.Summary.Joined != 2 || len(room.Summary.Heroes) != 1 {
					t.Errorf("%s has %+v unread and is summed up as %+v", id, room.Unread, room.Summary)
				}
			}
			return db.Statements() - before
		}
		asked(few, 3)
		asked(many, 30) // what the rooms' states are made of is in memory now
		e = w.engine()  // but nothing of the users
		for _, when := range []string{"for the first time", "again"} {
			if a, b := asked(few, 3), asked(many, 30); b > a+5 || a > 40 {
				t.Errorf("%s: a first sync of 3 rooms runs %d statements, one of 30 rooms %d", when, a, b)
			} else {
				t.Logf("%s: %d and %d statements", when, a, b)
			}
		}
	})
}

// BenchmarkFirstSync is the first sync of somebody in 200 rooms, from assembling it to its text.
func BenchmarkFirstSync(b *testing.B) {
	for _, engine := range dbtest.Engines {
		b.Run(engine, func(b *testing.B) {
			w := newWorld(b, dbtest.OpenURL(b, dbtest.URL(b, engine)))
			alice, bob := w.user("alice"), w.user("bob")
			w.fill(alice, bob, 200, 20)
			e := w.engine()
			var out []byte
			before := w.db.Statements()
			for b.Loop() {
				var err error
				out, err = w.first(e, bob).AppendJSON(out[:0])
				w.must(err)
			}
			b.SetBytes(int64(len(out)))
			b.ReportMetric(float64(w.db.Statements()-before)/float64(b.N), "statements/op")
		})
	}
}
