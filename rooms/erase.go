package rooms

import (
	"context"
	"fmt"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/work"
)

// How the traces of erased users are removed: room by room, each in transactions that end soon.
const (
	eraseLease = 20 * time.Second // after a crash nobody goes on before its end; that two work at once does no harm
	eraseRows  = 200              // events that one transaction goes through
	eraseWords = 500              // documents of the index that one transaction drops
	eraseAgain = time.Minute      // after a failure
)

const notErased = "Something could not be erased. It is tried again; the server's log says why."

// RunErasures erases what the users of closed accounts wanted erased. It ends with ctx.
func (r *Rooms) RunErasures(ctx context.Context) error {
	return r.runAccountJobs(ctx, store.JobErase, eraseLease, r.erase)
}

// erase goes on with the erasure of one user.
func (r *Rooms) erase(ctx context.Context, job store.Job) error {
	user, err := r.User(ctx, matrix.UserID(job.Key))
	if err != nil {
		return err
	}
	e := &eraser{r: r, job: job, user: Sender{NID: user.NID, ID: matrix.UserID(job.Key)}}
	if err := e.run(ctx); err != nil {
		e.failed(ctx)
		return err
	}
	return nil
}

// eraser erases one user. Its job's cursor says in which room it is, and how far it has come there.
type eraser struct {
	r    *Rooms
	job  store.Job
	user Sender
}

// at reads the cursor: the last room that is done, the one after it that is not, 0 if it is not begun, and where that was left.
func (e *eraser) at() (done, room store.RoomNID, from store.Place) {
	_, _ = fmt.Sscan(e.job.Cursor, &done, &room, &from.Pos, &from.Sub) // nothing at first
	return done, room, from
}

// run goes on where the job was left, until it is done or the lease lost.
func (e *eraser) run(ctx context.Context) error {
	for {
		done, _, from := e.at()
		var room store.RoomNID
		var shared bool
		err := e.r.db.Read(ctx, func(tx *store.Tx) (err error) {
			room, shared, err = tx.NextPlace(e.user.NID, done)
			return err
		})
		if err != nil {
			return err
		}
		if room == 0 {
			return e.finish(ctx)
		}
		mine := true
		if !shared {
			mine, err = e.texts(ctx, done, room, from)
		}
		if err == nil && mine {
			mine, err = e.leave(ctx, room)
		}
		if err != nil || !mine {
			return err
		}
	}
}

// texts erases for good what was said in a room that nobody else was ever in: there is no one who could see it before. Where
// others were, they keep what they have seen, and it is kept from those who come later (erased.go).
func (e *eraser) texts(ctx context.Context, done, room store.RoomNID, from store.Place) (mine bool, err error) {
	for {
		var rows []*store.EventRow
		err := e.r.db.Read(ctx, func(tx *store.Tx) (err error) {
			rows, err = tx.Timeline(room, from, store.Place(Newest), false, eraseRows)
			return err
		})
		if err != nil || len(rows) == 0 {
			return true, err
		}
		gone, nids, err := e.redacted(rows)
		if err != nil {
			return false, err
		}
		last := rows[len(rows)-1]
		from = store.Place{Pos: last.Pos, Sub: last.Sub}
		job := e.job
		job.Cursor = fmt.Sprint(done, room, from.Pos, from.Sub)
		work.Failpoint("erase.before_commit")
		err = e.r.db.Write(ctx, func(tx *store.Tx) (err error) {
			if mine, err = tx.SaveJob(job, e.r.now().UnixMilli(), eraseLease.Milliseconds()); err != nil || !mine {
				return err
			}
			tx.AfterCommit(func() { e.r.Redacted(nids...) })
			return tx.EraseTexts(room, gone)
		})
		work.Failpoint("erase.after_commit")
		if err != nil || !mine {
			return mine, err
		}
		e.job = job
	}
}

// redacted are those of some events that the user has sent, in their redacted form.
func (e *eraser) redacted(rows []*store.EventRow) (gone []store.Redaction, nids []store.EventNID, err error) {
	for _, row := range rows {
		if row.Sender != e.user.NID || row.Flags.Has(store.FlagRedacted) {
			continue
		}
		ev, err := row.Event.Redacted()
		if err != nil {
			return nil, nil, err
		}
		gone = append(gone, store.Redaction{TargetNID: row.NID, JSON: ev.JSON()})
		nids = append(nids, row.NID)
	}
	return gone, nids, nil
}

// leave drops what the user has left in a room beside events, with which the room is done.
func (e *eraser) leave(ctx context.Context, room store.RoomNID) (mine bool, err error) {
	job := e.job
	job.Cursor = fmt.Sprint(room, 0, 0, 0)
	work.Failpoint("erase.before_commit")
	err = e.r.db.Write(ctx, func(tx *store.Tx) (err error) {
		if mine, err = tx.SaveJob(job, e.r.now().UnixMilli(), eraseLease.Milliseconds()); err != nil || !mine {
			return err
		}
		if err := tx.EraseTraces(room, e.user.NID); err != nil {
			return err
		}
		return tx.ClosingCleared(e.user.NID)
	})
	work.Failpoint("erase.after_commit")
	e.job = job
	return mine, err
}

// finish drops what was the user's alone, and with it the job.
func (e *eraser) finish(ctx context.Context) error {
	for {
		var n int64
		err := e.r.db.Write(ctx, func(tx *store.Tx) (err error) {
			n, err = tx.EraseDocuments(e.user.NID, eraseWords)
			return err
		})
		if err != nil {
			return err
		}
		if n < eraseWords {
			break
		}
		if mine, err := e.r.saveJob(ctx, e.job, e.r.now(), eraseLease); err != nil || !mine {
			return err
		}
	}
	work.Failpoint("erase.before_commit")
	err := e.r.db.Write(ctx, func(tx *store.Tx) error {
		mine, err := tx.EndJob(e.job)
		if err != nil || !mine {
			return err
		}
		if err := tx.ClosingRecovered(e.user.NID, notErased); err != nil {
			return err
		}
		return tx.EraseOwn(e.user.NID, e.user.ID)
	})
	work.Failpoint("erase.after_commit")
	return err
}

// failed puts a job off that could not be done, and tells whoever follows it.
func (e *eraser) failed(ctx context.Context) {
	if ctx.Err() != nil {
		return // the server goes down, and goes on when it is back
	}
	err := e.r.db.Write(ctx, func(tx *store.Tx) error {
		if mine, err := tx.SaveJob(e.job, e.r.now().Add(eraseAgain).UnixMilli(), 0); err != nil || !mine {
			return err
		}
		return tx.ClosingFailed(e.user.NID, notErased)
	})
	if err != nil {
		e.r.log.Error("putting off an erasure failed", "err", err)
	}
}
