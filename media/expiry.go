package media

import (
	"context"
	"time"

	"conclave/internal/store"
)

// How uploads end that were not finished.
const (
	expiryLook  = 30 * time.Second
	expiryLease = 2 * time.Minute
)

// Run gives up uploads in pieces whose time has ended. It ends with ctx.
func (m *Media) Run(ctx context.Context) error {
	look := time.NewTicker(expiryLook)
	defer look.Stop()
	for {
		if err := m.giveUpDue(ctx); err != nil && ctx.Err() == nil {
			m.o.Log.Error("giving up unfinished uploads failed", "err", err)
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// giveUpDue does the jobs that are due.
func (m *Media) giveUpDue(ctx context.Context) error {
	for ctx.Err() == nil {
		due, now := false, m.nowMS()
		err := m.o.DB.Read(ctx, func(tx *store.Tx) (err error) {
			due, err = tx.JobDue(store.JobUpload, now)
			return err
		})
		if err != nil || !due {
			return err
		}
		var job *store.Job
		var u *store.MediaUpload
		err = m.o.DB.Write(ctx, func(tx *store.Tx) (err error) {
			if job, err = tx.LeaseJob(store.JobUpload, now, expiryLease.Milliseconds()); err == nil && job != nil {
				u, err = tx.MediaUpload(job.Key)
			}
			return err
		})
		if err != nil || job == nil {
			return err
		}
		if err := m.giveUpJob(ctx, *job, u, now); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// giveUpJob gives an upload up, or puts that off if bytes came meanwhile.
func (m *Media) giveUpJob(ctx context.Context, job store.Job, u *store.MediaUpload, now int64) error {
	if u != nil && u.Expires <= now {
		// A request that is at it ends first: what it still stored would have no row, and nobody would ever remove it.
		leave, err := m.enter(ctx, u.ID, nil)
		if err != nil {
			return err
		}
		defer leave()
		if u, err = m.expired(ctx, u.ID, now); err != nil {
			return err
		}
	}
	if u != nil {
		return m.o.DB.Write(ctx, func(tx *store.Tx) error {
			_, err := tx.SaveJob(job, u.Expires, 0)
			return err
		})
	}
	return m.o.DB.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.EndJob(job)
		return err
	})
}

// expired gives an upload up unless bytes have come meanwhile; then it is returned.
func (m *Media) expired(ctx context.Context, id string, now int64) (u *store.MediaUpload, err error) {
	err = m.o.DB.Read(ctx, func(tx *store.Tx) (err error) {
		u, err = tx.MediaUpload(id)
		return err
	})
	if err != nil || u == nil || u.Expires > now {
		return u, err
	}
	return nil, m.discard(ctx, *u)
}
