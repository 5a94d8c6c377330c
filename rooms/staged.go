package rooms

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Stage writes events that Admit found good into the caller's transaction, to be durable before they are acknowledged.
// After the commit each room's own drain takes them to their places, one after the other, whatever happens in other
// rooms. origin is the server that Admit was given.
func (r *Rooms) Stage(tx *store.Tx, origin matrix.ServerName, admitted []Admitted) error {
	var rows []store.Staged
	rooms := map[store.RoomNID]Ref{}
	now := r.now().UnixMilli()
	for _, a := range admitted {
		if a.Err != nil || a.Event == nil {
			continue
		}
		rooms[a.Ref.NID] = a.Ref
		rows = append(rows, store.Staged{
			NID: a.staged, Room: a.Ref.NID, Origin: a.origin, ID: a.ID, Received: now, JSON: a.Event.JSON(),
		})
	}
	if len(rows) == 0 {
		return nil
	}
	if err := tx.Stage(rows); err != nil {
		return err
	}
	tx.AfterCommit(func() {
		for _, row := range rows {
			r.inbound.came(row.Room)
		}
		for _, ref := range rooms {
			r.wake(ref)
		}
	})
	return nil
}

// The queue of a room that nobody has looked at yet is short enough for more, or its sender waits, for a while at most:
// then the oldest give way (store.MaxStaged) rather than one room holding up all others of that sender.
const (
	crowdSize = store.MaxStaged / 2
	crowdTime = 5 * time.Second
)

// Queue waits until the rooms of admitted events have room for them. Whoever brings events faster than they can be taken
// to their places is so answered later, and brings the next ones later.
func (r *Rooms) Queue(ctx context.Context, admitted []Admitted) {
	ctx, cancel := context.WithTimeout(ctx, crowdTime)
	defer cancel()
	for _, a := range admitted {
		for a.Err == nil && ctx.Err() == nil {
			moved, crowded := r.inbound.crowd(a.Ref.NID)
			if !crowded {
				break
			}
			select {
			case <-moved:
			case <-ctx.Done():
			}
		}
	}
}

// Resume goes on with the events that waited when the server stopped.
func (r *Rooms) Resume(ctx context.Context) error {
	var rooms []store.RoomNID
	err := r.db.Read(ctx, func(tx *store.Tx) error {
		rooms = nil
		return tx.RoomsWaiting(func(nid store.RoomNID) { rooms = append(rooms, nid) })
	})
	if err != nil {
		return err
	}
	for _, nid := range rooms {
		ref, err := r.LookupNID(ctx, nid)
		if err != nil {
			return err
		}
		r.wake(ref)
	}
	return nil
}

// inbound knows which rooms' drains are at work.
type inbound struct {
	mu     sync.Mutex
	active map[store.RoomNID]bool // true: something came since the drain began its round
	timers map[store.RoomNID]*time.Timer
	fresh  map[store.RoomNID]int // events that came and were not looked at yet
	moved  chan struct{}         // closed when some were
}

// came counts an event that was staged.
func (in *inbound) came(room store.RoomNID) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.fresh[room]++
}

// looked counts events that were taken up. Those that were put off come here more than once: the count may be too low,
// never too high.
func (in *inbound) looked(room store.RoomNID, n int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.fresh[room] -= n; in.fresh[room] <= 0 {
		delete(in.fresh, room)
	}
	close(in.moved)
	in.moved = make(chan struct{})
}

// crowd says whether too many events of a room wait, and what is closed when that may have changed.
func (in *inbound) crowd(room store.RoomNID) (moved <-chan struct{}, crowded bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.moved, in.fresh[room] > crowdSize
}

// calmTime bounds how long a question about a room waits for what came for it before.
const calmTime = 2 * time.Second

// settle waits until what came for a room before was looked at, for a while at most. Who was told that a removal is taken
// and invites again means the room after it, in which the user, or all of ours, are out (threats F28).
func (in *inbound) settle(ctx context.Context, room store.RoomNID) {
	ctx, cancel := context.WithTimeout(ctx, calmTime)
	defer cancel()
	for {
		moved, waiting := in.waits(room)
		if !waiting {
			return
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return
		}
	}
}

// waits says whether anything that came for a room was not looked at yet, and what is closed when that may have changed.
func (in *inbound) waits(room store.RoomNID) (moved <-chan struct{}, waiting bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.moved, in.fresh[room] > 0
}

func newInbound() inbound {
	return inbound{
		active: map[store.RoomNID]bool{}, timers: map[store.RoomNID]*time.Timer{},
		fresh: map[store.RoomNID]int{}, moved: make(chan struct{}),
	}
}

// wake sees to it that a room's drain looks at what waits.
func (r *Rooms) wake(ref Ref) {
	in := &r.inbound
	in.mu.Lock()
	_, running := in.active[ref.NID]
	in.active[ref.NID] = true
	in.mu.Unlock()
	if !running {
		r.abroad.Go("inbound", func(ctx context.Context) error { return r.drainStaged(ctx, ref) })
	}
}

// begin starts a round; what comes from now on asks for another.
func (in *inbound) begin(room store.RoomNID) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.active[room] = false
}

// end ends a drain unless something came since its round began. again is when to look at what had to be put off.
func (in *inbound) end(room store.RoomNID, again time.Duration, look func()) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.active[room] {
		return false
	}
	delete(in.active, room)
	if old := in.timers[room]; old != nil {
		old.Stop()
		delete(in.timers, room)
	}
	if again > 0 {
		in.timers[room] = time.AfterFunc(again, look)
	}
	return true
}

// drainStaged takes the events that wait in a room to their places until none waits that can be helped now.
func (r *Rooms) drainStaged(ctx context.Context, ref Ref) error {
	for {
		r.inbound.begin(ref.NID)
		again, err := r.round(ctx, ref)
		if err == nil {
			err = r.ripen(ctx, ref)
		}
		if err != nil {
			return err
		}
		if r.inbound.end(ref.NID, again, func() {
			if ctx.Err() == nil {
				r.wake(ref)
			}
		}) {
			return nil
		}
	}
}

const (
	stagedBatch = 100 // events looked at together: those among them that follow one another come in their order
	maxWait     = 7 * 24 * time.Hour
)

// round goes once through what waits in a room, but for what is parked. again is when the first event that was put off is
// due, 0 for none.
func (r *Rooms) round(ctx context.Context, ref Ref) (again time.Duration, err error) {
	if r.joining.has(ref.NID) {
		return 0, nil // the join looks itself, once the room has a state
	}
	defer r.parked.look(ref.NID)()
	if r.parked.any(ref.NID) {
		return r.roundOfDue(ctx, ref)
	}
	stuck := map[matrix.EventID]*pausedError{}
	for after := int64(0); ; {
		rows, wait, err := r.take(ctx, ref, stuck, func(tx *store.Tx, each func(store.Staged, matrix.ServerName)) error {
			return tx.Waiting(ref.NID, after, stagedBatch, each)
		})
		again = sooner(again, wait)
		if err != nil || len(rows) == 0 {
			return again, err
		}
		after = rows[len(rows)-1].NID
	}
}

// roundOfDue is round for a room with parked events.
func (r *Rooms) roundOfDue(ctx context.Context, ref Ref) (again time.Duration, err error) {
	var numbers []int64
	err = r.db.Read(ctx, func(tx *store.Tx) error {
		numbers = numbers[:0]
		return tx.WaitingNumbers(ref.NID, func(row int64) { numbers = append(numbers, row) })
	})
	if err != nil {
		return 0, err
	}
	now := r.now()
	due, again, stuck := r.parked.sift(ref.NID, numbers, now, func(id matrix.EventID, from matrix.ServerName) time.Duration {
		return r.delays.wait(id, from, now)
	})
	for part := range slices.Chunk(due, stagedBatch) {
		_, wait, err := r.take(ctx, ref, stuck, func(tx *store.Tx, each func(store.Staged, matrix.ServerName)) error {
			return tx.Staged(part, each)
		})
		again = sooner(again, wait)
		if err != nil {
			return again, err
		}
	}
	return again, nil
}

// sooner is the shorter of two waits, of which 0 is none.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

// take takes events that wait, as read reads them, to their places; those that are done with wait no longer.
func (r *Rooms) take(ctx context.Context, ref Ref, stuck map[matrix.EventID]*pausedError, read func(*store.Tx, func(store.Staged, matrix.ServerName)) error) (rows []store.Staged, again time.Duration, err error) {
	from := map[matrix.EventID]matrix.ServerName{}
	err = r.db.Read(ctx, func(tx *store.Tx) error {
		rows = rows[:0]
		return read(tx, func(row store.Staged, origin matrix.ServerName) {
			rows = append(rows, row)
			from[row.ID] = origin
		})
	})
	if err != nil || len(rows) == 0 {
		return nil, 0, err
	}
	done, again, err := r.takeBatch(ctx, ref, rows, from, stuck)
	r.inbound.looked(ref.NID, len(rows))
	if err != nil {
		return rows, again, err
	}
	return rows, again, r.db.Write(ctx, func(tx *store.Tx) error { return tx.Unstage(done) })
}

// takeBatch takes waiting events to their places, parents first, and says which of them are done with.
func (r *Rooms) takeBatch(ctx context.Context, ref Ref, rows []store.Staged, from map[matrix.EventID]matrix.ServerName, stuck map[matrix.EventID]*pausedError) (done []int64, again time.Duration, err error) {
	resident, err := r.resident(ctx, ref.NID)
	if err != nil {
		return nil, 0, err
	}
	numbers := map[matrix.EventID]int64{}
	received := map[matrix.EventID]int64{}
	var events []*matrix.Event
	for _, row := range rows {
		ev, err := matrix.TrustedEvent(row.JSON, row.ID, ref.Version)
		if err != nil || !resident {
			done = append(done, row.NID) // nobody of ours is in the room any more, or the row is damaged
			continue
		}
		numbers[row.ID], received[row.ID] = row.NID, row.Received
		events = append(events, ev)
	}
	events = inOrder(events, behind)
	for alone, streak := 0, 1; len(events) > 0; alone-- {
		if alone <= 0 {
			n := r.takeRun(ctx, ref, events)
			for _, ev := range events[:n] {
				r.delays.forget(ev.ID())
				done = append(done, numbers[ev.ID()])
			}
			if events = events[n:]; len(events) == 0 {
				break
			}
			if alone, streak = streak, 2*streak; n > 0 { // the fewer runs there are, the less often one is looked for
				alone, streak = 1, 1
			}
		}
		ev := events[0]
		events = events[1:]
		began := r.parked.mark(ref.NID)
		err := r.tryPlace(ctx, ref, from[ev.ID()], ev, stuck)
		if ctx.Err() != nil {
			return done, 0, ctx.Err()
		}
		if err == nil {
			r.delays.forget(ev.ID())
			done = append(done, numbers[ev.ID()])
			continue
		}
		wait, until := r.putOff(ref, ev.ID(), err)
		if r.parked.park(ref.NID, numbers[ev.ID()], ev, from[ev.ID()], until, began) {
			r.wake(ref)
		}
		if r.now().Sub(time.UnixMilli(received[ev.ID()])) > maxWait {
			done = append(done, numbers[ev.ID()])
			continue
		}
		again = sooner(again, wait)
	}
	return done, again, nil
}

// tryPlace takes a waiting event to its place, unless it follows one of those that are stuck because the room is paused:
// nobody need be asked for what waits here.
func (r *Rooms) tryPlace(ctx context.Context, ref Ref, from matrix.ServerName, ev *matrix.Event, stuck map[matrix.EventID]*pausedError) error {
	for _, id := range ev.PrevEvents() {
		if paused := stuck[id]; paused != nil {
			stuck[ev.ID()] = paused
			return paused
		}
	}
	err := r.arriveContained(ctx, ref, from, ev)
	var paused *pausedError
	if errors.As(err, &paused) {
		stuck[ev.ID()] = paused
	}
	return err
}

// putOff decides when an event that could not be taken to its place is tried again. until is zero where delays knows it.
func (r *Rooms) putOff(ref Ref, id matrix.EventID, err error) (wait time.Duration, until time.Time) {
	var later *putOffError
	if errors.As(err, &later) {
		return later.wait, until
	}
	var paused *pausedError
	if errors.As(err, &paused) {
		r.log.Debug("event put off", "room", ref.ID, "event", id, "again_in", paused.wait, "err", err)
		return paused.wait, paused.until
	}
	wait = r.delays.failed(id, firstRetry, r.now())
	r.log.Warn("event put off", "room", ref.ID, "event", id, "again_in", wait, "err", err)
	return wait, until
}

// arriveContained is arrive for an event that must not take the rest of its room with it, whatever is wrong with it.
func (r *Rooms) arriveContained(ctx context.Context, ref Ref, from matrix.ServerName, ev *matrix.Event) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("event %s: %w", ev.ID(), r.panicked("taking an event to its place", ref, v))
		}
	}()
	return r.arrive(ctx, ref, from, ev)
}

// behind is what an event has to come behind: what it follows, and what it rests on, which in a graph that was made to
// confuse need not be the same way.
func behind(ev *matrix.Event) []matrix.EventID {
	return append(slices.Clone(ev.PrevEvents()), ev.AuthEvents()...)
}

// inOrder sorts events so that each comes behind those of its parents that are among them; events of a circle, which
// only ill will can make, are left out.
func inOrder(events []*matrix.Event, parents func(*matrix.Event) []matrix.EventID) []*matrix.Event {
	byID := make(map[matrix.EventID]*matrix.Event, len(events))
	for _, ev := range events {
		byID[ev.ID()] = ev
	}
	waiting := map[matrix.EventID]int{}
	children := map[matrix.EventID][]*matrix.Event{}
	var ready []*matrix.Event
	for _, ev := range events {
		seen := map[matrix.EventID]bool{}
		for _, id := range parents(ev) {
			if byID[id] != nil && !seen[id] {
				seen[id] = true
				children[id] = append(children[id], ev)
			}
		}
		if waiting[ev.ID()] = len(seen); len(seen) == 0 {
			ready = append(ready, ev)
		}
	}
	sorted := make([]*matrix.Event, 0, len(events))
	for len(ready) > 0 {
		ev := ready[0]
		ready = ready[1:]
		sorted = append(sorted, ev)
		for _, child := range children[ev.ID()] {
			if waiting[child.ID()]--; waiting[child.ID()] == 0 {
				ready = append(ready, child)
			}
		}
	}
	return sorted
}

// putOffError is the error of an event that waits for the end of a delay.
type putOffError struct {
	wait  time.Duration
	cause error
}

func (e *putOffError) Error() string { return "rooms: put off: " + e.cause.Error() }

func (e *putOffError) Unwrap() error { return e.cause }

// roomSet is a set of rooms, safe for concurrent use. A room can be in it several times.
type roomSet struct {
	mu  sync.Mutex
	set map[store.RoomNID]int
}

func (s *roomSet) add(room store.RoomNID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set[room]++
}

func (s *roomSet) remove(room store.RoomNID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.set[room]--; s.set[room] <= 0 {
		delete(s.set, room)
	}
}

func (s *roomSet) has(room store.RoomNID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set[room] > 0
}
