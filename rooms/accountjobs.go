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
// ctx. lease is how long nobody else takes up a job of a process that has died; it is renewed while somebody works.
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
		if err := r.leased(ctx, *job, lease, do); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// leased does a job, whose lease is renewed for as long as it takes. A single step may take longer than a lease, as leaving a room
// whose server is away does: then another node would begin again, at the same room, and nobody ever come to the next.
func (r *Rooms) leased(ctx context.Context, job store.Job, lease time.Duration, do func(context.Context, store.Job) error) error {
	renewing, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.db.KeepJob(renewing, job, lease) // whoever works learns when saving that the lease is lost
	}()
	defer func() {
		stop()
		<-done
	}()
	return do(ctx, job)
}
