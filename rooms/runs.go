package rooms

import (
	"context"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// takeRun takes the events at the front of a list, which is in order, through the door together, as long as they are
// plain: messages that follow what is held or one another, in a state that need not be resolved, and that are allowed
// where they stand. Nearly all that come are, and one transaction is then enough for all of them. It returns how many
// entered. If anything is wrong with one of them none did, and each by itself will show what it is.
func (r *Rooms) takeRun(ctx context.Context, ref Ref, events []*matrix.Event) (n int) {
	n, err := r.tryRun(ctx, ref, events)
	if err != nil && ctx.Err() == nil {
		r.log.Debug("events enter one by one", "room", ref.ID, "why", err)
	}
	return n
}

func (r *Rooms) tryRun(ctx context.Context, ref Ref, events []*matrix.Event) (n int, err error) {
	defer func() {
		if v := recover(); v != nil {
			n, err = 0, r.panicked("taking events to their places", ref, v)
		}
	}()
	events = events[:min(len(events), maxGroup)]
	if len(events) < 2 || events[0].IsState() || events[1].IsState() {
		return 0, nil
	}
	g, err := r.glance(ctx, ref, events...)
	if err != nil {
		return 0, err
	}
	u := newUnit()
	for _, ev := range events {
		e, err := r.plain(ctx, ref, &arrival{event: ev, glance: g})
		if err != nil {
			return 0, err
		}
		if e == nil {
			break
		}
		u.entries = append(u.entries, e)
		g.rows[ev.ID()] = &store.EventRow{Event: ev, Room: ref.NID, Sender: e.sender, After: &e.incoming.before} // as the next sees it
	}
	if len(u.entries) < 2 {
		return 0, nil
	}
	if err := r.append(ctx, ref, u); err != nil {
		return 0, err
	}
	return len(u.entries), nil
}

// plain makes the entry of an event of a run; nil if it is not one.
func (r *Rooms) plain(ctx context.Context, ref Ref, a *arrival) (*entry, error) {
	id := a.event.ID()
	if a.event.IsState() || a.rows[id] != nil || a.late() || len(a.event.PrevEvents()) == 0 {
		return nil, nil
	}
	if l := a.lacks(); len(l.parents) > 0 || len(l.auth) > 0 || a.refusedByAuth() != nil {
		return nil, nil
	}
	var before store.State
	for i, parent := range a.event.PrevEvents() {
		row := a.rows[parent]
		if row.Flags&(store.FlagRejected|store.FlagSoftFailed) != 0 || i > 0 && row.StateAfter() != before {
			return nil, nil
		}
		before = row.StateAfter()
	}
	if refused, err := r.refusedBy(ctx, ref, before, a.event); refused != nil || err != nil {
		return nil, err
	}
	sender, err := r.User(ctx, a.event.Sender())
	if err != nil {
		return nil, err
	}
	return &entry{incoming: &incoming{event: a.event, before: before}, sender: sender.NID}, nil
}

// expect reads, for all incoming events of a unit at once, what is held of them, whether redactions wait for them and what
// state events among them rest on.
func (d *draft) expect(ctx context.Context, u *unit) error {
	var ids, auth []matrix.EventID
	for _, e := range u.entries {
		if e.incoming == nil {
			continue
		}
		ids = append(ids, e.incoming.event.ID())
		if e.incoming.event.IsState() {
			auth = append(auth, e.incoming.event.AuthEvents()...)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	if d.held == nil {
		d.held, d.redacted = map[matrix.EventID]*store.EventRow{}, map[matrix.EventID]bool{}
		d.heights = map[matrix.EventID]int64{}
	}
	return d.r.db.Read(ctx, func(tx *store.Tx) error {
		for _, id := range ids {
			d.held[id] = nil
		}
		if err := tx.EventsByID(d.ref.NID, ids, func(row *store.EventRow) { d.held[row.Event.ID()] = row }); err != nil {
			return err
		}
		if err := tx.Heights(d.ref.NID, auth, func(id matrix.EventID, h int64) { d.heights[id] = h }); err != nil {
			return err
		}
		return tx.Redacted(d.ref.NID, ids, func(id matrix.EventID) { d.redacted[id] = true })
	})
}

// throughAside adds, to what an event follows, what those of its parents follow that this group sets aside.
func (d *draft) throughAside(parents []matrix.EventID) []matrix.EventID {
	for i := 0; i < len(parents) && len(parents) <= 10*maxExtremities; i++ {
		for _, row := range d.out.Aside {
			if row.Event.ID() == parents[i] {
				parents = append(parents[:len(parents):len(parents)], row.Event.PrevEvents()...)
			}
		}
	}
	return parents
}
