package rooms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// How joins through other servers outlive a crash. Whoever goes on with one waits for the end of the lease of who is gone.
const (
	joinLook  = 2 * time.Second
	joinLease = 10 * time.Second
	joinPoll  = 500 * time.Millisecond
	joinTries = 3             // starts of the process with the same join under way
	joinsBack = 4             // joins that are taken up again at a time
	dropChunk = 2000          // staged rows removed in one transaction
	dropTime  = 2 * time.Hour // after which a join is not taken up any more
)

// joinPlan is what a join's job has to know.
type joinPlan struct {
	Request JoinRequest
	Servers []matrix.ServerName
	Began   int64 // ms
	Tries   int

	// The conversation with one of the servers.
	Stage   int64 `json:",omitempty"` // 0 if nothing was asked yet
	Server  matrix.ServerName
	Version matrix.RoomVersion
	Event   string         // the join, as signed
	ID      matrix.EventID // its ID
	Whole   bool           // the answer is staged whole
}

func (p *joinPlan) key() string { return string(p.Request.Room) + " " + string(p.Request.User.ID) }

// joinLog keeps the job of a join.
type joinLog struct {
	r    *Rooms
	plan *joinPlan
	job  *store.Job
}

// fly runs a join, or waits for the one that the user has under way to the room. job is that of a join that a crash
// interrupted, or nil.
func (r *Rooms) fly(ctx context.Context, plan *joinPlan, job *store.Job) error {
	_, err := r.flights.Do(ctx, plan.key(), func(context.Context) (struct{}, error) {
		done := make(chan error, 1)
		r.abroad.Go("join", func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, joinTime)
			defer cancel()
			r.joinDurably(ctx, &joinLog{r, plan, job}, func(err error) { done <- err })
			return nil
		})
		return struct{}{}, <-done
	})
	return err
}

// joinDurably runs a join as a job, which is gone when the join succeeded or failed, and stays when the process ends.
// Nobody has to wait until everything is cleared up behind it: tell is called before.
func (r *Rooms) joinDurably(ctx context.Context, log *joinLog, tell func(error)) {
	if log.job == nil {
		if err := log.start(ctx); err != nil {
			tell(err)
			return
		}
	}
	inLease, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	renewed := make(chan struct{})
	go func() {
		defer close(renewed)
		if r.db.KeepJob(inLease, *log.job, joinLease) {
			cancel(errLeaseLost)
		}
	}()
	err := r.joinThroughAny(inLease, log)
	tell(err)
	defer func() {
		cancel(nil)
		<-renewed
	}()
	if err != nil && (errors.Is(ctx.Err(), context.Canceled) || errors.Is(context.Cause(inLease), errLeaseLost)) {
		return // to be taken up again, or taken up already
	}
	if err := log.end(ctx); err != nil {
		r.log.Error("clearing up behind a join failed", "room", log.plan.Request.Room, "err", err)
	}
}

// start notes a join. One that is noted already, before a crash or by another node, is waited for and gone on with.
func (l *joinLog) start(ctx context.Context) error {
	l.plan.Began = l.r.now().UnixMilli()
	cursor, err := json.Marshal(l.plan)
	if err != nil {
		return fmt.Errorf("noting a join: %w", err)
	}
	job := store.Job{Kind: store.JobJoin, Key: l.plan.key(), Cursor: string(cursor)}
	again := time.NewTicker(joinPoll)
	defer again.Stop()
	for {
		err := l.r.db.Write(ctx, func(tx *store.Tx) (err error) {
			l.job, err = tx.TakeJob(job, l.plan.Began, joinLease.Milliseconds())
			return err
		})
		if err != nil {
			return err
		}
		if l.job != nil {
			break
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	plan := &joinPlan{}
	if err := json.Unmarshal([]byte(l.job.Cursor), plan); err != nil {
		return fmt.Errorf("reading the job of a join: %w", err)
	}
	plan.Request, plan.Servers = l.plan.Request, l.plan.Servers // the user asked anew
	l.plan = plan
	return nil
}

var errLeaseLost = errors.New("rooms: somebody else took up the join")

// save stores the plan.
func (l *joinLog) save(ctx context.Context) error {
	cursor, err := json.Marshal(l.plan)
	if err != nil {
		return fmt.Errorf("noting a join: %w", err)
	}
	job := *l.job
	job.Cursor = string(cursor)
	mine, err := l.r.saveJob(ctx, job, time.UnixMilli(l.plan.Began), joinLease)
	if err == nil && !mine {
		err = errLeaseLost
	}
	return err
}

// begin notes a conversation before its first event is staged; what is left of the last one goes.
func (l *joinLog) begin(ctx context.Context, j *join) (int64, error) {
	if err := l.drop(ctx); err != nil {
		return 0, err
	}
	stage, err := l.r.db.NextNID(store.KindStaged)
	if err != nil {
		return 0, err
	}
	l.plan.Stage, l.plan.Server, l.plan.Version, l.plan.Whole = stage, j.server, j.ref.Version, false
	return stage, l.save(ctx)
}

// answered notes that the answer is staged whole.
func (l *joinLog) answered(ctx context.Context, j *join) error {
	l.plan.Event, l.plan.ID, l.plan.Whole = string(j.event.JSON()), j.event.ID(), true
	return l.save(ctx)
}

// drop removes what is staged, and memberships that were shown of a room that we did not get into.
func (l *joinLog) drop(ctx context.Context) error {
	if l.plan.Stage == 0 {
		return nil
	}
	for more := true; more; {
		err := l.r.db.Write(ctx, func(tx *store.Tx) (err error) {
			more, err = tx.DropJoin(l.plan.Stage, dropChunk)
			return err
		})
		if err != nil {
			return fmt.Errorf("dropping a staged answer: %w", err)
		}
	}
	ref, here, err := l.r.whereabouts(ctx, l.plan.Request.Room)
	if err != nil || ref == nil || here || !l.plan.Whole {
		return err
	}
	unlock, err := l.r.entering.lock(ctx, ref.NID)
	if err != nil {
		return err
	}
	defer unlock()
	own, err := l.r.db.Server(ctx, l.r.own.Name)
	for more := true; more && err == nil; {
		err = l.r.db.Write(ctx, func(tx *store.Tx) (err error) {
			more, err = tx.HideMembers(ref.NID, []store.ServerNID{own}, dropChunk)
			return err
		})
	}
	return err
}

// end clears up behind a join that is over.
func (l *joinLog) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if err := l.drop(ctx); err != nil {
		return err // the job stays, and is taken up again for this
	}
	return l.r.db.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.EndJob(*l.job)
		return err
	})
}

// joinAgain goes on with an answer that was staged whole before a crash.
func (r *Rooms) joinAgain(ctx context.Context, log *joinLog) error {
	p := log.plan
	ref := Ref{ID: p.Request.Room, Version: p.Version}
	ev, err := matrix.TrustedEvent([]byte(p.Event), p.ID, p.Version)
	if err != nil {
		return fmt.Errorf("rooms: a join that was noted: %w", err)
	}
	j := &join{r: r, ref: ref, server: p.Server, event: ev}
	if err := j.reread(ctx, p.Stage); err != nil {
		return err
	}
	return j.enter(ctx, p.Request.User)
}

// RunJoins takes up joins that a crash has interrupted. It ends with ctx.
func (r *Rooms) RunJoins(ctx context.Context) error {
	look := time.NewTicker(joinLook)
	defer look.Stop()
	places := make(chan struct{}, joinsBack)
	for {
		if err := r.joinsDue(ctx, places); err != nil && ctx.Err() == nil {
			r.log.Error("taking up joins failed", "err", err)
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// joinsDue takes up the joins that nobody works at, as long as there are places.
func (r *Rooms) joinsDue(ctx context.Context, places chan struct{}) error {
	for {
		now := r.now().UnixMilli()
		due := false
		err := r.db.Read(ctx, func(tx *store.Tx) (err error) {
			due, err = tx.JobDue(store.JobJoin, now)
			return err
		})
		if err != nil || !due {
			return err
		}
		select {
		case places <- struct{}{}:
		default:
			return nil
		}
		var job *store.Job
		err = r.db.Write(ctx, func(tx *store.Tx) (err error) {
			job, err = tx.LeaseJob(store.JobJoin, now, joinLease.Milliseconds())
			return err
		})
		if err != nil || job == nil {
			<-places
			return err
		}
		r.abroad.Go("join taken up", func(ctx context.Context) error {
			defer func() { <-places }()
			if err := r.takeUp(ctx, job); err != nil && ctx.Err() == nil {
				r.log.Error("taking up a join failed", "err", err)
			}
			return nil
		})
	}
}

// takeUp goes on with a join, or clears up behind one that is over or was tried too often.
func (r *Rooms) takeUp(ctx context.Context, job *store.Job) error {
	plan := &joinPlan{}
	if err := json.Unmarshal([]byte(job.Cursor), plan); err != nil {
		return fmt.Errorf("reading the job of a join: %w", err)
	}
	log := &joinLog{r, plan, job}
	plan.Tries++
	old := r.now().Sub(time.UnixMilli(plan.Began)) > dropTime
	ref, here, err := r.whereabouts(ctx, plan.Request.Room)
	if err != nil {
		return err
	}
	if here {
		stands, err := r.membershipOf(ctx, ref.NID, plan.Request.User.ID)
		if err != nil {
			return err
		}
		here = stands == store.Join
	}
	if here || old || plan.Tries > joinTries {
		return log.end(ctx)
	}
	if err := log.save(ctx); err != nil {
		return err
	}
	if err := r.fly(ctx, plan, job); err != nil {
		r.log.Info("join that a crash interrupted failed", "room", plan.Request.Room, "err", err)
	}
	return nil
}
