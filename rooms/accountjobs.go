package rooms

import (
	"context"
	"time"

	"conclave/internal/cluster"
	"conclave/internal/store"
)

// accountJobLook is how often jobs of closed accounts are looked for whose wake was lost.
const accountJobLook = 10 * time.Second

// runAccountJobs does the jobs of a kind that closed accounts leave, one after the other, whenever one is due. It ends with
// ctx. lease is how long nobody else takes up a job of a process that has died.
func (r *Rooms) runAccountJobs(ctx context.Context, kind store.JobKind, lease time.Duration, do func(context.Context, store.Job) error) error {
	wakes, cancel := r.bus.Subscribe(cluster.Sessions)
	defer cancel()
	look := time.NewTicker(accountJobLook)
	defer look.Stop()
	for {
		if err := r.accountJobsDue(ctx, kind, lease, do); err != nil && ctx.Err() == nil {
			r.log.Error("a job of a closed account failed", "kind", kind, "err", err)
		}
		select {
		case <-wakes:
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// accountJobsDue does the jobs that are due.
func (r *Rooms) accountJobsDue(ctx context.Context, kind store.JobKind, lease time.Duration, do func(context.Context, store.Job) error) error {
	for ctx.Err() == nil {
		now, due := r.now().UnixMilli(), false
		err := r.db.Read(ctx, func(tx *store.Tx) (err error) {
			due, err = tx.JobDue(kind, now)
			return err
		})
		if err != nil || !due {
			return err
		}
		var job *store.Job
		err = r.db.Write(ctx, func(tx *store.Tx) (err error) {
			job, err = tx.LeaseJob(kind, now, lease.Milliseconds())
			return err
		})
		if err != nil || job == nil {
			return err
		}
		if err := do(ctx, *job); err != nil {
			return err
		}
	}
	return ctx.Err()
}
