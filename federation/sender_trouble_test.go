package federation

import (
	"testing"

	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
)

// away takes the destinations away from the database, as when it is out of reach, and gives them back.
func (w *sendWorld) away(gone bool) {
	w.t.Helper()
	sql := `ALTER TABLE destinations_away RENAME TO destinations`
	if gone {
		sql = `ALTER TABLE destinations RENAME TO destinations_away`
	}
	err := w.db.Write(w.t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(sql)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// TestTroubleWithTheDatabaseSilencesNobody: what was to be sent while the database was out of reach is sent soon after,
// although nothing more comes for that server.
func TestTroubleWithTheDatabaseSilencesNobody(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newSendWorld(t, db)
		w.away(true)
		w.box.add("a", "", 1)
		w.run()
		w.until("the first attempts failed", 0, func() bool {
			w.s.mu.Lock()
			defer w.s.mu.Unlock()
			return w.s.hello[w.p.Name] && len(w.s.working) == 0 // its wake is over too
		})
		w.away(false)
		w.until("the first event came", 0, func() bool { return len(w.got) == 1 })
		w.until("that is stored", 0, func() bool { return w.row().At.PDUs == 1 })

		w.away(true) // while the worker has the lease
		w.box.add("a", "", 1)
		w.s.Wake()
		w.until("the second event came", 0, func() bool { return len(w.got) == 2 })
		w.away(false)
		w.box.add("a", "", 1)
		w.s.Wake()
		w.until("the third event came", 0, func() bool { return len(w.got) == 3 })
	})
}
