package store_test

import (
	"context"
	"testing"
	"time"

	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/wait"
)

// TestAJobNotedAnewIsAnother removes a job at which somebody works, and notes it again: whoever worked at the one before has lost
// the lease, also when somebody else has taken the new one.
func TestAJobNotedAnewIsAnother(t *testing.T) {
	for _, engine := range dbtest.Engines {
		t.Run(engine, func(t *testing.T) {
			db := dbtest.Open(t, engine)
			write := func(do func(tx *store.Tx) error) { must(t, db.Write(t.Context(), do)) }
			lease := func() (job *store.Job) {
				write(func(tx *store.Tx) (err error) {
					job, err = tx.LeaseJob(store.JobExport, 1, time.Minute.Milliseconds())
					return err
				})
				if job == nil {
					t.Fatal("the job is not to be had")
				}
				return job
			}
			note := func() { write(func(tx *store.Tx) error { return tx.AddJob(store.JobExport, "@a:b", 1) }) }
			note()
			first := lease()
			write(func(tx *store.Tx) error { return tx.CancelJob(store.JobExport, "@a:b") })
			note()
			second := lease()
			for _, c := range []struct {
				name string
				job  *store.Job
				mine bool
			}{{"the first", first, false}, {"the second", second, true}} {
				write(func(tx *store.Tx) error {
					renewed, err := tx.RenewJob(*c.job, 1000)
					if err != nil || renewed != c.mine {
						t.Errorf("%s renews the lease: %v, %v", c.name, renewed, err)
					}
					saved, err := tx.SaveJob(*c.job, 1, 1000)
					if err != nil || saved != c.mine {
						t.Errorf("%s saves how far it has come: %v, %v", c.name, saved, err)
					}
					return err
				})
			}
			write(func(tx *store.Tx) error {
				ended, err := tx.EndJob(*first)
				if err != nil || ended {
					t.Errorf("the first ends the job: %v, %v", ended, err)
				}
				return err
			})
		})
	}
}

// TestAKeptJob keeps a job whose lease is over, until it is removed.
func TestAKeptJob(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		const lease = 1500 * time.Millisecond
		var job *store.Job
		change(t, db, func(tx *store.Tx) (err error) {
			job, err = tx.TakeJob(store.Job{Kind: store.JobExport, Key: "@a:b"}, 1, 0)
			return err
		})
		due := func() (yes bool) {
			change(t, db, func(tx *store.Tx) (err error) {
				yes, err = tx.JobDue(store.JobExport, 1)
				return err
			})
			return yes
		}
		wait.Until(t, "the lease to be over", due)
		lost := make(chan bool, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { lost <- db.KeepJob(ctx, *job, lease) }()
		wait.Until(t, "the lease to be renewed", func() bool { return !due() })
		cancel()
		if <-lost {
			t.Error("a lease that is kept until the end is lost")
		}
		change(t, db, func(tx *store.Tx) error { return tx.CancelJob(store.JobExport, "@a:b") })
		if !db.KeepJob(t.Context(), *job, lease) {
			t.Error("the lease of a job that is no more is kept")
		}
	})
}
