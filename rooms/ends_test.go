package rooms

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"testing"

	"conclave/internal/cluster"
	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/proof"
)

// TestEndsAreBounded lets another server send many events that all follow one old event, so that each is an end of the
// room: 20 are kept, what we send then joins them, and the room has one end again.
func TestEndsAreBounded(t *testing.T) {
	proof.Of(t, "F12", "PD-07")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		key := ed25519.NewKeyFromSeed(make([]byte, 32))
		r, err := New(ctx, Options{DB: db, Bus: cluster.NewLocal(), Identity: Identity{Name: "one.example", KeyID: "ed25519:a", Key: key}})
		check := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		check(err)
		alice, err := r.User(ctx, "@alice:one.example")
		check(err)
		eve, err := r.User(ctx, "@eve:two.example")
		check(err)
		id, err := r.Create(ctx, CreateRequest{Creator: Sender{NID: alice.NID, ID: "@alice:one.example"}, Preset: "public_chat"})
		check(err)
		ref, err := r.Lookup(ctx, id)
		check(err)
		// foreign enters an event of eve's that follows the room's present as it was at the beginning.
		var start *head
		foreign := func(typ string, stateKey *string, content string) error {
			d := r.newDraft(ref, start)
			state, rows, err := d.authState(ctx, authrules.NeededFor(ref.Version, typ, stateKey, "@eve:two.example", []byte(content)))
			check(err)
			_ = state
			tmpl := matrix.Template{RoomID: ref.ID, Sender: "@eve:two.example", Type: typ, StateKey: stateKey, Content: []byte(content), OriginServerTS: 1}
			tmpl.PrevEvents, tmpl.Depth = d.parents()
			for _, row := range rows {
				tmpl.AuthEvents = append(tmpl.AuthEvents, row.Event.ID())
			}
			ev, err := tmpl.Build(ref.Version, "two.example", "ed25519:a", key)
			check(err)
			return r.enter(ctx, ref, &entry{incoming: &incoming{event: ev, before: start.state}, sender: eve.NID})
		}
		start, err = r.loadHead(ctx, ref)
		check(err)
		self := "@eve:two.example"
		check(foreign("m.room.member", &self, `{"membership":"join"}`))
		start, err = r.loadHead(ctx, ref)
		check(err)
		for n := range 60 {
			typ, stateKey := "m.room.message", (*string)(nil)
			if n%7 == 0 { // her own name, which makes the states differ, so that they have to be resolved
				typ, stateKey = "m.room.member", &self
			}
			check(foreign(typ, stateKey, fmt.Sprintf(`{"membership":"join","displayname":"%d"}`, n)))
			now, err := r.loadHead(ctx, ref)
			check(err)
			if want := min(n+1, maxExtremities); len(now.extremities) != want {
				t.Fatalf("after %d events the room has %d ends, want %d", n+1, len(now.extremities), want)
			}
		}
		sent, err := r.Send(ctx, SendRequest{Room: ref, Sender: Sender{NID: alice.NID, ID: "@alice:one.example"}, Type: "m.room.message", Content: []byte(`{}`)})
		check(err)
		now, err := r.loadHead(ctx, ref)
		check(err)
		row, err := r.EventInRoom(ctx, ref.NID, sent)
		check(err)
		if len(now.extremities) != 1 || now.extremities[0].id != sent || len(row.Event.PrevEvents()) != maxExtremities {
			t.Errorf("our event follows %d, and the room has %d ends", len(row.Event.PrevEvents()), len(now.extremities))
		}
		var found []store.Finding
		_, err = r.Verify(ctx, true, func(f store.Finding) { found = append(found, f) })
		check(err)
		if len(found) > 0 {
			t.Errorf("the database is not sound: %v", found)
		}
	})
}
