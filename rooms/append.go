package rooms

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"conclave/internal/cluster"
	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
	"conclave/internal/store"
	"conclave/internal/work"
)

// entry is one event on its way through the door: a template for an event made here, or an event from outside with
// what is known about its place.
type entry struct {
	template *matrix.Template
	incoming *incoming

	sender store.UserNID
	txn    store.TxnKey
	txnID  string // the client's own

	row *store.EventRow // the result
}

// unit is what enters together or not at all: one event nearly always, several when a room is made.
type unit struct {
	entries []*entry
	makes   *store.NewRoom // the room itself, with its first events
	tries   int

	done  chan struct{} // closed once err and the rows of entries are final
	err   error
	leave func() // ends the transaction that it is under way for; may be nil

	// answered is set when the transaction ID was known already: the event it made then.
	answered matrix.EventID
}

func newUnit(entries ...*entry) *unit { return &unit{entries: entries, done: make(chan struct{})} }

func (u *unit) finish(err error) {
	u.err = err
	if u.leave != nil {
		u.leave()
	}
	close(u.done)
}

// ended reports whether the unit's caller has been told.
func (u *unit) ended() bool {
	select {
	case <-u.done:
		return true
	default:
		return false
	}
}

const (
	maxGroup = 64 // events written in one transaction (law 3)
	maxTries = 8  // how often a unit is prepared again because another node was faster
)

// append is the one door: every event that enters the present of a room comes through here. It returns once the unit
// is durable or refused. If ctx ends earlier the unit goes on without its caller.
func (r *Rooms) append(ctx context.Context, ref Ref, u *unit) error {
	rm := r.room(ref)
	rm.mu.Lock()
	rm.waiting = append(rm.waiting, u)
	start := !rm.active
	rm.active = true
	rm.mu.Unlock()
	if start {
		r.work.Go("room", func(ctx context.Context) error {
			r.drain(ctx, rm)
			return nil
		})
	}
	select {
	case <-u.done:
		return u.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// drain takes the waiting units of a room through the door, one group after the other, until none waits.
func (r *Rooms) drain(ctx context.Context, rm *room) {
	for {
		group := rm.take()
		if group == nil {
			return
		}
		again := r.groupContained(ctx, rm, group)
		if len(again) > 0 {
			rm.mu.Lock()
			rm.waiting = append(again, rm.waiting...)
			rm.mu.Unlock()
		}
	}
}

// take removes the next group from the queue, at most maxGroup events but always a whole unit.
func (rm *room) take() []*unit {
	rm.mu.Lock()
	defer rm.mu.Unlock()
	if len(rm.waiting) == 0 {
		rm.active = false
		return nil
	}
	n, events := 0, 0
	for n < len(rm.waiting) && (n == 0 || events+len(rm.waiting[n].entries) <= maxGroup) {
		events += len(rm.waiting[n].entries)
		n++
	}
	group := rm.waiting[:n:n]
	rm.waiting = rm.waiting[n:]
	return group
}

// groupContained is group for units whose callers must hear of it whatever goes wrong: after a panic those that are not
// ended are ended with an error, and the room goes on from what the database says.
func (r *Rooms) groupContained(ctx context.Context, rm *room, units []*unit) (again []*unit) {
	defer func() {
		if v := recover(); v != nil {
			err := r.panicked("writing to a room", rm.ref, v)
			rm.head = nil
			again = nil
			for _, u := range units {
				if !u.ended() {
					u.finish(err)
				}
			}
		}
	}()
	return r.group(ctx, rm, units)
}

// group prepares units in order and writes them. It returns those that have to be prepared again.
func (r *Rooms) group(ctx context.Context, rm *room, units []*unit) (again []*unit) {
	if rm.head == nil {
		h, err := r.loadHead(ctx, rm.ref)
		if err != nil {
			for _, u := range units {
				u.finish(err)
			}
			return nil
		}
		rm.head = h
	}
	if rm.rulesMoved.Swap(false) {
		h := *rm.head
		h.audience = nil
		rm.head = &h
	}
	d := r.newDraft(rm.ref, rm.head)
	var ready []*unit
	for _, u := range units {
		m := d.mark()
		if err := d.prepareContained(ctx, u); err != nil {
			d.reset(m)
			var need *needResolution
			if errors.As(err, &need) && len(ready) > 0 {
				again = append(again, u) // the states it meets may be of this group, which is not written yet
				continue
			}
			u.finish(err)
			continue
		}
		if u.makes != nil {
			d.out.Makes = u.makes
		}
		ready = append(ready, u)
	}
	if len(ready) == 0 {
		return nil
	}
	return append(r.write(ctx, rm, d, ready), again...)
}

// write writes units that are prepared and ends them. It returns those that have to be prepared again.
func (r *Rooms) write(ctx context.Context, rm *room, d *draft, units []*unit) (again []*unit) {
	work.Failpoint("append.before_commit")
	err := r.db.Append(ctx, &d.out)
	work.Failpoint("append.after_commit")
	var known *store.KnownTxns
	switch {
	case err == nil:
		r.meetWaiting(ctx, rm.ref, d.out.Redactions)
		r.committed(rm, d, units)
		return nil
	case errors.As(err, &known):
		return r.answerKnown(known, units)
	case errors.Is(err, store.ErrHeadMoved):
		rm.head = nil // another node was faster
		return retry(units, err)
	case errors.Is(err, store.ErrRoomBusy):
		rm.head = nil // another node is about to be
		busyPause(ctx, units[0].tries)
		return retry(units, err)
	}
	rm.head = nil
	if len(units) > 1 { // one of them may be to blame: each on its own
		for _, u := range units {
			again = append(again, r.group(ctx, rm, []*unit{u})...)
		}
		return again
	}
	units[0].finish(fmt.Errorf("writing to room %s: %w", rm.ref.ID, err))
	return nil
}

// busyPause waits for another node to let go of a room: 10 ms at first, twice as long each time.
func busyPause(ctx context.Context, tries int) {
	t := time.NewTimer(10 * time.Millisecond << tries)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// retry keeps the units that may be prepared once more and fails the others.
func retry(units []*unit, err error) (again []*unit) {
	for _, u := range units {
		if u.tries++; u.tries > maxTries {
			u.finish(fmt.Errorf("gave up after %d tries: %w", maxTries, err))
			continue
		}
		again = append(again, u)
	}
	return again
}

// answerKnown ends the units whose transaction ID had been answered before; the others are prepared again.
func (r *Rooms) answerKnown(known *store.KnownTxns, units []*unit) (again []*unit) {
	for _, u := range units {
		if answer, ok := known.Answers[u.entries[0].txn]; ok {
			u.answered = matrix.EventID(answer)
			u.finish(nil)
			continue
		}
		again = append(again, u)
	}
	return retry(again, errors.New("transaction IDs kept being known"))
}

// committed makes what was written visible: caches, the room's head, the callers, everybody who waits.
func (r *Rooms) committed(rm *room, d *draft, units []*unit) {
	for _, n := range d.out.Nodes {
		r.cache.nodes.Set(nodeKey{rm.ref.NID, n.Name}, n.Data)
	}
	r.cache.events.fill(d.since, d.out.Events...)
	r.cache.events.fill(d.since, d.out.Aside...)
	h := d.head
	if changed := append(changedRows(d.out.Replaced, d.out.Redactions), d.out.Released...); len(changed) > 0 {
		r.cache.events.changed(changed...)
		h.auth = map[authrules.StateKey]*store.EventRow{} // what it remembers may be among them
	}
	rm.head = &h
	r.merges.note(rm.ref, h.extremities)
	r.unpark(rm.ref, d.out.Events...) // before anybody goes on for whom nothing waits any more
	r.unpark(rm.ref, d.out.Aside...)
	for _, u := range units {
		u.finish(nil)
	}
	if last := d.out.Last(); last != 0 {
		r.bus.Publish(cluster.Stream, int64(last))
	}
}

// changedRows are the events whose rows a transaction changes: those that found their place, and those redacted.
func changedRows(replaced []store.EventNID, redactions []store.Redaction) []store.EventNID {
	nids := slices.Clone(replaced)
	for _, red := range redactions {
		if red.TargetNID != 0 {
			nids = append(nids, red.TargetNID)
		}
	}
	return nids
}
