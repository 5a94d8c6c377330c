package media

import (
	"context"
	"time"

	"conclave/internal/cluster"
	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/work"
)

// How the files of erased users are deleted.
const (
	shredLook  = 10 * time.Second
	shredLease = 15 * time.Second // after a crash nobody goes on before its end; that two work at once does no harm
	shredPage  = 10               // contents that are looked up at once
	shredAgain = time.Minute      // after a failure
)

const notShredded = "Some files could not be deleted. It is tried again; the server's log says why."

// RunShredder deletes what the users of closed accounts have uploaded who wanted it erased. Each content is one transaction, and
// what is left to do stands in the rows, so that it goes on where a crash has interrupted it. It ends with ctx.
func (m *Media) RunShredder(ctx context.Context, bus cluster.Bus) error {
	wakes, cancel := bus.Subscribe(cluster.Sessions)
	defer cancel()
	look := time.NewTicker(shredLook)
	defer look.Stop()
	for {
		if err := m.shredDue(ctx); err != nil && ctx.Err() == nil {
			m.o.Log.Error("deleting the files of a closed account failed", "err", err)
		}
		select {
		case <-wakes:
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// shredDue does the jobs that are due.
func (m *Media) shredDue(ctx context.Context) error {
	for ctx.Err() == nil {
		due, now := false, m.nowMS()
		err := m.o.DB.Read(ctx, func(tx *store.Tx) (err error) {
			due, err = tx.JobDue(store.JobShred, now)
			return err
		})
		if err != nil || !due {
			return err
		}
		var job *store.Job
		err = m.o.DB.Write(ctx, func(tx *store.Tx) (err error) {
			job, err = tx.LeaseJob(store.JobShred, now, shredLease.Milliseconds())
			return err
		})
		if err != nil || job == nil {
			return err
		}
		user, err := m.o.DB.User(ctx, matrix.UserID(job.Key))
		if err != nil {
			return err
		}
		if err := m.shred(ctx, *job, user.NID); err != nil {
			m.shredFailed(ctx, *job, user.NID)
			return err
		}
	}
	return ctx.Err()
}

// shred deletes everything that a user has uploaded, or was about to, until the lease is lost.
func (m *Media) shred(ctx context.Context, job store.Job, user store.UserNID) error {
	for {
		var names []store.MediaName
		var uploads []store.MediaUpload
		err := m.o.DB.Read(ctx, func(tx *store.Tx) error {
			names, uploads = nil, nil
			if err := tx.AllMediaOf(user, shredPage, func(n store.MediaName) { names = append(names, n) }); err != nil {
				return err
			}
			return tx.MediaUploadsOf(user, shredPage, func(u store.MediaUpload) { uploads = append(uploads, u) })
		})
		if err != nil {
			return err
		}
		if len(names)+len(uploads) == 0 {
			return m.o.DB.Write(ctx, func(tx *store.Tx) error {
				if mine, err := tx.EndJob(job); err != nil || !mine {
					return err
				}
				return tx.ClosingRecovered(user, notShredded)
			})
		}
		if mine, err := m.shredSome(ctx, job, user, names, uploads); err != nil || !mine {
			return err
		}
	}
}

// shredSome deletes some contents, and counts them.
func (m *Media) shredSome(ctx context.Context, job store.Job, user store.UserNID, names []store.MediaName, uploads []store.MediaUpload) (mine bool, err error) {
	for _, u := range uploads {
		if err := m.discard(ctx, u); err != nil {
			return false, err
		}
	}
	for _, name := range names {
		work.Failpoint("shred.before_commit")
		err := m.dropFiles(ctx, func(tx *store.Tx) ([]string, error) {
			files, found, err := tx.DeleteMedia(name.Origin, name.ID)
			if err != nil || !found {
				return nil, err
			}
			return files, tx.ClosingShredded(user)
		})
		work.Failpoint("shred.after_commit")
		if err != nil {
			return false, err
		}
	}
	m.wake() // who waits for one of them waits in vain
	err = m.o.DB.Write(ctx, func(tx *store.Tx) (err error) {
		mine, err = tx.SaveJob(job, m.nowMS(), shredLease.Milliseconds())
		return err
	})
	return mine, err
}

// shredFailed puts a job off that could not be done, and tells whoever follows it.
func (m *Media) shredFailed(ctx context.Context, job store.Job, user store.UserNID) {
	if ctx.Err() != nil {
		return // the server goes down, and goes on when it is back
	}
	err := m.o.DB.Write(ctx, func(tx *store.Tx) error {
		if mine, err := tx.SaveJob(job, m.o.Clock().Add(shredAgain).UnixMilli(), 0); err != nil || !mine {
			return err
		}
		return tx.ClosingFailed(user, notShredded)
	})
	if err != nil {
		m.o.Log.Error("putting off the deletion of files failed", "err", err)
	}
}
