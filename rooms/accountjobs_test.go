package rooms

import (
	"context"
	"testing"
	"time"

	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/wait"
)

// TestASlowStepKeepsItsLease lets a single step of a job take longer than its lease: nobody else takes the job meanwhile, and what
// was done is saved.
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
		write(func(tx *store.Tx) error { return tx.AddJob(store.JobDepart, "@slow:us.test", 1) })
		did := false
		err := n.accountJobsDue(t.Context(), store.JobDepart, lease, func(_ context.Context, job store.Job) error {
			did = true
			began := time.Now()
			wait.Until(t, "the first lease to be over", func() bool {
				write(func(tx *store.Tx) error {
					other, err := tx.LeaseJob(store.JobDepart, time.Now().UnixMilli(), lease.Milliseconds())
					if other != nil {
						t.Errorf("somebody else has taken the job after %v", time.Since(began))
					}
					return err
				})
				return t.Failed() || time.Since(began) > lease*3/2
			})
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
