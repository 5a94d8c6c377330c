package store_test

import (
	"testing"

	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
)

// TestTheAuditLogIsOnlyAddedTo changes the audit log in every way that SQL has, as a mistake in the program would, or
// somebody at the database's console who does not take its rules away first.
func TestTheAuditLogIsOnlyAddedTo(t *testing.T) {
	for _, engine := range dbtest.Engines {
		t.Run(engine, func(t *testing.T) {
			db := dbtest.Open(t, engine)
			for ts := range int64(10) {
				must(t, db.Write(t.Context(), func(tx *store.Tx) error { return tx.AddAudit(store.AuditEntry{TS: ts, Event: "login", User: "@a:b"}) }))
			}
			entries := func() (n int) {
				must(t, db.Read(t.Context(), func(tx *store.Tx) error {
					n = 0
					return tx.Audit(store.AuditQuery{Event: "login", User: "@a:b", Limit: 100}, func(store.AuditEntry) { n++ })
				}))
				return n
			}
			refused := []string{
				`DELETE FROM audit_log`, `DELETE FROM audit_log WHERE ts = 0`, `UPDATE audit_log SET user_id = '@mallory:b'`, `UPDATE audit_log SET ts = ts - 1`,
				`DELETE FROM audit_floor`, `UPDATE audit_floor SET before = -1`, `INSERT INTO audit_floor (id, before) VALUES (2, 9999)`,
			}
			if engine != "sqlite" {
				refused = append(refused, `TRUNCATE audit_log`, `TRUNCATE audit_floor`)
			}
			change := func(sql string) error {
				return db.Write(t.Context(), func(tx *store.Tx) error {
					_, err := tx.Exec(sql)
					return err
				})
			}
			for _, sql := range refused {
				if err := change(sql); err == nil {
					t.Errorf("%s is done", sql)
				}
			}
			if n := entries(); n != 10 {
				t.Fatalf("of 10 entries %d are left", n)
			}
			trim := func(before int64, limit int) (n int64) {
				must(t, db.Write(t.Context(), func(tx *store.Tx) (err error) {
					n, err = tx.TrimAudit(before, limit)
					return err
				}))
				return n
			}
			if first, second, third := trim(5, 3), trim(5, 3), trim(4, 3); first != 3 || second != 2 || third != 0 {
				t.Errorf("retention removes %d, %d and %d", first, second, third)
			}
			for _, sql := range append(refused, `UPDATE audit_floor SET before = 4`) {
				if err := change(sql); err == nil && sql != `DELETE FROM audit_log WHERE ts = 0` { // of which there is none any more
					t.Errorf("after that %s is done", sql)
				}
			}
			if n := entries(); n != 5 {
				t.Errorf("of 5 younger entries %d are left", n)
			}
		})
	}
}
