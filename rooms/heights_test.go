package rooms

import (
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/matrix/stateres"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/proof"
)

// levels is an event that changes the room's power levels, kept out of the graph's ends; its auth events are given.
func (w *world) levels(prev matrix.EventID, bobs int, auth ...matrix.EventID) *matrix.Event {
	tip := w.tip
	users := map[string]any{string(bob): bobs}
	if !w.version.CreatorsPrivileged() {
		users[string(alice)] = 100
	}
	ev := w.on(event{sender: alice, typ: "m.room.power_levels", key: key(""), content: map[string]any{"users": users}, prev: []matrix.EventID{prev}, auth: auth})
	w.tip = tip
	return ev
}

// resting is a message of bob's that follows the room's end and rests on power levels beside it.
func (w *world) resting(levels *matrix.Event) *matrix.Event {
	now := w.after[w.tip]
	auth := []matrix.EventID{levels.ID(), now[stateres.StateKey{Type: "m.room.member", Key: string(bob)}]}
	if !w.version.RoomIDIsCreateHash() {
		auth = append(auth, w.create.ID())
	}
	return w.on(event{sender: bob, typ: "m.room.message", content: map[string]any{"body": "on " + string(levels.ID())}, prev: []matrix.EventID{w.tip}, auth: auth})
}

// TestAuthEventsBesideTheWay is threats F13 and F14: what an event rests on need not be what it follows. Nobody is asked
// for what came with it, little where one thing is lacking, and no signature is checked of what is held.
func TestAuthEventsBesideTheWay(t *testing.T) {
	proof.Of(t, "F14")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		for _, v := range []matrix.RoomVersion{10, 12} {
			w := newWorldNamed(t, v, matrix.RoomID("!beside"+v.String()+":near.test"))
			n := newNode(t, db, w)
			ref := n.join()
			first := w.levels(w.tip, 1)
			on := w.resting(first)
			n.bring(on, first)
			if row := n.row(ref, on.ID()); row == nil || row.Pos == 0 || w.count("event")+w.count("event_auth")+w.count("missing") != 0 {
				t.Errorf("version %s: what came together: %+v; calls %v", v, row, w.calls)
			}

			second := w.levels(w.tip, 2)
			on = w.resting(second)
			w.verified.Store(0)
			n.bring(on)
			if row := n.row(ref, on.ID()); row == nil || row.Pos == 0 || w.count("event") != 1 || w.count("event_auth") != 0 || w.verified.Load() != 2 {
				t.Errorf("version %s: one auth event is lacking: %+v; calls %v, %d signatures", v, row, w.calls, w.verified.Load())
			}
			if row := n.row(ref, second.ID()); row == nil || !row.Flags.Has(store.FlagOutlier) || row.Height != n.row(ref, first.ID()).Height {
				t.Errorf("version %s: the auth event: %+v", v, row)
			}

			third := w.levels(w.tip, 3)
			fourth := w.levels(third.ID(), 4)
			on = w.resting(fourth)
			w.verified.Store(0)
			n.bring(on)
			if row := n.row(ref, on.ID()); row == nil || row.Pos == 0 || w.count("event") != 2 || w.count("event_auth") != 1 {
				t.Errorf("version %s: more is lacking: %+v; calls %v", v, row, w.calls)
			}
			if got := w.verified.Load(); got > 4 { // the message, the levels by themselves and again with what they rest on
				t.Errorf("version %s: %d signatures were checked", v, got)
			}
			if was, is := n.row(ref, third.ID()), n.row(ref, fourth.ID()); was == nil || is == nil || is.Height != was.Height+1 {
				t.Errorf("version %s: heights of %+v and %+v", v, was, is)
			}
		}
	})
}

// TestHeightsComeLater holds an invitation before what it rests on: it has no height, until the join brings the rest.
func TestHeightsComeLater(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, 11)
		n := newNode(t, db, w)
		invite := w.member(alice, me, "invite")
		nid, err := n.db.AddRoom(t.Context(), w.room, w.version)
		if err != nil {
			t.Fatal(err)
		}
		ref := Ref{NID: nid, ID: w.room, Version: w.version}
		if err := n.PutOutside(t.Context(), ref, invite, ""); err != nil {
			t.Fatal(err)
		}
		if row := n.row(ref, invite.ID()); row == nil || row.Height != 0 {
			t.Fatalf("before the join: %+v", row)
		}
		ref = n.join()
		if row := n.row(ref, invite.ID()); row == nil || row.Height < 4 {
			t.Errorf("after the join: %+v", row)
		}
		n.sound()
	})
}
