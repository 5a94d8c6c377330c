package rooms

import (
	"fmt"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/proof"
)

// empower gives a user of the world a level.
func (w *world) empower(user matrix.UserID, level int) *matrix.Event {
	w.t.Helper()
	return w.send(alice, "m.room.power_levels", key(""), map[string]any{"users": map[matrix.UserID]int{alice: 100, user: level}})
}

// TestModeratorsOfThePast: what a moderator has redacted stays so after the power is gone: in history that is fetched
// later, and where the target comes after the redaction.
func TestModeratorsOfThePast(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		proof.Of(t, "RD-08")
		w := newWorld(t, 11)
		w.empower(eve, 50)
		older := w.say(bob, "secret of yore")
		for i := range backfillSize {
			w.say(bob, fmt.Sprint(i))
		}
		near := w.say(bob, "secret")
		ofOlder, ofNear := w.redactAfter(eve, older.ID(), w.tip), w.redactAfter(eve, near.ID(), w.tip)
		w.empower(eve, 0)
		powerless := w.say(bob, "no secret")
		without := w.redactAfter(eve, powerless.ID(), w.tip)
		w.say(bob, "newest")
		n := newNode(t, db, w)
		ref := n.join()
		for range 3 {
			if _, err := n.backfill(t.Context(), ref, Place{}, Newest); err != nil {
				t.Fatal(err)
			}
		}
		n.gone(ref, older.ID(), ofOlder.ID())
		n.gone(ref, near.ID(), ofNear.ID())
		if row := n.row(ref, powerless.ID()); row == nil || row.Flags.Has(store.FlagRedacted) || n.shown(ref, without.ID()) {
			t.Errorf("who had no power any more has redacted %+v", row)
		}

		n.bring(w.empower(eve, 50))
		root := w.tip
		late := w.sayAfter(bob, "secret that comes late", root)
		early := w.redactAfter(eve, late.ID(), root)
		n.bring(early)
		n.bring(w.empower(eve, 0))
		n.bring(late)
		n.gone(ref, late.ID(), early.ID())
		n.sound()
	})
}

// TestWhoseRedactionsCount is the rule as a table.
func TestWhoseRedactionsCount(t *testing.T) {
	w := newWorld(t, 11)
	said := w.say(bob, "x")
	live, past := &store.EventRow{Event: said, Pos: 7}, &store.EventRow{Event: said, Pos: 7, Sub: -3}
	levels := authrules.LevelsOf(11, authrules.Map{
		{Type: "m.room.create"}:       w.all[w.before([]matrix.EventID{w.tip})[authrules.StateKey{Type: "m.room.create"}]],
		{Type: "m.room.power_levels"}: w.empower(eve, 50),
	})
	mods, other, neighbour := eve, matrix.UserID("@nobody:far.test"), matrix.UserID("@nobody:"+string(bob.Server()))
	for _, c := range []struct {
		what   string
		by     matrix.UserID
		power  store.RedactPower
		target *store.EventRow
		want   bool
	}{
		{"somebody of the same server", neighbour, store.PowerUnknown, live, true},
		{"a moderator", mods, store.PowerUnknown, live, true},
		{"nobody", other, store.PowerUnknown, live, false},
		{"who had the power when it came", other, store.PowerNow, live, true},
		{"who had it in the past, of what is past", other, store.PowerThen, past, true},
		{"who had it in the past, of what was said since", other, store.PowerThen, live, false},
		{"nobody, of what is past", other, store.PowerUnknown, past, false},
		{"a moderator, of what was rejected", mods, store.PowerNow, &store.EventRow{Event: said, Pos: 7, Flags: store.FlagRejected}, false},
	} {
		if got := redactionCounts(&levels, c.by, c.power, c.target); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
}
