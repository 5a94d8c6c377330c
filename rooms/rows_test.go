package rooms

import (
	"slices"
	"strings"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/matrix/stateres"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/proof"
)

// TestRedactedStateStillCounts: a redacted state event keeps its place, and decides with what redaction leaves of it.
func TestRedactedStateStillCounts(t *testing.T) {
	proof.Of(t, "RD-10")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		for _, v := range versions {
			w := newWorldNamed(t, v, matrix.RoomID("!statered"+v.String()+":near.test"))
			n := newNode(t, db, w)
			ref := n.join()
			users := map[string]any{string(bob): 50}
			if !v.CreatorsPrivileged() {
				users[string(alice)] = 100
			}
			levels := w.send(alice, "m.room.power_levels", key(""), map[string]any{"users": users, "org.example.note": "goes"})
			topic := w.send(alice, "m.room.topic", key(""), map[string]any{"topic": "goes"})
			n.bring(levels, topic)
			for _, target := range []*matrix.Event{levels, topic} {
				e := event{sender: alice, typ: "m.room.redaction", content: map[string]any{}, prev: []matrix.EventID{w.tip}, redacts: target.ID()}
				if v.RedactsInContent() {
					e.content, e.redacts = map[string]any{"redacts": target.ID()}, ""
				}
				n.bring(w.on(e))
				row := n.row(ref, target.ID())
				if !row.Flags.Has(store.FlagRedacted) || strings.Contains(string(row.Event.JSON()), "goes") {
					t.Errorf("version %s: redacted, %s is %s", v, target.Type(), row.Event.JSON())
				}
				if n.state(ref)[stateres.StateKey{Type: target.Type()}] != target.ID() {
					t.Errorf("version %s: redacted, %s is no longer the room's state", v, target.Type())
				}
			}
			name := w.send(bob, "m.room.name", key(""), map[string]any{"name": "bob's"}) // by the redacted levels
			n.bring(name)
			if row := n.row(ref, name.ID()); row == nil || !row.Visible() {
				t.Errorf("version %s: %+v", v, row)
			}
			n.sameState(ref, w.tip)
		}
	})
}

// TestSoftFailedEventsAreServed: by their ID to whoever asks, and with history only where something that is served follows
// them.
func TestSoftFailedEventsAreServed(t *testing.T) {
	proof.Of(t, "PD-04")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, 10)
		n := newNode(t, db, w)
		ref := n.join()
		old := w.tip
		ban := w.member(alice, eve, "ban")
		n.bring(ban)
		evasion := w.sayAfter(eve, "still here", old)
		n.bring(evasion)
		if row := n.row(ref, evasion.ID()); row == nil || !row.Flags.Has(store.FlagSoftFailed) {
			t.Fatalf("%+v", row)
		}
		if ev, err := n.ServeEvent(t.Context(), near, evasion.ID()); err != nil || ev.ID() != evasion.ID() || !strings.Contains(string(ev.JSON()), "still here") {
			t.Errorf("asked for by its ID: %v, %v", ev, err)
		}
		backfill := func(from *matrix.Event) []matrix.EventID {
			s, err := n.Serve(t.Context(), near, ref.ID)
			if err != nil {
				t.Fatal(err)
			}
			events, err := s.Backfill(t.Context(), []matrix.EventID{from.ID()}, 50)
			if err != nil {
				t.Fatal(err)
			}
			var ids []matrix.EventID
			for _, ev := range events {
				ids = append(ids, ev.ID())
			}
			return ids
		}
		apart := w.sayAfter(bob, "apart", ban.ID())
		n.bring(apart)
		if ids := backfill(apart); slices.Contains(ids, evasion.ID()) || !slices.Contains(ids, ban.ID()) {
			t.Errorf("nothing follows the event, and history is %s", ids)
		}
		follows := w.sayAfter(bob, "follows it", apart.ID(), evasion.ID())
		n.bring(follows)
		if ids := backfill(follows); !slices.Contains(ids, evasion.ID()) {
			t.Errorf("something follows the event, and history is %s", ids)
		}
		if got := n.bodies(ref, me); !slices.Equal(got, []string{"apart", "follows it"}) {
			t.Errorf("timeline %q", got)
		}
	})
}
