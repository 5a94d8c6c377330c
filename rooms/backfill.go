package rooms

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

const (
	backfillSize    = 100              // events asked for at a time
	backfillEntries = 3                // points of one answer at which the state is asked for
	backfillTime    = 40 * time.Second // a client is waiting
)

// backfill asks other servers for the history that is missing in a stretch of a room's timeline, at the gap that lies
// latest, and reports whether there is more of it now.
func (r *Rooms) backfill(ctx context.Context, ref Ref, lo, hi Place) (bool, error) {
	unlock, err := r.filling.lock(ctx, ref.NID)
	if err != nil {
		return false, err
	}
	defer unlock()
	gap, missing, err := r.newestGap(ctx, ref, lo, hi)
	if err != nil || gap == nil {
		return false, err
	}
	name := "before " + gap.Event.ID()
	if r.delays.wait(name, "", r.now()) > 0 {
		return false, nil
	}
	inTime, cancel := context.WithTimeout(ctx, backfillTime)
	defer cancel()
	filled, err := r.backfillGap(inTime, ref, gap, missing)
	if (err != nil || !filled) && ctx.Err() == nil {
		r.delays.failed(name, firstAsk, r.now())
	}
	return filled, err
}

func (r *Rooms) backfillGap(ctx context.Context, ref Ref, gap *store.EventRow, missing []matrix.EventID) (bool, error) {
	servers, err := r.askable(ctx, ref, gap.Event.Sender().Server())
	if err != nil {
		return false, err
	}
	have, err := r.stated(ctx, ref, missing)
	if err != nil {
		return false, err
	}
	if len(have) == len(missing) { // they came some other way
		return true, r.db.Write(ctx, func(tx *store.Tx) error { return tx.CloseGaps(ref.NID, missing) })
	}
	last := errStillMissing
	for _, server := range servers {
		h := &history{r: r, ref: ref, gap: gap, servers: servers, left: errands{requests: 2 * maxRequests, states: backfillEntries}, rows: map[matrix.EventID]*store.EventRow{}}
		for id := range have {
			h.closed = append(h.closed, id)
		}
		if err := h.fetch(ctx, server, missing); err != nil {
			last = err
			continue
		}
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if len(h.rows) > 0 {
			return true, h.write(ctx)
		}
	}
	return false, last
}

// history is a piece of a room's past on its way into the database: in order, with the states around each event, without
// any effect on the present.
type history struct {
	r       *Rooms
	ref     Ref
	gap     *store.EventRow // what it stands before
	servers []matrix.ServerName
	left    errands

	rows     map[matrix.EventID]*store.EventRow // of this piece, not written yet
	placed   []*store.EventRow                  // of these, those that have a place in the timeline, oldest first
	replaced []store.EventNID                   // outliers that become history
	closed   []matrix.EventID                   // what is no longer missing
	open     []store.Gap                        // what is missing now
}

// fetch asks a server for what comes before the gap and judges it, parents first.
func (h *history) fetch(ctx context.Context, server matrix.ServerName, missing []matrix.EventID) error {
	raws, err := h.r.source.Backfill(ctx, server, h.ref.ID, missing, backfillSize)
	if err != nil {
		return err
	}
	found := map[matrix.EventID]*matrix.Event{h.gap.Event.ID(): h.gap.Event}
	if _, err := h.r.connect(ctx, h.ref, found, h.r.vetPast(ctx, h.ref, raws[:min(len(raws), 2*backfillSize)])); err != nil {
		return err
	}
	delete(found, h.gap.Event.ID())
	events := make([]*matrix.Event, 0, len(found))
	for _, ev := range found {
		events = append(events, ev)
	}
	for _, ev := range inOrder(events, behind) {
		if err := h.add(ctx, ev); err != nil && ctx.Err() == nil {
			h.r.log.Debug("history left out", "room", h.ref.ID, "event", ev.ID(), "err", err)
		}
	}
	return nil
}

// add judges an event of the past, and gives it its place if it was allowed where it stands.
func (h *history) add(ctx context.Context, ev *matrix.Event) error {
	a, err := h.look(ctx, ev)
	if err != nil {
		return err
	}
	held := a.rows[ev.ID()]
	if held != nil && settled(held) && held.After != nil {
		h.closed = append(h.closed, ev.ID())
		return nil
	}
	lacks := a.lacks()
	if len(lacks.auth) > 0 || len(lacks.parents) > 0 {
		given, err := h.r.supply(ctx, h.ref, h.servers, ev, lacks, &h.left)
		if err != nil {
			return err
		}
		if a, err = h.look(ctx, ev); err != nil {
			return err
		}
		a.before, a.missing = given.before, given.missing
		if len(a.lacks().auth) > 0 {
			return errStillMissing
		}
	}
	before, err := h.r.stateBefore(ctx, h.ref, a)
	if err != nil {
		return err
	}
	refused, err := h.refused(ctx, a, before)
	if err != nil {
		return err
	}
	return h.place(ctx, a, before, refused)
}

// look is Rooms.look that knows what is not written yet.
func (h *history) look(ctx context.Context, ev *matrix.Event) (*arrival, error) {
	a := &arrival{event: ev}
	if err := h.r.look(ctx, h.ref, a); err != nil {
		return nil, err
	}
	for id := range h.rows {
		if row := h.rows[id]; a.rows[id] == nil || a.rows[id].After == nil {
			a.rows[id] = row
		}
	}
	return a, nil
}

// refused says why an event was not allowed where it stands. The room's creation is its own reason.
func (h *history) refused(ctx context.Context, a *arrival, before store.State) (refused, err error) {
	if a.event.Type() == "m.room.create" {
		create, err := h.r.createOf(ctx, h.ref)
		if err == nil && a.event.ID() != create {
			refused = errors.New("a room is created once")
		}
		return refused, err
	}
	if held := a.rows[a.event.ID()]; held != nil && held.Flags.Has(store.FlagRejected) {
		return errors.New("it was rejected before"), nil
	}
	if refused := a.refusedByAuth(); refused != nil {
		return refused, nil
	}
	return h.r.refusedBy(ctx, h.ref, before, a.event)
}

// place makes an event's row.
func (h *history) place(ctx context.Context, a *arrival, before store.State, refused error) error {
	ev := a.event
	sender, err := h.r.User(ctx, ev.Sender())
	if err != nil {
		return err
	}
	after := before
	row := &store.EventRow{Room: h.ref.NID, Sender: sender.NID, Event: ev, After: &after}
	if held := a.rows[ev.ID()]; held != nil {
		if err := stayRedacted(row, held); err != nil {
			return err
		}
		row.NID = held.NID
		h.replaced = append(h.replaced, held.NID)
	} else {
		nid, err := h.r.db.NextNID(store.KindEvent)
		if err != nil {
			return err
		}
		row.NID = store.EventNID(nid)
	}
	if ev.IsState() {
		row.Flags |= store.FlagState
	}
	switch {
	case refused != nil:
		row.Flags |= store.FlagRejected
	case ev.IsState():
		if after, err = h.r.stateWith(ctx, h.ref, before, ev, row.NID); err != nil {
			return err
		}
		row.Before = &before
	}
	h.rows[ev.ID()] = row
	h.closed = append(h.closed, ev.ID())
	if refused == nil {
		row.Pos = h.gap.Pos
		h.placed = append(h.placed, row)
	}
	at := row.NID
	if refused != nil {
		at = h.gap.NID // a gap has to stand at an event that has a place
	}
	for _, id := range a.missing {
		h.open = append(h.open, store.Gap{Room: h.ref.NID, Event: at, Missing: id})
	}
	return nil
}

// write writes the piece at once, before all that stands at the gap's position already.
func (h *history) write(ctx context.Context) error {
	rows := make([]*store.EventRow, 0, len(h.rows))
	for _, row := range h.rows {
		rows = append(rows, row)
	}
	m, err := h.r.meeting(ctx, h.ref)
	if err != nil {
		return err
	}
	if err := m.weighPast(ctx, h.placed); err != nil {
		return err
	}
	err = h.r.db.Write(ctx, func(tx *store.Tx) error {
		oldest, err := tx.OldestSub(h.ref.NID, h.gap.Pos)
		if err != nil {
			return err
		}
		for i, row := range h.placed {
			row.Sub = oldest - int64(len(h.placed)-i)
		}
		if err := tx.Evidence(rows, h.replaced); err != nil {
			return err
		}
		if err := h.effects(tx, m); err != nil {
			return err
		}
		if err := tx.CloseGaps(h.ref.NID, h.closed); err != nil {
			return err
		}
		return tx.AddGaps(h.open)
	})
	if err != nil {
		return fmt.Errorf("writing history of room %s: %w", h.ref.ID, err)
	}
	h.r.unpark(h.ref, rows...)
	ids := make([]matrix.EventID, len(h.placed))
	for i, row := range h.placed {
		ids[i] = row.Event.ID()
	}
	return h.r.meet(ctx, h.ref, ids)
}

// effects notes the relations of the piece and lets redactions take effect in both directions: those of the piece, and
// those that came before their targets.
func (h *history) effects(tx *store.Tx, m *meeting) error {
	var relations []store.Relation
	var words []store.EventNID
	m.begin()
	for _, row := range h.placed {
		if hasWords(row.Event) {
			words = append(words, row.NID)
		}
		if relType, target, ok := relation(row.Event); ok {
			relations = append(relations, store.Relation{Target: target, RelType: relType, Event: row.NID, EventType: row.Event.Type()})
		}
		if err := m.target(tx, row); err != nil {
			return err
		}
		if err := m.redaction(tx, row); err != nil {
			return err
		}
	}
	if err := tx.Relate(h.ref.NID, relations); err != nil {
		return err
	}
	if err := tx.QueueForSearch(words); err != nil {
		return err
	}
	tx.AfterCommit(func() { h.r.cache.events.changed(h.replaced...) })
	return m.write(tx)
}

// roomLocks let one at a time do something in a room.
type roomLocks struct {
	mu   sync.Mutex
	held map[store.RoomNID]chan struct{}
}

// lock waits until nobody else holds the room's lock, or ctx ends.
func (l *roomLocks) lock(ctx context.Context, room store.RoomNID) (unlock func(), err error) {
	for {
		l.mu.Lock()
		busy := l.held[room]
		if busy == nil {
			mine := make(chan struct{})
			l.held[room] = mine
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				delete(l.held, room)
				l.mu.Unlock()
				close(mine)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
