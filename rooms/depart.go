package rooms

import (
	"context"
	"strconv"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/work"
)

// How users whose accounts were closed leave their rooms. A room that does not let them go is tried again, and given up
// after departTries rounds: some 17 hours.
const (
	departLease = 10 * time.Second // after a crash nobody goes on before its end; that two work at once does no harm
	departTime  = 20 * time.Second // for one room
	departAgain = time.Minute      // before the second round, doubling
	departTries = 10
)

// RunDepartures makes users whose accounts were closed leave their rooms, and drop their invitations and knocks. What is
// left to do stands in the memberships, so that it goes on where a crash has interrupted it. It ends with ctx.
func (r *Rooms) RunDepartures(ctx context.Context) error {
	return r.runAccountJobs(ctx, store.JobDepart, departLease, r.depart)
}

// depart lets one user leave every room that it is in, is invited to or knocks at.
func (r *Rooms) depart(ctx context.Context, job store.Job) error {
	id := matrix.UserID(job.Key)
	user, err := r.User(ctx, id)
	if err != nil {
		return err
	}
	var in []store.RoomNID
	err = r.db.Read(ctx, func(tx *store.Tx) error {
		in = nil
		return tx.MembershipsOf(user.NID, func(m store.MemberRow) {
			if m.Membership != store.Leave && m.Membership != store.Ban {
				in = append(in, m.Room)
			}
		})
	})
	if err != nil {
		return err
	}
	stays := 0
	for _, room := range in {
		failed := r.departFrom(ctx, room, Sender{NID: user.NID, ID: id})
		if failed != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			stays++
			r.log.Info("a closed account could not leave a room", "room", room, "err", failed)
		}
		if mine, err := r.departedFrom(ctx, job, user.NID, failed); err != nil || !mine {
			return err
		}
	}
	return r.departed(ctx, job, user.NID, stays)
}

func (r *Rooms) departFrom(ctx context.Context, room store.RoomNID, user Sender) error {
	ctx, cancel := context.WithTimeout(ctx, departTime)
	defer cancel()
	ref, err := r.LookupNID(ctx, room)
	if err != nil {
		return err
	}
	return r.Leave(ctx, MemberRequest{Room: ref, Sender: user})
}

// departedFrom notes how it went with one room, for whoever follows that.
func (r *Rooms) departedFrom(ctx context.Context, job store.Job, user store.UserNID, failed error) (mine bool, err error) {
	work.Failpoint("depart.before_commit")
	err = r.db.Write(ctx, func(tx *store.Tx) (err error) {
		if mine, err = tx.SaveJob(job, r.now().UnixMilli(), departLease.Milliseconds()); err != nil || !mine {
			return err
		}
		if failed == nil {
			return nil
		}
		return tx.ClosingFailed(user, "A room did not let the user leave. It is tried again; the server's log says why.")
	})
	work.Failpoint("depart.after_commit")
	return mine, err
}

// departed ends a job, or puts it off if the user is still in some rooms.
func (r *Rooms) departed(ctx context.Context, job store.Job, user store.UserNID, stays int) error {
	tries, _ := strconv.Atoi(job.Cursor) // nothing at first
	tries++
	if stays > 0 && tries < departTries {
		job.Cursor = strconv.Itoa(tries)
		_, err := r.saveJob(ctx, job, r.now().Add(departAgain<<(tries-1)), 0)
		return err
	}
	if stays > 0 {
		r.log.Warn("a closed account stays in rooms that do not let it go", "rooms", stays)
	}
	return r.db.Write(ctx, func(tx *store.Tx) error {
		mine, err := tx.EndJob(job)
		if err != nil || !mine {
			return err
		}
		failure := ""
		if stays > 0 {
			failure = "Some rooms did not let the user leave, and it was given up."
		}
		return tx.ClosingFailed(user, failure)
	})
}

func (r *Rooms) saveJob(ctx context.Context, job store.Job, due time.Time, lease time.Duration) (mine bool, err error) {
	err = r.db.Write(ctx, func(tx *store.Tx) (err error) {
		mine, err = tx.SaveJob(job, due.UnixMilli(), lease.Milliseconds())
		return err
	})
	return mine, err
}
