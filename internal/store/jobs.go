package store

import (
	"context"
	"math/rand/v2"
	"time"
)

// JobKind says what is to be done by a job.
type JobKind string

// The kinds of jobs, and what their keys are.
const (
	JobDepart JobKind = "depart" // a user ID: its account was closed, and it is to leave its rooms
	JobJoin   JobKind = "join"   // a room ID and a user ID, with a blank between: the user joins through another server
	JobUpload JobKind = "upload" // the ID of a content: an upload that comes in pieces is given up, unless it was finished
	JobClaim  JobKind = "claim"  // a room ID, a user ID and a token: the user has an address that was invited to the room
	JobUnbind JobKind = "unbind" // a user ID: its account was closed, and identity servers are to forget its addresses
	JobErase  JobKind = "erase"  // a user ID: what the user of a closed account has left in rooms, and what was its own, is erased
	JobShred  JobKind = "shred"  // a user ID: what the user of a closed account has uploaded is deleted
	JobExport JobKind = "export" // a user ID: all that there is of the user is put together, and removed when its time is over
	JobPeople JobKind = "people" // nothing: whom the directory still has is looked at from the ID on that is its cursor
	JobSearch JobKind = "search" // nothing: what can be found by words is kept up to the stream's position that is its cursor
)

// Job is work that outlives its request, leased by whoever does it.
type Job struct {
	Kind   JobKind
	Key    string
	Cursor string // how far it has come, as its kind understands it
	Fence  int64  // of the lease
}

// firstFence is where the fence of a new job begins, which is no other's: whoever worked at a job that was removed, and noted anew
// by somebody else meanwhile, must not take the new lease for its own.
func firstFence() int64 { return rand.Int64N(1 << 62) }

// AddJob notes work that is due at a time (ms), unless it is noted already.
func (tx *Tx) AddJob(kind JobKind, key string, due int64) error {
	return tx.NoteJob(Job{Kind: kind, Key: key}, due)
}

// NoteJob is AddJob for work whose cursor says what is to be done.
func (tx *Tx) NoteJob(j Job, due int64) error {
	_, err := tx.Exec(`INSERT INTO jobs (kind, key, due, cursor, fence) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (kind, key) DO NOTHING`,
		string(j.Kind), j.Key, due, j.Cursor, firstFence())
	return err
}

// CountJobs counts the jobs of a kind, up to a number that is enough to know.
func (tx *Tx) CountJobs(kind JobKind, most int) (n int, err error) {
	_, err = tx.QueryRow(`SELECT count(*) FROM (SELECT 1 FROM jobs WHERE kind = $1 LIMIT $2) AS found`, string(kind), most).Scan(&n)
	return n, err
}

// TakeJob notes a job and takes it at once. One that is noted under this key already is taken as it stands; nil if
// somebody works at it.
func (tx *Tx) TakeJob(j Job, due, leaseMS int64) (taken *Job, err error) {
	err = tx.Query(`INSERT INTO jobs (kind, key, due, cursor, lease_until, fence) VALUES ($1, $2, $3, $4, {now} + $5, $6)
		ON CONFLICT (kind, key) DO UPDATE SET lease_until = excluded.lease_until, fence = jobs.fence + 1 WHERE jobs.lease_until < {now}
		RETURNING cursor, fence`, func(r *Row) error {
		taken = &Job{j.Kind, j.Key, r.Text(0), r.Int64(1)}
		return nil
	}, string(j.Kind), j.Key, due, j.Cursor, leaseMS, firstFence())
	return taken, err
}

// JobDue says whether a job of a kind is due at the time now (ms) and nobody works at it.
func (tx *Tx) JobDue(kind JobKind, now int64) (yes bool, err error) {
	err = tx.Query(`SELECT EXISTS (SELECT 1 FROM jobs WHERE kind = $1 AND due <= $2 AND lease_until < {now})`, func(r *Row) error {
		yes = r.Bool(0)
		return nil
	}, string(kind), now)
	return yes, err
}

// LeaseJob takes a job of a kind that is due at the time now (ms) and that nobody works at; nil if there is none.
func (tx *Tx) LeaseJob(kind JobKind, now, leaseMS int64) (job *Job, err error) {
	err = tx.Query(`UPDATE jobs SET fence = fence + 1, lease_until = {now} + $3 WHERE kind = $1 AND key = (
		SELECT key FROM jobs WHERE kind = $1 AND due <= $2 AND lease_until < {now} ORDER BY due, key LIMIT 1 {skip locked})
		RETURNING key, cursor, fence`, func(r *Row) error {
		job = &Job{kind, r.Text(0), r.Text(1), r.Int64(2)}
		return nil
	}, string(kind), now, leaseMS)
	return job, err
}

// SaveJob stores how far a job has come and when it is due again (ms), and renews the lease, or gives it back if leaseMS
// is 0. It reports false if the lease was lost, and then stores nothing.
func (tx *Tx) SaveJob(j Job, due, leaseMS int64) (bool, error) {
	n, err := tx.Exec(`UPDATE jobs SET cursor = $4, due = $5, lease_until = CASE WHEN $6 = 0 THEN 0 ELSE {now} + $6 END
		WHERE kind = $1 AND key = $2 AND fence = $3`, string(j.Kind), j.Key, j.Fence, j.Cursor, due, leaseMS)
	return n == 1, err
}

// RenewJob renews the lease of a job; it reports false if it was lost.
func (tx *Tx) RenewJob(j Job, leaseMS int64) (bool, error) {
	n, err := tx.Exec(`UPDATE jobs SET lease_until = {now} + $4 WHERE kind = $1 AND key = $2 AND fence = $3`, string(j.Kind), j.Key, j.Fence, leaseMS)
	return n == 1, err
}

// KeepJob renews the lease of a job, three times in its length, until ctx ends or the lease is lost, which it reports. While the
// database cannot be asked nothing is known to be lost: whoever works learns it when saving.
func (db *DB) KeepJob(ctx context.Context, j Job, lease time.Duration) (lost bool) {
	tick := time.NewTicker(lease / 3)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
		mine := false
		err := db.Write(ctx, func(tx *Tx) (err error) {
			mine, err = tx.RenewJob(j, lease.Milliseconds())
			return err
		})
		if err == nil && !mine {
			return true
		}
	}
}

// EndJob removes a job that is done; it reports false if the lease was lost.
func (tx *Tx) EndJob(j Job) (bool, error) {
	n, err := tx.Exec(`DELETE FROM jobs WHERE kind = $1 AND key = $2 AND fence = $3`, string(j.Kind), j.Key, j.Fence)
	return n == 1, err
}
