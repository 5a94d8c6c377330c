package federation

import (
	"strings"
	"testing"

	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/proof"
)

// TestTroubleOfOurOwnRefusesNobodysEvents: an event that could not be looked at because the database was out of reach is
// not acknowledged: the transaction comes again, and the event with it.
func TestTroubleOfOurOwnRefusesNobodysEvents(t *testing.T) {
	proof.Of(t, "F26")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newHouse(t, db)
		ref := w.room(11, "public_chat")
		g := w.guestIn(w.p, ref, w.p.User("bob"))
		e := g.message("said at a bad time")
		change := func(sql string, args ...any) {
			t.Helper()
			err := db.Write(t.Context(), func(tx *store.Tx) error {
				_, err := tx.Exec(sql, args...)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		change(`ALTER TABLE memberships RENAME TO memberships_away`)
		if a := w.send(w.p, "txn", []string{string(e.JSON)}, nil); a.Status != 500 {
			t.Errorf("answered %d %s", a.Status, a.Body)
		}
		change(`ALTER TABLE memberships_away RENAME TO memberships`)
		if verdicts := accepted(t, w.send(w.p, "txn", []string{string(e.JSON)}, nil)); verdicts[e.ID]["error"] != nil {
			t.Errorf("told %v", verdicts)
		}
		w.arrives(ref, e.ID)

		// What is wrong with one room for good is not waited for.
		broken := w.room(11, "public_chat")
		lost := w.guestIn(w.p, broken, w.p.User("bob")).message("said in a room that cannot be read")
		change(`UPDATE events SET state_head = $2, state_after = $2 WHERE room = $1 AND pos IS NOT NULL`, broken.NID, []byte(strings.Repeat("x", 32)))
		next := g.message("said beside it")
		verdicts := accepted(t, w.send(w.p, "next", []string{string(lost.JSON), string(next.JSON)}, nil))
		if verdicts[next.ID]["error"] != nil {
			t.Errorf("told %v", verdicts)
		}
		w.arrives(ref, next.ID)
	})
}
