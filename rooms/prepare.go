package rooms

import (
	"context"
	"errors"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
	"conclave/internal/store"
)

// prepare gives every event of a unit its place in the draft, or says why it may not have one. It reads the database
// at most for state that is not at hand, and never the network.
func (d *draft) prepare(ctx context.Context, u *unit) error {
	if err := d.expect(ctx, u); err != nil {
		return err
	}
	for _, e := range u.entries {
		var err error
		if e.template != nil {
			err = d.prepareLocal(ctx, e)
		} else {
			err = d.prepareIncoming(ctx, e)
		}
		if err != nil {
			return err
		}
		if e.txn != (store.TxnKey{}) {
			d.out.Txns = append(d.out.Txns, store.Txn{Key: e.txn, Client: e.txnID, Event: e.row.NID, Answer: string(e.row.Event.ID())})
		}
	}
	return nil
}

// prepareLocal authorises an event of ours against the current state, builds and signs it, and places it.
func (d *draft) prepareLocal(ctx context.Context, e *entry) error {
	t := *e.template // built anew on each try: parents and auth events depend on the head
	version := d.ref.Version
	if !(t.Type == "m.room.create" && version.RoomIDIsCreateHash()) {
		t.RoomID = d.ref.ID
	}
	keys := authrules.NeededFor(version, t.Type, t.StateKey, t.Sender, t.Content)
	state, rows, err := d.authState(ctx, keys)
	if err != nil {
		return err
	}
	t.PrevEvents, t.Depth = d.parents()
	t.AuthEvents = make([]matrix.EventID, 0, len(rows))
	for _, row := range rows {
		t.AuthEvents = append(t.AuthEvents, row.Event.ID())
	}
	if t.OriginServerTS == 0 {
		t.OriginServerTS = d.r.now().UnixMilli()
	}
	if !isPolicy(t.Type, t.StateKey) {
		if by, err := d.policyServer(ctx); err != nil {
			return err
		} else if by != nil {
			return &needAgreement{*by}
		}
	}
	own := d.r.own
	ev, err := t.Build(version, own.Name, own.KeyID, own.Key)
	if err != nil {
		return err
	}
	if err := authrules.Check(ev, state); err != nil {
		return refusal(err)
	}
	if version.RoomIDIsCreateHash() && ev.Type() == "m.room.create" && ev.RoomID() != d.ref.ID {
		return errors.New("rooms: a create event does not make the room that it was built for")
	}
	if ev.Type() == "m.room.redaction" {
		if err := d.mayRedact(ctx, ev); err != nil {
			return err
		}
	}
	if err := d.mayRelate(ctx, e, ev); err != nil {
		return err
	}
	row, err := d.newRow(e, ev, nil)
	if err != nil {
		return err
	}
	row.Flags |= store.FlagSend
	if ev.IsState() {
		row.Height = heightOn(rows)
	}
	return d.place(ctx, e, row, d.head.state)
}

// heightOn is the height of an event whose auth events are these.
func heightOn(auth []*store.EventRow) int64 {
	ids, heights := make([]matrix.EventID, len(auth)), make(map[matrix.EventID]int64, len(auth))
	for i, row := range auth {
		ids[i], heights[row.Event.ID()] = row.Event.ID(), row.Height
	}
	return store.HeightOn(ids, func(id matrix.EventID) int64 { return heights[id] })
}

// refusal turns a rule's refusal into what a client is told.
func refusal(err error) error {
	var no *authrules.Refusal
	if errors.As(err, &no) {
		return matrix.Forbidden("%s", no.Text).With(err)
	}
	return err
}

// prepareContained is prepare for a unit that must not take the others of its group with it, whatever is wrong with it.
func (d *draft) prepareContained(ctx context.Context, u *unit) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = d.r.panicked("preparing an event", d.ref, v)
		}
	}()
	return d.prepare(ctx, u)
}

// newRow makes an event's row. One that is held as an outlier keeps its number, by which states may refer to it.
func (d *draft) newRow(e *entry, ev *matrix.Event, held *store.EventRow) (*store.EventRow, error) {
	row := &store.EventRow{Room: d.ref.NID, Sender: e.sender, Event: ev}
	if held != nil {
		if err := stayRedacted(row, held); err != nil {
			return nil, err
		}
		row.NID = held.NID
		d.out.Replaced = append(d.out.Replaced, held.NID)
	} else {
		nid, err := d.r.db.NextNID(store.KindEvent)
		if err != nil {
			return nil, err
		}
		row.NID = store.EventNID(nid)
	}
	if ev.IsState() {
		row.Flags |= store.FlagState
	}
	return row, nil
}

// place puts an authorised event at the head of the room: its state, its counters, and what follows from it. before
// is the state before the event, which for an event with older parents is not the current one.
func (d *draft) place(ctx context.Context, e *entry, row *store.EventRow, before store.State) error {
	e.row = row
	ev := row.Event
	after := before
	if key, ok := ev.StateKey(); ok {
		var err error
		if after, err = d.putState(ctx, before, authrules.StateKey{Type: ev.Type(), Key: key}, row.NID); err != nil {
			return err
		}
		row.Before = &before
	}
	row.After = &after
	d.rows[row.NID] = row
	index := len(d.out.Events)
	d.out.Events = append(d.out.Events, row)

	was := d.head.state
	if e.incoming != nil && e.incoming.anew {
		was.Members = e.incoming.shown
	}
	if err := d.advance(ctx, e, row, after); err != nil {
		return err
	}
	if d.head.state != was {
		had := len(d.out.Members)
		if err := d.stateChanged(ctx, e, row, was, index); err != nil {
			return err
		}
		if e.incoming != nil && e.incoming.anew {
			if err := d.endOutside(ctx, index); err != nil {
				return err
			}
		}
		if err := d.moved(ctx, d.out.Members[had:]); err != nil {
			return err
		}
	}
	if err := d.relate(ctx, row); err != nil {
		return err
	}
	if err := d.redact(ctx, e, row); err != nil {
		return err
	}
	d.head.nid = row.NID
	return d.count(ctx, row)
}

// advance moves the room's ends and its current state past an event.
func (d *draft) advance(ctx context.Context, e *entry, row *store.EventRow, after store.State) error {
	end := extremity{row.NID, row.Event.ID(), row.Event.Depth()}
	parents := row.Event.PrevEvents()
	if e.incoming != nil {
		parents = d.throughAside(e.incoming.parents())
	}
	left := d.remaining(parents)
	late := e.incoming != nil && e.incoming.late
	switch {
	case len(left) == 0, e.incoming != nil && e.incoming.anew:
		d.head.extremities = []extremity{end}
		d.head.state = after
		return nil
	case e.incoming == nil:
		return errors.New("rooms: an event of ours does not join all ends of its room")
	}
	ends := left
	if !late {
		ends = append(ends, end)
	}
	if len(ends) > maxExtremities {
		ends = ends[len(ends)-maxExtremities:]
	}
	current, err := d.currentOf(ctx, ends, row, after)
	if err != nil {
		return err
	}
	d.head.extremities, d.head.state = ends, current
	d.stay(row, after)
	return nil
}

// stay writes the room's ends and current state, as they are, into the row of an event that is not all there is of them.
func (d *draft) stay(row *store.EventRow, after store.State) {
	row.Extremities = make([]store.EventNID, len(d.head.extremities))
	for i, x := range d.head.extremities {
		row.Extremities[i] = x.nid
	}
	if current := d.head.state; current != after {
		row.Head = &current
	}
}

// remaining are the ends of the room that an event with these parents does not follow.
func (d *draft) remaining(parents []matrix.EventID) []extremity {
	var left []extremity
next:
	for _, x := range d.head.extremities {
		for _, p := range parents {
			if p == x.id {
				continue next
			}
		}
		left = append(left, x)
	}
	return left
}

// stateChanged does what a change of the current state asks for: the checks' memory and the projection of members.
func (d *draft) stateChanged(ctx context.Context, e *entry, row *store.EventRow, was store.State, index int) error {
	ev := row.Event
	plain := row.Before != nil && *row.Before == was && d.head.state == row.StateAfter() // nothing but this event changed
	if !plain {
		return d.stateDiffers(ctx, row, was, index)
	}
	key, _ := ev.StateKey()
	d.setAuth(authrules.StateKey{Type: ev.Type(), Key: key}, row, true)
	if ev.Type() == "m.room.member" {
		who, err := d.r.User(ctx, matrix.UserID(key))
		if err != nil {
			return err
		}
		d.out.Members = append(d.out.Members, store.MemberChange{
			Member: who, Membership: store.MembershipOf(ev.Membership()), Event: row.NID, At: index,
		})
	}
	return nil
}
