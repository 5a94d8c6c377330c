package rooms

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
	"conclave/internal/matrix/statetree"
	"conclave/internal/store"
)

// Evidence is what other servers name as the state somewhere in a room, and the auth chain of that: events that we hold
// without knowing the state at them (outliers). They are checked as all others are and allowed or rejected by their own
// auth events.

// evidenceChunk is how many events are verified, or written in one transaction.
const evidenceChunk = 500

// weighing judges events without a place.
type weighing struct {
	r      *Rooms
	ref    Ref
	create matrix.EventID // the room's only create event

	held     map[matrix.EventID]*store.EventRow // of the events and their auth events, those that we hold
	good     map[matrix.EventID]*matrix.Event
	rejected map[matrix.EventID]bool
	fresh    []*matrix.Event // those to be written, or whose heights are
	nids     map[matrix.EventID]store.EventNID
}

// weigh judges state events whose form, hash and signatures were checked, each after its auth events, and stores them.
// Those that lack an auth event are left out: there is nothing to judge them by.
func (r *Rooms) weigh(ctx context.Context, ref Ref, create matrix.EventID, events []*matrix.Event) (*weighing, error) {
	w := &weighing{
		r: r, ref: ref, create: create, held: map[matrix.EventID]*store.EventRow{}, good: map[matrix.EventID]*matrix.Event{},
		rejected: map[matrix.EventID]bool{}, nids: map[matrix.EventID]store.EventNID{},
	}
	ids := []matrix.EventID{create}
	seen := map[matrix.EventID]bool{create: true}
	for _, ev := range events {
		for _, id := range append(slices.Clone(ev.AuthEvents()), ev.ID()) {
			if !seen[id] {
				seen[id] = true
				ids = append(ids, id)
			}
		}
	}
	err := r.db.Read(ctx, func(tx *store.Tx) error {
		return tx.EventsByID(ref.NID, ids, func(row *store.EventRow) { w.held[row.Event.ID()] = row })
	})
	if err != nil {
		return nil, err
	}
	for id, row := range w.held {
		w.nids[id] = row.NID
		if row.Flags.Has(store.FlagRejected) {
			w.rejected[id] = true
		} else {
			w.good[id] = row.Event
		}
	}
	rests := func(ev *matrix.Event) []matrix.EventID { // on the room's creation too, where events do not name it
		if ev.ID() == create {
			return nil
		}
		return append(slices.Clone(ev.AuthEvents()), create)
	}
	for _, ev := range inOrder(events, rests) {
		switch held := w.held[ev.ID()]; {
		case held == nil && ev.IsState():
			w.judge(ev)
		case held != nil && held.Height == 0 && ev.IsState():
			w.fresh = append(w.fresh, ev) // it came before what it rests on: only its height is new
		}
	}
	return w, w.store(ctx)
}

// judge decides about one event whose auth events have been judged.
func (w *weighing) judge(ev *matrix.Event) {
	state := authrules.Map{}
	if create := w.good[w.create]; create != nil {
		state[authrules.StateKey{Type: "m.room.create"}] = create
	}
	var auth []*matrix.Event
	refused := ev.Type() == "m.room.create" && ev.ID() != w.create
	for _, id := range ev.AuthEvents() {
		switch a := w.good[id]; {
		case w.rejected[id]:
			refused = true
		case a == nil:
			return
		default:
			auth = append(auth, a)
			key, _ := a.StateKey()
			state[authrules.StateKey{Type: a.Type(), Key: key}] = a
		}
	}
	none := func(matrix.EventID) bool { return false } // looked at above
	if refused || authrules.CheckAuthEvents(ev, auth, none) != nil || authrules.Check(ev, state) != nil {
		w.rejected[ev.ID()] = true
	} else {
		w.good[ev.ID()] = ev
	}
	w.fresh = append(w.fresh, ev)
}

// store writes what was judged, in short transactions.
func (w *weighing) store(ctx context.Context) error {
	for left := w.fresh; len(left) > 0; {
		part := left[:min(len(left), evidenceChunk)]
		left = left[len(part):]
		rows, err := w.rows(ctx, part)
		if err != nil {
			return err
		}
		var low []*store.EventRow
		var nids []store.EventNID
		ids := make([]matrix.EventID, len(part))
		for i, ev := range part {
			ids[i] = ev.ID()
			if w.held[ev.ID()] != nil {
				low, nids = append(low, rows[i]), append(nids, rows[i].NID)
			}
		}
		err = w.r.db.Write(ctx, func(tx *store.Tx) error {
			if err := errors.Join(tx.Evidence(rows, nil), tx.Lift(low)); err != nil {
				return err
			}
			tx.AfterCommit(func() { w.r.cache.events.changed(nids...) })
			return tx.Known(w.ref.NID, ids, func(id matrix.EventID, nid store.EventNID, _ store.EventFlags, _ bool) { w.nids[id] = nid })
		})
		if err != nil {
			return fmt.Errorf("storing evidence of room %s: %w", w.ref.ID, err)
		}
		w.r.unpark(w.ref, rows...)
		if err := w.r.meet(ctx, w.ref, ids); err != nil { // nobody is shown any of it yet
			return err
		}
	}
	return nil
}

func (w *weighing) rows(ctx context.Context, events []*matrix.Event) ([]*store.EventRow, error) {
	senders := make([]matrix.UserID, len(events))
	for i, ev := range events {
		senders[i] = ev.Sender()
	}
	users, err := w.r.Users(ctx, senders)
	if err != nil {
		return nil, err
	}
	rows := make([]*store.EventRow, len(events))
	for i, ev := range events {
		if held := w.held[ev.ID()]; held != nil {
			row := *held
			rows[i] = &row
			continue
		}
		nid, err := w.r.db.NextNID(store.KindEvent)
		if err != nil {
			return nil, err
		}
		flags := store.FlagState | store.FlagOutlier
		if w.rejected[ev.ID()] {
			flags = store.FlagState | store.FlagRejected
		}
		rows[i] = &store.EventRow{NID: store.EventNID(nid), Room: w.ref.NID, Sender: users[ev.Sender()].NID, Event: ev, Flags: flags}
	}
	return rows, nil
}

// state builds the state that consists of some events. Those that were rejected, or are not held, are not in it; two in
// one place, or none that creates the room, are an answer that makes no sense.
func (w *weighing) state(ctx context.Context, ids []matrix.EventID) (store.State, error) {
	var members, rest []statetree.Entry
	filled := map[authrules.StateKey]matrix.EventID{}
	for _, id := range ids {
		ev := w.good[id]
		if ev == nil {
			continue
		}
		key, ok := ev.StateKey()
		at := authrules.StateKey{Type: ev.Type(), Key: key}
		if other, twice := filled[at]; !ok || twice && other != id {
			return store.State{}, errors.New("rooms: another server's state has something that does not belong there")
		} else if twice {
			continue
		}
		filled[at] = id
		entry := statetree.Entry{Key: w.r.hasher.KeyOf(ev.Type(), key), Event: int64(w.nids[id])}
		if ev.Type() == "m.room.member" {
			members = append(members, entry)
		} else {
			rest = append(rest, entry)
		}
	}
	if filled[authrules.StateKey{Type: "m.room.create"}] != w.create {
		return store.State{}, errors.New("rooms: another server's state lacks the room's creation")
	}
	return w.r.writeState(ctx, w.ref, store.State{}, members, rest)
}

// createOf finds the create event of a room that we are in.
func (r *Rooms) createOf(ctx context.Context, ref Ref) (matrix.EventID, error) {
	if id, ok := createID(ref); ok {
		return id, nil
	}
	state, err := r.CurrentState(ctx, ref.NID)
	if err != nil {
		return "", err
	}
	row, err := r.StateEvent(ctx, ref.NID, state, "m.room.create", "")
	if err != nil || row == nil {
		return "", err
	}
	return row.Event.ID(), nil
}
