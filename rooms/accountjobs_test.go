package rooms

import (
	"context"
	"testing"
	"time"

	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/wait"
)

// TestASlowStepKeepsItsLease lets a single step of a job take longer than its lease: the lease is renewed before it ends, so that
// nobody else takes the job meanwhile, and what was done is saved. How often is read from the row: whether somebody else could
// take the job in this moment would hang on whether this machine has just stood still for a second.
func TestASlowStepKeepsItsLease(t *testing.T) {
	const lease = time.Second
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		n := startNode(t, db, func(*Options) {})
		write := func(do func(*store.Tx) error) {
			t.Helper()
			if err := db.Write(t.Context(), do); err != nil {
				t.Error(err)
			}
		}
		end := func() (at time.Time) {
			t.Helper()
			err := db.Read(t.Context(), func(tx *store.Tx) error {
				return tx.Query(`SELECT lease_until FROM jobs`, func(r *store.Row) error {
					at = time.UnixMilli(r.Int64(0))
					return nil
				})
			})
			if err != nil {
				t.Error(err)
			}
			return at
		}
		write(func(tx *store.Tx) error { return tx.AddJob(store.JobDepart, "@slow:us.test", 1) })
		did := false
		err := n.accountJobsDue(t.Context(), store.JobDepart, lease, func(_ context.Context, job store.Job) error {
			did = true
			first := end()
			last, soonest := first, time.Hour
			wait.Until(t, "the first lease to be over for long", func() bool {
				if at := end(); at.After(last) {
					last, soonest = at, min(soonest, at.Sub(last))
				}
				return t.Failed() || last.Sub(first) > lease*3/2
			})
			if soonest > lease/2 {
				t.Errorf("a lease of %s is renewed every %s", lease, soonest)
			}
			write(func(tx *store.Tx) error {
				mine, err := tx.EndJob(job)
				if err == nil && !mine {
					t.Error("what was done could not be saved")
				}
				return err
			})
			return nil
		})
		if err != nil || !did {
			t.Errorf("the job was done: %v, %v", did, err)
		}
	})
}
